//! One producer's stream: batches in, confirms out, in a task of its own.
//!
//! Batches reach the engine in the order of the stream, and are confirmed in that order. Each is a Send whose `request_id`
//! is made of the producer's name and the batch's `seq`, so that one that is sent again on another stream is answered as
//! the first one was. What the stream may have on its way is bounded by its [`window`]; beyond it nothing is read.

mod window;

use std::pin::pin;
use std::sync::Arc;

use ackwell_engine::command::{Batch, Send, Sent};
use ackwell_engine::message::QueueId;
use ackwell_engine::{Command, Refusal, Reply};
use ackwell_proto::Failure;
use ackwell_proto::v1::{
    GoAway, ProduceBatch, ProduceConfirm, ProduceOpen, ProduceOpened, ProduceRequest, ProduceResponse,
    ProduceResult, ProduceWindow, produce_request, produce_response::Frame,
};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::Service;
use super::queues::{merge, send_result, split};
use crate::broker::access::{Caller, Sender, Verb};
use crate::broker::convert;
use crate::broker::refusal::failure;
use crate::broker::served::{Allowed, Lease};
use crate::broker::shard::{Chain, Level};
use crate::calls::refused_stream;
use crate::producer::Producer;
use crate::traces::{self, Open};

/// Frames waiting for the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// Results of one frame, below the 4 MiB that gRPC clients accept by default: some of them have long messages for people.
const MAX_FRAME_RESULTS: usize = 2000;

type Outgoing = Result<ProduceResponse, Status>;

/// Reads the first frame and starts the stream.
pub(super) async fn open(
    service: &Service,
    caller: Caller,
    mut incoming: Streaming<ProduceRequest>,
) -> Result<impl Stream<Item = Outgoing> + std::marker::Send + 'static, Status> {
    let first = incoming.message().await?.and_then(|request| request.frame);
    let Some(produce_request::Frame::Open(open)) = first else {
        return Err(Failure::invalid("the first frame of Produce must be `open`").into());
    };
    let (out, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let session = Session::new(service, &caller, open, out).await?;
    let lease = service.queues.lease(caller, Verb::Send, &session.queue_name);
    service.sessions.spawn(session.run(incoming, lease));
    Ok(ReceiverStream::new(outgoing))
}

struct Session {
    service: Service,
    queue: QueueId,
    /// For its settings.
    queue_name: String,
    /// Who produces.
    sender: Sender,
    level: Arc<Level>,
    producer: Producer,
    want_ids: bool,
    window: ProduceWindow,
    load: Load,
    /// So that messages of a key are not stored before those that came before them.
    chain: Chain,
    unconfirmed: FuturesOrdered<BoxFuture<'static, Answered>>,
    out: mpsc::Sender<Outgoing>,
}

/// Messages on their way, and the bytes of their bodies.
#[derive(Clone, Copy, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// A batch with its fate.
struct Answered {
    seq: u64,
    load: Load,
    span: Option<Open>,
    results: Result<Vec<Result<Sent, Failure>>, Failure>,
}

/// Why a stream is over.
enum End {
    /// The producer closed it; what it sent is confirmed.
    Closed,
    /// It is gone.
    Dropped,
    /// We end it. What is not confirmed is to be sent again, if at all.
    Failed(Status),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(refused_stream(failure))
    }
}

impl Session {
    async fn new(
        service: &Service,
        caller: &Caller,
        open: ProduceOpen,
        out: mpsc::Sender<Outgoing>,
    ) -> Result<Self, Failure> {
        let ProduceOpen { queue: queue_name, producer, want_ids } = open;
        let Allowed { served, sender } = service.queues.allow(caller, Verb::Send, &queue_name)?;
        let level = service.shard.level(served.id).await?;
        let producer = Producer::named(producer)?;
        Ok(Self {
            service: service.clone(),
            queue: served.id,
            queue_name: served.name(),
            sender,
            window: window::of(&level, &served.config.settings.unwrap_or_default()),
            level,
            producer,
            want_ids,
            load: Load::default(),
            chain: Chain::default(),
            unconfirmed: FuturesOrdered::new(),
            out,
        })
    }

    async fn run(mut self, mut incoming: Streaming<ProduceRequest>, lease: Lease) {
        let opened = ProduceOpened { producer: self.producer.name().to_owned(), window: Some(self.window) };
        self.send(Frame::Opened(opened)).await;
        if let End::Failed(status) = self.serve(&mut incoming, lease).await {
            _ = self.out.send(Err(status)).await;
        }
    }

    async fn serve(&mut self, incoming: &mut Streaming<ProduceRequest>, lease: Lease) -> End {
        let stopping = self.service.stopping.clone();
        let mut lease_over = pin!(lease.over());
        let (mut is_told, mut is_closed) = (false, false);
        while !(is_closed && self.unconfirmed.is_empty()) {
            let reads_on = !is_closed && self.has_room();
            let done = tokio::select! {
                () = self.out.closed() => return End::Dropped,
                failure = &mut lease_over => return failure.into(),
                () = stopping.cancelled(), if !is_told => {
                    is_told = true;
                    self.send(Frame::GoAway(GoAway { reason: "the broker is stopping".to_owned() })).await;
                    Ok(())
                }
                Some(answered) = self.unconfirmed.next() => self.confirm(answered).await,
                read = incoming.message(), if reads_on => match read {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) => { is_closed = true; Ok(()) }
                    // A connection that broke does not hear it; a frame that is too large has a sender that does.
                    Err(status) => return End::Failed(status),
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
        End::Closed
    }

    fn has_room(&self) -> bool {
        self.load.messages < self.window.max_messages as usize
            && (self.load.bytes as u64) < self.window.max_bytes
    }

    async fn take(&mut self, request: ProduceRequest) -> Result<(), End> {
        match request.frame {
            Some(produce_request::Frame::Batch(batch)) => self.take_batch(batch).await,
            Some(produce_request::Frame::Open(_)) => {
                Err(Failure::invalid("`open` may only be the first frame of Produce").into())
            }
            None => Err(Failure::invalid("a frame of Produce is empty, or newer than this broker").into()),
        }
    }

    /// Hands the batch to the engine, behind the one before.
    async fn take_batch(&mut self, batch: ProduceBatch) -> Result<(), End> {
        let ProduceBatch { seq, messages } = batch;
        self.producer.advance(seq)?;
        convert::batch_size("messages", messages.len())?;
        let load = Load { messages: messages.len(), bytes: messages.iter().map(|m| m.body.len()).sum() };
        self.load.messages += load.messages;
        self.load.bytes += load.bytes;
        let span = traces::send_frame(|| self.queue_name.clone(), &messages);
        let parsed = messages.into_iter().map(|message| convert::new_message(message, &self.sender));
        let (valid, invalid) = split(parsed.collect());
        let request_id = self.producer.request_id(seq);
        let send = Send { queue: self.queue, messages: valid, batch: Batch::Each, request_id };
        let answer = self.submit(send).await;
        let answered = async move {
            let results = answer.await.map(|results| merge(invalid, results));
            Answered { seq, load, span, results }
        };
        self.unconfirmed.push_back(answered.boxed());
        Ok(())
    }

    /// Waits for room, not for the answer.
    async fn submit(
        &mut self,
        send: Send,
    ) -> impl Future<Output = Result<Vec<Result<Sent, Refusal>>, Failure>> + use<> {
        let answered = if send.messages.is_empty() {
            None
        } else {
            Some(self.service.shard.enqueue(Command::Send(send), Some(self.chain.clone())).await)
        };
        async move {
            let Some(answered) = answered else { return Ok(Vec::new()) };
            match answered.reply().await? {
                Reply::Sent(results) => Ok(results),
                Reply::Refused(refused) => Err(failure(&refused)),
                other => unreachable!("a Send is answered by results, not {other:?}"),
            }
        }
    }

    /// Confirms the batch, and with it those behind it that are answered by now.
    async fn confirm(&mut self, answered: Answered) -> Result<(), End> {
        let mut confirm = ProduceConfirm::default();
        let mut next = Some(answered);
        let mut failed = Ok(());
        while let Some(answered) = next {
            self.load.messages -= answered.load.messages;
            self.load.bytes -= answered.load.bytes;
            failed = self.note(answered, &mut confirm);
            if failed.is_err() || confirm.results.len() >= MAX_FRAME_RESULTS {
                break;
            }
            next = self.unconfirmed.next().now_or_never().flatten();
        }
        if confirm.through_seq > 0 {
            self.send(Frame::Confirm(confirm)).await;
        }
        self.adapt_window().await;
        failed
    }

    /// A queue that is gone is noticed by the next batch.
    async fn adapt_window(&mut self) {
        let Ok(served) = self.service.queues.find(&self.queue_name) else { return };
        let window = window::of(&self.level, &served.config.settings.unwrap_or_default());
        if window::is_news(self.window, window) {
            self.window = window;
            self.send(Frame::Window(window)).await;
        }
    }

    fn note(&self, answered: Answered, confirm: &mut ProduceConfirm) -> Result<(), End> {
        let Answered { seq, load, span, results } = answered;
        end_span(span, load.messages, &results);
        let results = match results {
            Err(failure) if failure.reason.code() != Code::ResourceExhausted => return Err(failure.into()),
            Err(failure) => vec![Err(failure); load.messages],
            Ok(results) => results,
        };
        let is_told = |result: &Result<Sent, Failure>| {
            self.want_ids || result.as_ref().map_or(true, |sent| sent.duplicate)
        };
        let told = (0..).zip(results).filter(|(_, result)| is_told(result));
        let told =
            told.map(|(index, result)| ProduceResult { seq, index, result: Some(send_result(result)) });
        confirm.results.extend(told);
        confirm.through_seq = seq;
        Ok(())
    }

    async fn send(&mut self, frame: Frame) {
        // A closed transport is noticed by `serve`.
        _ = self.out.send(Ok(ProduceResponse { frame: Some(frame) })).await;
    }
}

fn end_span(span: Option<Open>, messages: usize, results: &Result<Vec<Result<Sent, Failure>>, Failure>) {
    if span.is_none() {
        return;
    }
    let id = || results.as_ref().ok()?.first()?.as_ref().ok().map(|sent| sent.id.to_string());
    let failures: Vec<_> = match results {
        Ok(results) => results.iter().filter_map(|result| result.as_ref().err()).collect(),
        Err(failure) => vec![failure; messages],
    };
    traces::stored(span, messages, id, failures.into_iter().map(|failure| failure.reason.as_str()));
}
