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
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status, Streaming};

use super::session::MAX_PENDING;
use crate::sidecar::attempt::{self, Attempt, Call};
use crate::sidecar::retry::Backoff;
use crate::sidecar::route::Queue;
use crate::tls::Connection;

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
}

/// The stream to one shard.
pub(super) struct Leg {
    shard: usize,
    pub(super) epoch: u64,
    /// As the shard granted it last.
    pub(super) window: Option<ProduceWindow>,
    unconfirmed: VecDeque<Part>,
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
            frames: None,
            is_over: true,
            backoff: Backoff::new(),
        }
    }

    /// Asks the shard to store the part; if the stream is over, on the next one.
    pub(super) fn ask(&mut self, line: &Line, part: Part) {
        self.unconfirmed.push_back(part);
        if self.is_over {
            self.connect(line, Duration::ZERO);
        } else {
            self.tell(self.unconfirmed.back().map(|part| part.batch.clone()));
        }
    }

    /// The broker accepted the stream.
    pub(super) fn opened(&mut self, window: Option<ProduceWindow>) {
        self.window = window;
        self.backoff = Backoff::new();
    }

    /// Says no more on this stream; the broker confirms what it has, and ends it.
    pub(super) fn hang_up(&mut self) {
        self.frames = None;
    }

    /// The stream is over. What it did not confirm is asked on a next one, after a pause.
    pub(super) fn ended(&mut self, line: &Line) {
        self.is_over = true;
        self.hang_up();
        if !self.unconfirmed.is_empty() {
            let delay = self.backoff.step();
            self.connect(line, delay);
        }
    }

    /// The place in the application's batch of a message of a part that is not confirmed.
    pub(super) fn position(&self, seq: u64, index: u32) -> Option<usize> {
        let part = self.unconfirmed.binary_search_by_key(&seq, |part| part.batch.seq).ok()?;
        self.unconfirmed[part].positions.get(index as usize).copied()
    }

    /// The shard confirmed a batch and all before; which ones had a part here.
    pub(super) fn confirmed(&mut self, through_seq: u64) -> impl Iterator<Item = u64> {
        let count = self.unconfirmed.partition_point(|part| part.batch.seq <= through_seq);
        self.unconfirmed.drain(..count).map(|part| part.batch.seq)
    }

    fn connect(&mut self, line: &Line, delay: Duration) {
        let (frames, requests) = mpsc::channel(MAX_PENDING + 1);
        self.frames = Some(frames);
        self.epoch += 1;
        self.is_over = false;
        self.window = None;
        let (queue, producer) = (line.queue.full_name().to_owned(), line.producer.clone());
        let open = ProduceOpen { queue, producer, want_ids: line.want_ids };
        self.tell_frame(produce_request::Frame::Open(open));
        self.tell(self.unconfirmed.iter().map(|part| part.batch.clone()));
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
