//! One stream of the application, and the streams to the shards behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ackwell_proto::Failure;
use ackwell_proto::v1::produce_response::Frame;
use ackwell_proto::v1::{
    GoAway, ProduceBatch, ProduceConfirm, ProduceOpened, ProduceRequest, ProduceResponse, ProduceWindow,
    produce_request,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::leg::{Event, Leg, Line, Part};
use super::pending::{Batch, Pending};
use crate::producer::Producer;
use crate::sidecar::attempt::What;
use crate::sidecar::merge;
use crate::sidecar::retry::{DEFAULT_BUDGET, Deadline, describe, is_transient};
use crate::sidecar::route::passed_on;
use crate::sidecar::send;
use crate::sidecar::service::{Sidecar, room_kib};
use crate::sidecar::slots;

/// Batches of a stream that wait for brokers; the next is read when one is confirmed.
pub(super) const MAX_PENDING: usize = 1024;
/// What an application may have on its way until a shard says less.
const WINDOW: ProduceWindow = ProduceWindow { max_messages: 10_000, max_bytes: 16 << 20 };

type Outgoing = Result<ProduceResponse, Status>;

pub(super) struct Session {
    sidecar: Arc<Sidecar>,
    line: Line,
    producer: Producer,
    legs: BTreeMap<usize, Leg>,
    pending: Pending,
    /// A batch for which there is no memory yet.
    stalled: Option<ProduceBatch>,
    /// As the application was told.
    window: ProduceWindow,
    /// Why the last stream to a shard ended.
    last_error: Option<String>,
    out: mpsc::Sender<Outgoing>,
}

impl Session {
    pub(super) fn new(
        sidecar: Arc<Sidecar>,
        line: Line,
        producer: Producer,
        out: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            sidecar,
            line,
            producer,
            legs: BTreeMap::new(),
            pending: Pending::default(),
            stalled: None,
            window: WINDOW,
            last_error: None,
            out,
        }
    }

    /// Until the stream ends; an error is for the application to hear.
    pub(super) async fn serve(
        &mut self,
        requests: &mut Streaming<ProduceRequest>,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<(), Status> {
        let producer = self.producer.name().to_owned();
        self.send(Frame::Opened(ProduceOpened { producer, window: Some(self.window) })).await;
        let stopping = self.sidecar.stopping.clone();
        let (mut is_told, mut is_closed) = (false, false);
        while !(is_closed && self.pending.len() == 0 && self.stalled.is_none()) {
            let reads_on = !is_closed && self.has_room();
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                () = stopping.cancelled(), if !is_told => {
                    is_told = true;
                    self.send(Frame::GoAway(GoAway { reason: "the sidecar is stopping".to_owned() })).await;
                }
                Some(event) = events.recv() => self.on_event(event).await?,
                room = self.room() => self.ask_stalled(room).await?,
                read = requests.message(), if reads_on => match read {
                    Ok(Some(request)) => self.stalled = Some(self.parse(request)?),
                    Ok(None) => is_closed = true,
                    // A connection that broke does not hear it; a frame that is too large has a sender that does.
                    Err(status) => return Err(status),
                },
                () = self.expiry() => return Err(self.expired().into()),
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.stalled.is_none()
            && self.pending.len() < MAX_PENDING
            && self.pending.messages < self.window.max_messages as usize
            && (self.pending.bytes as u64) < self.window.max_bytes
    }

    /// Memory for the stalled batch; never, when there is none.
    fn room(&self) -> impl Future<Output = OwnedSemaphorePermit> + use<> {
        let room = self.stalled.as_ref().map(|batch| self.sidecar.room(room_kib(batch)));
        async move {
            match room {
                Some(room) => room.await,
                None => std::future::pending().await,
            }
        }
    }

    /// When the oldest batch is given up; never, when there is none.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let oldest = self.pending.oldest();
        async move {
            match oldest {
                Some(since) => sleep_until(since + DEFAULT_BUDGET).await,
                None => std::future::pending().await,
            }
        }
    }

    fn expired(&self) -> Failure {
        let deadline = Deadline::within(DEFAULT_BUDGET);
        self.line.queue.unavailable(deadline, "its shard", self.last_error.as_deref())
    }

    fn parse(&mut self, request: ProduceRequest) -> Result<ProduceBatch, Failure> {
        let batch = match request.frame {
            Some(produce_request::Frame::Batch(batch)) => batch,
            Some(produce_request::Frame::Open(_)) => {
                return Err(Failure::invalid("`open` may only be the first frame of Produce"));
            }
            None => {
                return Err(Failure::invalid("a frame of Produce is empty, or newer than this sidecar"));
            }
        };
        merge::check_batch(batch.messages.len(), "messages")?;
        self.producer.advance(batch.seq)?;
        Ok(batch)
    }

    /// Gives the batch to its shards: messages with a key or `dedup_id` to theirs, the others to one that a repetition
    /// finds too.
    async fn ask_stalled(&mut self, room: OwnedSemaphorePermit) -> Result<(), Status> {
        let Some(ProduceBatch { seq, messages }) = self.stalled.take() else { return Ok(()) };
        let shards = self.line.queue.route(Deadline::within(DEFAULT_BUDGET)).await?.shards.len();
        let (count, bytes) = (messages.len(), messages.iter().map(|message| message.body.len()).sum());
        let anywhere = slots::shard_of(&self.producer.request_id(seq), shards);
        let parts = send::by_shard(messages, anywhere, shards);
        self.pending.add(Batch {
            seq,
            messages: count,
            bytes,
            since: Instant::now(),
            parts: parts.len(),
            results: Vec::new(),
            _room: room,
        });
        for part in parts {
            let leg = self.legs.entry(part.shard).or_insert_with(|| Leg::new(part.shard));
            let batch = ProduceBatch { seq, messages: part.items };
            leg.ask(&self.line, Part { positions: part.positions, batch });
        }
        Ok(())
    }

    async fn on_event(&mut self, event: Event) -> Result<(), Status> {
        let Event { shard, epoch, what } = event;
        let Some(leg) = self.legs.get_mut(&shard).filter(|leg| leg.epoch == epoch) else { return Ok(()) };
        match what {
            What::Frame(Frame::Opened(opened)) => leg.opened(opened.window),
            What::Frame(Frame::Window(window)) => leg.window = Some(window),
            What::Frame(Frame::GoAway(_)) => leg.hang_up(),
            What::Frame(Frame::Confirm(confirm)) => self.on_confirm(shard, confirm).await,
            What::Ended(Some(status)) if !is_transient(&status) => return Err(passed_on(&status)),
            What::Ended(status) => {
                self.last_error = status.as_ref().map(describe).or(self.last_error.take());
                leg.ended(&self.line);
            }
        }
        self.pass_window_on().await;
        Ok(())
    }

    async fn on_confirm(&mut self, shard: usize, confirm: ProduceConfirm) {
        let Some(leg) = self.legs.get_mut(&shard) else { return };
        for result in confirm.results {
            if let Some(position) = leg.position(result.seq, result.index) {
                self.pending.result(result.seq, position, result.result);
            }
        }
        leg.confirmed(confirm.through_seq).for_each(|seq| self.pending.confirmed(seq));
        while let Some(confirm) = self.pending.confirm() {
            self.send(Frame::Confirm(confirm)).await;
        }
    }

    /// The tightest of the shards': any of them may be the one that the next messages belong to.
    async fn pass_window_on(&mut self) {
        let granted = self.legs.values().filter_map(|leg| leg.window);
        let tightest = granted.fold(WINDOW, |tightest, window| ProduceWindow {
            max_messages: tightest.max_messages.min(window.max_messages).max(1),
            max_bytes: tightest.max_bytes.min(window.max_bytes).max(1),
        });
        if tightest != self.window {
            self.window = tightest;
            self.send(Frame::Window(tightest)).await;
        }
    }

    async fn send(&mut self, frame: Frame) {
        // A closed transport is noticed by `serve`.
        _ = self.out.send(Ok(ProduceResponse { frame: Some(frame) })).await;
    }
}
