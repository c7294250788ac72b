//! One stream of the application, and the streams to the shards behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::produce_response::Frame;
use ackwell_proto::v1::{
    GoAway, ProduceBatch, ProduceConfirm, ProduceOpened, ProduceRequest, ProduceResponse, ProduceResult,
    ProduceWindow, produce_request,
};
use ackwell_proto::{Failure, Reason};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status, Streaming};

use super::leg::{Event, Leg, Line, Part};
use super::pending::{Batch, Pending};
use super::placing::{self, Fitness, Placed};
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
pub(super) const WINDOW: ProduceWindow = ProduceWindow { max_messages: 10_000, max_bytes: 16 << 20 };

/// Something must be on its way to hear of room.
const NARROWEST: ProduceWindow = ProduceWindow { max_messages: 1, max_bytes: 1 };
/// Between two looks at whether a shard takes a batch that waits for one.
const LOOK: Duration = Duration::from_millis(50);

type Outgoing = Result<ProduceResponse, Status>;

/// A batch that is not with its shards yet.
struct Stalled {
    batch: ProduceBatch,
    since: Instant,
    shards: usize,
    /// By its name: the shard of messages that may lie on any.
    home: usize,
    /// The only shard for them; `None`: a new batch, that may go elsewhere.
    bound: Option<usize>,
}

pub(super) struct Session {
    sidecar: Arc<Sidecar>,
    line: Line,
    producer: Producer,
    legs: BTreeMap<usize, Leg>,
    pending: Pending,
    /// A batch for which there is no memory, or no shard, yet.
    stalled: Option<Stalled>,
    placed: Arc<Placed>,
    /// Some message had a home of its own, as others may.
    has_homes: bool,
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
        placed: Arc<Placed>,
        out: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            sidecar,
            line,
            producer,
            legs: BTreeMap::new(),
            pending: Pending::default(),
            stalled: None,
            placed,
            has_homes: false,
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
            let target = self.target();
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                () = stopping.cancelled(), if !is_told => {
                    is_told = true;
                    self.send(Frame::GoAway(GoAway { reason: "the sidecar is stopping".to_owned() })).await;
                }
                Some(event) = events.recv() => self.on_event(event).await?,
                (room, shard) = self.room(target) => self.ask_stalled(room, shard),
                () = sleep(LOOK), if self.stalled.is_some() && target.is_none() => {}
                read = requests.message(), if reads_on => match read {
                    Ok(Some(request)) => self.take(request).await?,
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

    /// Where the messages of the stalled batch go that may lie on any shard; `None`, while it is worth waiting.
    fn target(&mut self) -> Option<usize> {
        let Stalled { home, bound, shards, .. } = *self.stalled.as_ref()?;
        if bound.is_some() {
            return bound;
        }
        let now = Instant::now();
        self.prepare(home);
        if matches!(self.legs[&home].fitness(now), Fitness::Full(_) | Fitness::Away) {
            (0..shards).for_each(|shard| self.prepare(shard));
        }
        let fitness = |shard| self.legs.get(&shard).map_or(Fitness::Opening, |leg| leg.fitness(now));
        placing::choose(home, &(0..shards).map(fitness).collect::<Vec<_>>())
    }

    fn prepare(&mut self, shard: usize) {
        self.legs.entry(shard).or_insert_with(|| Leg::new(shard)).prepare(&self.line);
    }

    /// Memory for the stalled batch, once there is a shard for it too; never, when there is none.
    fn room(&self, target: Option<usize>) -> impl Future<Output = (OwnedSemaphorePermit, usize)> + use<> {
        let room = self.stalled.as_ref().map(|stalled| self.sidecar.room(room_kib(&stalled.batch)));
        async move {
            match room.zip(target) {
                Some((room, shard)) => (room.await, shard),
                None => std::future::pending().await,
            }
        }
    }

    /// When the oldest batch is given up; never, when there is none.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let oldest = self.pending.oldest().or(self.stalled.as_ref().map(|stalled| stalled.since));
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

    /// Reads a batch. Its messages with a key or `dedup_id` belong to a shard each; the others have the home of their batch.
    async fn take(&mut self, request: ProduceRequest) -> Result<(), Status> {
        let batch = self.parse(request)?;
        let shards = self.line.queue.route(Deadline::within(DEFAULT_BUDGET)).await?.shards.len();
        let home = slots::shard_of(&self.producer.request_id(batch.seq), shards);
        let free = batch.messages.iter().filter(|message| send::home(message, shards).is_none()).count();
        self.has_homes |= free < batch.messages.len();
        let bound = if free > 0 { self.placed.bound(batch.seq, home) } else { Some(home) };
        self.stalled = Some(Stalled { batch, since: Instant::now(), shards, home, bound });
        Ok(())
    }

    /// Gives the batch to its shards; messages that may lie on any go to `anywhere`.
    fn ask_stalled(&mut self, room: OwnedSemaphorePermit, anywhere: usize) {
        let Some(Stalled { batch: ProduceBatch { seq, messages }, shards, home, .. }) = self.stalled.take()
        else {
            return;
        };
        let (count, bytes) = (messages.len(), messages.iter().map(|message| message.body.len()).sum());
        self.placed.put(seq, count, anywhere, home);
        let parts = send::by_shard(messages, anywhere, shards);
        let since = Instant::now();
        self.pending.add(Batch {
            seq,
            messages: count,
            bytes,
            since,
            parts: parts.len(),
            results: Vec::new(),
            _room: room,
        });
        for part in parts {
            let leg = self.legs.entry(part.shard).or_insert_with(|| Leg::new(part.shard));
            let batch = ProduceBatch { seq, messages: part.items };
            leg.ask(&self.line, Part { positions: part.positions, batch, since });
        }
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
        if confirm.results.iter().any(is_for_want_of_room) {
            leg.refused();
        }
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

    /// The widest of the shards', since another one takes what one does not. Where some messages have a shard of their own the
    /// tightest: any shard may be the one that the next belong to.
    async fn pass_window_on(&mut self) {
        let pick: fn(_, _) -> _ = if self.has_homes { tightest } else { widest };
        let granted = self.legs.values().filter_map(|leg| leg.window).reduce(pick);
        let window = granted.map_or(WINDOW, |window| tightest(widest(window, NARROWEST), WINDOW));
        if window != self.window {
            self.window = window;
            self.send(Frame::Window(window)).await;
        }
    }

    async fn send(&mut self, frame: Frame) {
        // A closed transport is noticed by `serve`.
        _ = self.out.send(Ok(ProduceResponse { frame: Some(frame) })).await;
    }
}

fn is_for_want_of_room(result: &ProduceResult) -> bool {
    let error = result.result.as_ref().and_then(|result| result.error.as_ref());
    let reason = error.and_then(|error| Reason::parse(&error.reason));
    reason.is_some_and(|reason| reason.code() == Code::ResourceExhausted)
}

fn tightest(one: ProduceWindow, other: ProduceWindow) -> ProduceWindow {
    ProduceWindow {
        max_messages: one.max_messages.min(other.max_messages),
        max_bytes: one.max_bytes.min(other.max_bytes),
    }
}

fn widest(one: ProduceWindow, other: ProduceWindow) -> ProduceWindow {
    ProduceWindow {
        max_messages: one.max_messages.max(other.max_messages),
        max_bytes: one.max_bytes.max(other.max_bytes),
    }
}
