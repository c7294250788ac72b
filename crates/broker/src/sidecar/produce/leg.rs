//! The stream to one shard, opened again and again while there is something to confirm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::produce_response::Frame;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{
    ProduceBatch, ProduceOpen, ProduceRequest, ProduceResponse, ProduceWindow, produce_request,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status, Streaming};

use super::placing::Fitness;
use super::session::MAX_PENDING;
use crate::sidecar::attempt::{self, Attempt, Call};
use crate::sidecar::retry::{Backoff, RETRY_AFTER};
use crate::sidecar::route::Queue;
use crate::sidecar::send::Item;
use crate::tls::Connection;

/// A broker opens a stream and confirms a batch in milliseconds; beyond this a new batch need not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all legs of a session have in common.
pub(super) struct Line {
    pub(super) queue: Arc<Queue>,
    pub(super) producer: String,
    pub(super) want_ids: bool,
    pub(super) tasks: TaskTracker,
    pub(super) events: mpsc::Sender<Event>,
}

/// Something came from a shard.
pub(super) type Event = attempt::Event<Frame>;

/// A shard's part of a batch.
pub(super) struct Part {
    /// Where each message stands in the application's batch.
    pub(super) positions: Vec<usize>,
    pub(super) batch: ProduceBatch,
    /// Since when it is the shard's.
    pub(super) since: Instant,
}

/// The stream to one shard.
pub(super) struct Leg {
    shard: usize,
    pub(super) epoch: u64,
    /// As the shard granted it last.
    pub(super) window: Option<ProduceWindow>,
    unconfirmed: VecDeque<Part>,
    /// Their messages.
    outstanding: usize,
    /// The shard took the stream: it hears of batches from then on.
    is_open: bool,
    /// Since when the stream is asked for.
    asked: Instant,
    /// No stream was opened since one ended: the next is not asked for before this.
    failed: Option<Instant>,
    /// It refused messages for want of room and need not be asked before this.
    full_until: Option<Instant>,
    /// `None`: the broker asked us to leave, or nothing was asked since the stream ended.
    frames: Option<mpsc::Sender<ProduceRequest>>,
    is_over: bool,
    backoff: Backoff,
}

impl Leg {
    pub(super) fn new(shard: usize) -> Self {
        Self {
            shard,
            epoch: 0,
            window: None,
            unconfirmed: VecDeque::new(),
            outstanding: 0,
            is_open: false,
            asked: Instant::now(),
            failed: None,
            full_until: None,
            frames: None,
            is_over: true,
            backoff: Backoff::new(),
        }
    }

    /// Asks the shard to store the part; if the stream is not open, on the next one.
    pub(super) fn ask(&mut self, line: &Line, part: Part) {
        self.outstanding += part.positions.len();
        self.unconfirmed.push_back(part);
        if self.is_over {
            self.connect(line, Duration::ZERO);
        } else if self.is_open {
            self.tell(self.unconfirmed.back().map(|part| part.batch.clone()));
        }
    }

    /// Asks for a stream, if there is none and it is time to.
    pub(super) fn prepare(&mut self, line: &Line) {
        if self.is_over && self.failed.is_none_or(|until| until <= Instant::now()) {
            self.connect(line, Duration::ZERO);
        }
    }

    /// The broker accepted the stream. It is told of batches only now: one that has not answered has stored nothing.
    pub(super) fn opened(&mut self, window: Option<ProduceWindow>) {
        self.window = window;
        self.backoff = Backoff::new();
        (self.is_open, self.failed) = (true, None);
        self.tell(self.unconfirmed.iter().map(|part| part.batch.clone()));
    }

    /// The shard refused a message for want of room.
    pub(super) fn refused(&mut self) {
        self.full_until = Some(Instant::now() + RETRY_AFTER);
    }

    /// Whether it is the one for a new batch.
    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        let is_slow =
            self.unconfirmed.front().is_some_and(|part| now - part.since.max(self.asked) > PATIENCE);
        let is_full = self.full_until.is_some_and(|until| now < until)
            || self.window.is_some_and(|window| self.outstanding >= window.max_messages as usize);
        if !self.is_open {
            let is_away = self.failed.is_some() || now - self.asked > PATIENCE;
            return if is_away { Fitness::Away } else { Fitness::Opening };
        }
        if is_slow {
            Fitness::Away
        } else if is_full {
            Fitness::Full(self.outstanding)
        } else {
            Fitness::Fit(self.outstanding)
        }
    }

    /// Says no more on this stream; the broker confirms what it has, and ends it.
    pub(super) fn hang_up(&mut self) {
        (self.frames, self.is_open) = (None, false);
    }

    /// The stream is over. What it did not confirm is asked on a next one, after a pause.
    pub(super) fn ended(&mut self, line: &Line) {
        self.is_over = true;
        self.hang_up();
        let delay = self.backoff.step();
        self.failed = Some(Instant::now() + delay);
        if !self.unconfirmed.is_empty() {
            self.connect(line, delay);
        }
    }

    /// A message of a part that is not confirmed, and its place in the application's batch.
    pub(super) fn item(&self, seq: u64, index: u32) -> Option<Item> {
        let part = self.unconfirmed.binary_search_by_key(&seq, |part| part.batch.seq).ok()?;
        let Part { positions, batch, .. } = &self.unconfirmed[part];
        Some((*positions.get(index as usize)?, batch.messages.get(index as usize)?.clone()))
    }

    /// The shard confirmed a batch and all before; which ones had a part here.
    pub(super) fn confirmed(&mut self, through_seq: u64) -> impl Iterator<Item = u64> {
        let count = self.unconfirmed.partition_point(|part| part.batch.seq <= through_seq);
        let outstanding = &mut self.outstanding;
        self.unconfirmed.drain(..count).map(|part| {
            *outstanding -= part.positions.len();
            part.batch.seq
        })
    }

    fn connect(&mut self, line: &Line, delay: Duration) {
        let (frames, requests) = mpsc::channel(MAX_PENDING + 1);
        self.frames = Some(frames);
        self.epoch += 1;
        (self.is_over, self.is_open) = (false, false);
        self.asked = Instant::now() + delay;
        self.window = None;
        let (queue, producer) = (line.queue.full_name().to_owned(), line.producer.clone());
        let open = ProduceOpen { queue, producer, want_ids: line.want_ids };
        self.tell_frame(produce_request::Frame::Open(open));
        let attempt = Attempt::<Produce> {
            queue: Arc::clone(&line.queue),
            shard: self.shard,
            epoch: self.epoch,
            events: line.events.clone(),
        };
        line.tasks.spawn(attempt.run(requests, delay));
    }

    fn tell(&self, batches: impl IntoIterator<Item = ProduceBatch>) {
        batches.into_iter().for_each(|batch| self.tell_frame(produce_request::Frame::Batch(batch)));
    }

    /// There is room for `open` and all that can be unconfirmed; what a stream that ended does not take is told to the next.
    fn tell_frame(&self, frame: produce_request::Frame) {
        if let Some(frames) = &self.frames {
            _ = frames.try_send(ProduceRequest { frame: Some(frame) });
        }
    }
}

/// What a leg is a stream of.
struct Produce;

impl Call for Produce {
    type Request = ProduceRequest;
    type Response = ProduceResponse;
    type Frame = Frame;

    async fn begin(
        mut queues: QueuesClient<Connection>,
        requests: ReceiverStream<ProduceRequest>,
    ) -> Result<Response<Streaming<ProduceResponse>>, Status> {
        queues.produce(requests).await
    }

    fn frame(response: ProduceResponse) -> Option<Frame> {
        response.frame
    }
}
