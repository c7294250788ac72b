//! The stream to one shard, opened again and again while the application's stream lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{ConsumeRequest, ConsumeResponse, Drain, Open, consume_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status, Streaming};

use super::answers::FrameId;
use super::window::Limits;
use crate::sidecar::attempt::{self, Attempt, Call};
use crate::sidecar::retry::Backoff;
use crate::sidecar::route::Queue;
use crate::tls::Connection;

/// Frames to a broker: twice what may be unanswered (see `MAX_UNANSWERED` of the session), and windows.
const MAX_UPSTREAM_FRAMES: usize = 256;
/// While draining nothing is wanted, but zero would mean the default.
const NO_WINDOW: Limits = Limits { messages: 1, bytes: 1 };

/// What all legs of a session have in common.
pub(crate) struct Line {
    pub(crate) queue: Arc<Queue>,
    pub(crate) consumer: String,
    pub(crate) tasks: TaskTracker,
    pub(crate) events: mpsc::Sender<Event>,
}

/// Something came from a shard.
pub(crate) type Event = attempt::Event<Frame>;

/// A part of an application's frame that the shard has not answered.
pub(crate) struct Unanswered {
    pub(crate) positions: Vec<usize>,
    /// Its `seq` is the [`FrameId`]. Safe to send again.
    pub(crate) frame: consume_request::Frame,
    /// The shard could not do it now.
    pub(crate) is_refused: bool,
}

/// The stream to one shard.
pub(crate) struct Leg {
    pub(crate) shard: usize,
    pub(crate) epoch: u64,
    pub(crate) granted: Limits,
    pub(crate) is_open: bool,
    /// The broker asked us to leave.
    pub(crate) is_going_away: bool,
    pub(crate) unanswered: BTreeMap<FrameId, Unanswered>,
    is_draining: bool,
    frames: Option<mpsc::Sender<ConsumeRequest>>,
    backoff: Backoff,
}

impl Leg {
    /// Opens the stream to a shard.
    pub(crate) fn open(line: &Line, shard: usize, granted: Limits, held: Vec<Vec<u8>>) -> Self {
        let mut leg = Self {
            shard,
            epoch: 0,
            granted,
            is_open: false,
            is_going_away: false,
            unanswered: BTreeMap::new(),
            is_draining: false,
            frames: None,
            backoff: Backoff::new(),
        };
        leg.connect(line, held, Duration::ZERO);
        leg
    }

    /// Opens it again after it broke, with what the application still holds, and repeats what was not answered.
    pub(crate) fn reopen(&mut self, line: &Line, held: Vec<Vec<u8>>) {
        let delay = self.backoff.step();
        self.connect(line, held, delay);
    }

    /// The broker accepted the stream.
    pub(crate) fn opened(&mut self) {
        self.is_open = true;
        self.backoff = Backoff::new();
    }

    /// Asks for an answer; if the stream is broken, with the next one.
    pub(crate) fn ask(&mut self, id: FrameId, positions: Vec<usize>, frame: consume_request::Frame) {
        self.tell(frame.clone());
        self.unanswered.insert(id, Unanswered { positions, frame, is_refused: false });
    }

    /// Asks again for what the shard could not do before.
    pub(crate) fn ask_refused_again(&mut self) {
        let refused = self.unanswered.values_mut().filter(|part| part.is_refused);
        let frames: Vec<_> = refused
            .map(|part| {
                part.is_refused = false;
                part.frame.clone()
            })
            .collect();
        frames.into_iter().for_each(|frame| self.tell(frame));
    }

    /// Changes what the shard may deliver.
    pub(crate) fn grant(&mut self, limits: Limits) {
        if self.granted != limits && !self.is_draining {
            self.granted = limits;
            self.tell(consume_request::Frame::Window(limits.wire()));
        }
    }

    /// No more deliveries, on this stream and the next ones.
    pub(crate) fn drain(&mut self) {
        if !self.is_draining {
            self.is_draining = true;
            self.tell(consume_request::Frame::Drain(Drain {}));
        }
    }

    /// Closes our half: nothing is held and nothing will be asked.
    pub(crate) fn hang_up(&mut self) {
        self.frames = None;
    }

    /// A full channel belongs to a broker that no longer reads; its stream will end, and all of this is said again.
    fn tell(&self, frame: consume_request::Frame) {
        if let Some(frames) = &self.frames {
            _ = frames.try_send(ConsumeRequest { frame: Some(frame) });
        }
    }

    fn connect(&mut self, line: &Line, held: Vec<Vec<u8>>, delay: Duration) {
        let (frames, requests) = mpsc::channel(MAX_UPSTREAM_FRAMES);
        self.frames = Some(frames);
        self.epoch += 1;
        self.is_open = false;
        self.is_going_away = false;
        let window = if self.is_draining { NO_WINDOW } else { self.granted };
        let (queue, consumer) = (line.queue.full_name().to_owned(), line.consumer.clone());
        self.tell(consume_request::Frame::Open(Open { queue, consumer, window: Some(window.wire()), held }));
        if self.is_draining {
            self.tell(consume_request::Frame::Drain(Drain {}));
        }
        for part in self.unanswered.values_mut() {
            part.is_refused = false;
        }
        self.unanswered.values().for_each(|part| self.tell(part.frame.clone()));
        let attempt = Attempt::<Consume> {
            queue: Arc::clone(&line.queue),
            shard: self.shard,
            epoch: self.epoch,
            events: line.events.clone(),
        };
        line.tasks.spawn(attempt.run(requests, delay));
    }
}

/// What a leg is a stream of.
struct Consume;

impl Call for Consume {
    type Request = ConsumeRequest;
    type Response = ConsumeResponse;
    type Frame = Frame;

    async fn begin(
        mut queues: QueuesClient<Connection>,
        requests: ReceiverStream<ConsumeRequest>,
    ) -> Result<Response<Streaming<ConsumeResponse>>, Status> {
        queues.consume(requests).await
    }

    fn frame(response: ConsumeResponse) -> Option<Frame> {
        response.frame
    }
}
