//! One consumer's stream: frames in, deliveries and results out, in a task of its own.
//!
//! How a stream ends ([`StreamEnd`]) decides what becomes of the messages that it holds: of a consumer that left on
//! purpose they are released; of one whose connection broke they wait for it to come back. What never reached the
//! transport was not seen by anybody and is released in any case.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ackwell_engine::command::Delivery;
use ackwell_engine::message::QueueId;
use ackwell_proto::v1::{
    self, ConsumeRequest, ConsumeResponse, Deliveries, ExtendFrame, ExtendedFrame, GoAway, Open, Opened,
    Revoked, SettleFrame, SettledFrame, consume_request, consume_response::Frame,
};
use ackwell_proto::{Failure, Reason};
use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Service;
use super::queues::{Patience, extend_result, settle_result};
use crate::broker::access::{Caller, Verb};
use crate::broker::convert;
use crate::broker::served::Lease;
use crate::broker::shard::{Closed, Event, Job, Subscription, SubscriptionId, Unread, Window, unread_bytes};
use crate::calls::refused_stream;
use crate::stream_end::{self, StreamEnd};
use crate::traces::{self, Open as Span};

const DEFAULT_WINDOW_MESSAGES: u32 = 32;
const DEFAULT_WINDOW_BYTES: u64 = 16 << 20;
const MAX_WINDOW_MESSAGES: u32 = 10_000;
const MAX_WINDOW_BYTES: u64 = 256 << 20;
/// Frames waiting for the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// Of one frame, below the 4 MiB that gRPC clients accept by default. A larger message comes alone.
const MAX_FRAME_BYTES: usize = 3 << 20;
/// Settle and extend frames of one stream that wait for their commit; the next is read when one is answered.
const MAX_UNANSWERED: usize = 64;

type Outgoing = Result<ConsumeResponse, Status>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Reads the first frame and starts the stream.
pub(super) async fn open(
    service: &Service,
    caller: Caller,
    mut incoming: Streaming<ConsumeRequest>,
) -> Result<impl Stream<Item = Outgoing> + Send + 'static, Status> {
    let first = incoming.message().await?.and_then(|request| request.frame);
    let Some(consume_request::Frame::Open(open)) = first else {
        return Err(Failure::invalid("the first frame of Consume must be `open`").into());
    };
    let (out, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let queue = open.queue.clone();
    let (session, held) = Session::new(service, &caller, open, out)?;
    let taken = session.taken.clone();
    let lease = service.queues.lease(caller, Verb::Consume, &queue);
    service.sessions.spawn(session.run(incoming, held, lease));
    Ok(ReceiverStream::new(outgoing).inspect(move |_| _ = taken.fetch_add(1, Ordering::Relaxed)))
}

struct Session {
    service: Service,
    queue: QueueId,
    /// For its spans.
    queue_name: Arc<str>,
    id: SubscriptionId,
    consumer: String,
    window: Window,
    is_draining: bool,
    out: mpsc::Sender<Outgoing>,
    /// Frames put into `out`, and how many of them the transport took.
    sent: u64,
    taken: Arc<AtomicU64>,
    unread: Unread,
    /// Frames with deliveries that the transport may not have taken yet.
    untaken: VecDeque<(u64, Vec<Bytes>)>,
    unanswered: FuturesOrdered<BoxFuture<'static, Outgoing>>,
}

impl Session {
    fn new(
        service: &Service,
        caller: &Caller,
        open: Open,
        out: mpsc::Sender<Outgoing>,
    ) -> Result<(Self, Vec<Bytes>), Failure> {
        if open.held.len() > MAX_WINDOW_MESSAGES as usize {
            return Err(Failure::invalid(format!("held has over {MAX_WINDOW_MESSAGES} receipts")));
        }
        let served = service.queues.allow(caller, Verb::Consume, &open.queue)?.served;
        let session = Self {
            service: service.clone(),
            queue: served.id,
            queue_name: served.name().into(),
            id: SubscriptionId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            consumer: convert::consumer(open.consumer)?,
            window: window(open.window)?,
            is_draining: false,
            out,
            sent: 0,
            taken: Arc::default(),
            unread: Unread::default(),
            untaken: VecDeque::new(),
            unanswered: FuturesOrdered::new(),
        };
        Ok((session, open.held.into_iter().map(Bytes::from).collect()))
    }

    async fn run(mut self, mut incoming: Streaming<ConsumeRequest>, held: Vec<Bytes>, lease: Lease) {
        let (events, mut told) = mpsc::channel(MAX_WINDOW_MESSAGES as usize);
        self.send(Frame::Opened(Opened { window: Some(wire_window(self.window)) })).await;
        let subscription = Subscription {
            id: self.id,
            queue: self.queue,
            consumer: std::mem::take(&mut self.consumer),
            window: self.window,
            events,
            unread: self.unread.clone(),
        };
        self.service.shard.tell(Job::Open(subscription, held)).await;
        let end = self.serve(&mut incoming, &mut told, lease).await;
        // What was asked before the end is done before the end takes effect.
        while let Some(answer) = self.unanswered.next().await {
            self.put(answer).await;
        }
        let closed = Closed { id: self.id, untaken: self.untaken(), unread: told, end };
        self.service.shard.tell(Job::Close(closed)).await;
    }

    async fn serve(
        &mut self,
        incoming: &mut Streaming<ConsumeRequest>,
        told: &mut mpsc::Receiver<Event>,
        lease: Lease,
    ) -> StreamEnd {
        let mut lease_over = pin!(lease.over());
        loop {
            tokio::select! {
                () = self.out.closed() => return self.read_on(incoming).await,
                failure = &mut lease_over => return self.end(failure).await,
                read = incoming.message(), if self.unanswered.len() < MAX_UNANSWERED => match StreamEnd::of(read) {
                    Ok(end) => return end,
                    Err(request) => if let Err(failure) = self.take(request).await {
                        return self.refuse(failure).await;
                    },
                },
                Some(answer) = self.unanswered.next() => self.put(answer).await,
                Some(event) = told.recv() => self.pass_on(event).await,
            }
        }
    }

    /// What the consumer still said before it dropped our half of the stream.
    async fn read_on(&mut self, incoming: &mut Streaming<ConsumeRequest>) -> StreamEnd {
        let mut last = Vec::new();
        let end = stream_end::after_drop(incoming, |request| last.push(request)).await;
        for request in last {
            // Nobody is left to be told that a frame was refused.
            _ = self.take(request).await;
        }
        end
    }

    async fn take(&mut self, request: ConsumeRequest) -> Result<(), Failure> {
        match request
            .frame
            .ok_or_else(|| Failure::invalid("a frame of Consume is empty, or newer than this broker"))?
        {
            consume_request::Frame::Open(_) => {
                Err(Failure::invalid("`open` may only be the first frame of Consume"))
            }
            consume_request::Frame::Window(wanted) => {
                self.resize(window(Some(wanted))?).await;
                Ok(())
            }
            consume_request::Frame::Drain(_) => {
                self.resize(Window { max_messages: 0, max_bytes: 0 }).await;
                self.is_draining = true;
                Ok(())
            }
            consume_request::Frame::Settle(frame) => {
                let span = traces::settle_frame(|| self.queue_name.to_string(), &frame.settlements);
                self.unanswered.push_back(settle(self.service.clone(), self.queue, frame, span).boxed());
                Ok(())
            }
            consume_request::Frame::Extend(frame) => {
                self.unanswered.push_back(extend(self.service.clone(), self.queue, frame).boxed());
                Ok(())
            }
        }
    }

    /// A drained stream stays so.
    async fn resize(&mut self, window: Window) {
        if !self.is_draining {
            self.service.shard.tell(Job::Resize(self.id, window)).await;
        }
    }

    /// A frame that breaks the protocol ends the stream; what it held is released.
    async fn refuse(&mut self, failure: Failure) -> StreamEnd {
        self.put(Err(refused_stream(failure))).await;
        StreamEnd::Deliberate
    }

    /// A consumer that may come back is waited for, as one whose connection broke; of another what it held is released.
    async fn end(&mut self, failure: Failure) -> StreamEnd {
        let may_return = failure.reason == Reason::TokenExpired;
        self.refuse(failure).await;
        if may_return { StreamEnd::Broken } else { StreamEnd::Deliberate }
    }

    async fn pass_on(&mut self, event: Event) {
        match event {
            Event::GoAway => {
                self.send(Frame::GoAway(GoAway { reason: "the broker is stopping".to_owned() })).await;
            }
            Event::Revoked(receipts) => {
                let receipts = receipts.into_iter().map(Into::into).collect();
                self.send(Frame::Revoked(Revoked { receipts, reason: "RECEIPT_EXPIRED".to_owned() })).await;
            }
            Event::Deliveries(deliveries) => {
                let bytes = unread_bytes(&deliveries);
                for frame in frames(deliveries) {
                    traces::receive_frame(|| self.queue_name.to_string(), &frame);
                    let receipts = frame.iter().map(|delivery| delivery.receipt.clone()).collect();
                    self.untaken.push_back((self.sent + 1, receipts));
                    self.send(Frame::Deliveries(Deliveries { deliveries: frame })).await;
                }
                if self.unread.read(bytes) {
                    self.service.shard.tell(Job::Read).await;
                }
            }
        }
    }

    async fn send(&mut self, frame: Frame) {
        self.put(Ok(ConsumeResponse { frame: Some(frame) })).await;
    }

    async fn put(&mut self, outgoing: Outgoing) {
        self.sent += 1;
        // A closed transport is noticed by `serve`.
        _ = self.out.send(outgoing).await;
        let taken = self.taken.load(Ordering::Relaxed);
        while self.untaken.front().is_some_and(|(number, _)| *number <= taken) {
            self.untaken.pop_front();
        }
    }

    /// Deliveries that the transport never took.
    fn untaken(&self) -> Vec<Bytes> {
        let taken = self.taken.load(Ordering::Relaxed);
        let untaken = self.untaken.iter().filter(|(number, _)| *number > taken);
        untaken.flat_map(|(_, receipts)| receipts.clone()).collect()
    }
}

/// A frame that fails as a whole is answered item by item: the stream and its other messages are not to blame.
async fn settle(service: Service, queue: QueueId, frame: SettleFrame, span: Option<Span>) -> Outgoing {
    let SettleFrame { seq, settlements } = frame;
    let count = settlements.len();
    let results = service
        .settle_all(queue, settlements, Patience::Stream)
        .await
        .unwrap_or_else(|failure| vec![Err(failure); count]);
    let results: Vec<_> = results.into_iter().map(settle_result).collect();
    traces::answered(span, &results);
    Ok(ConsumeResponse { frame: Some(Frame::Settled(SettledFrame { seq, results })) })
}

async fn extend(service: Service, queue: QueueId, frame: ExtendFrame) -> Outgoing {
    let ExtendFrame { seq, receipts, ack_timeout } = frame;
    let count = receipts.len();
    let receipts = receipts.into_iter().map(Bytes::from).collect();
    let results = match convert::ack_timeout(ack_timeout.as_ref()) {
        Ok(ack_timeout_ms) => service.extend_all(queue, receipts, ack_timeout_ms, Patience::Stream).await,
        Err(failure) => Err(failure),
    };
    let results = results.unwrap_or_else(|failure| vec![Err(failure); count]);
    let results = results.into_iter().map(extend_result).collect();
    Ok(ConsumeResponse { frame: Some(Frame::Extended(ExtendedFrame { seq, results })) })
}

fn window(wanted: Option<v1::Window>) -> Result<Window, Failure> {
    let v1::Window { max_messages, max_bytes } = wanted.unwrap_or_default();
    if max_messages > MAX_WINDOW_MESSAGES || max_bytes > MAX_WINDOW_BYTES {
        let limits = format!("{MAX_WINDOW_MESSAGES} messages and {MAX_WINDOW_BYTES} bytes");
        return Err(Failure::invalid(format!("the window is too large: at most {limits}")));
    }
    Ok(Window {
        max_messages: if max_messages == 0 { DEFAULT_WINDOW_MESSAGES } else { max_messages },
        max_bytes: if max_bytes == 0 { DEFAULT_WINDOW_BYTES } else { max_bytes },
    })
}

fn wire_window(window: Window) -> v1::Window {
    v1::Window { max_messages: window.max_messages, max_bytes: window.max_bytes }
}

/// Cuts deliveries into frames that every client can take, and settle with one frame of its own.
fn frames(deliveries: Vec<Delivery>) -> Vec<Vec<v1::Delivery>> {
    let mut frames: Vec<Vec<v1::Delivery>> = Vec::new();
    let mut bytes = 0;
    for delivery in deliveries.into_iter().map(convert::delivery) {
        let len = convert::len_in_list(&delivery);
        let is_full =
            |frame: &Vec<v1::Delivery>| frame.len() == convert::MAX_BATCH || bytes + len > MAX_FRAME_BYTES;
        if frames.last().is_none_or(is_full) {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        frames.last_mut().expect("one was just pushed").push(delivery);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::shard::tests::delivery;

    /// Promise: whoever acks a frame of deliveries with one frame is not refused for its length, and every client can read
    /// it.
    #[test]
    fn frames_are_cut_by_items_and_by_bytes() {
        let cut = |sizes: Vec<usize>| frames(sizes.into_iter().map(delivery).collect());
        let lengths = |frames: Vec<Vec<v1::Delivery>>| frames.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(cut(vec![0; 2500])), [1000, 1000, 500]);
        assert_eq!(lengths(cut(vec![2 << 20, 2 << 20, 1, 5 << 20])), [1, 2, 1]);
        assert!(cut(Vec::new()).is_empty());
    }
}
