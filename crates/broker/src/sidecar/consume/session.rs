//! One stream of the application, and the streams to the shards behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::{
    ConsumeRequest, ConsumeResponse, Deliveries, Delivery, ExtendFrame, ItemError, Open, Opened, Revoked,
    SettleFrame, consume_request,
};
use ackwell_proto::{Failure, Reason};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tonic::{Status, Streaming};

use super::answers::{Answers, FrameId, Results};
use super::ledger::Ledger;
use super::leg::{Event, Leg, Line};
use super::orphans::{Orphans, StreamId};
use super::window::{Demand, Limits};
use crate::sidecar::attempt::What;
use crate::sidecar::merge::{self, Part, Split};
use crate::sidecar::receipt::Receipt;
use crate::sidecar::receive::{RELEASE_BUDGET, release, seal};
use crate::sidecar::retry::{DEFAULT_BUDGET, Deadline, is_transient};
use crate::sidecar::service::Sidecar;
use crate::sidecar::settle::{is_over, split_receipts, split_settlements};
use crate::sidecar::settled::Listener;
use crate::stream_end::{self, StreamEnd};
use crate::traces;

/// Frames of the application that wait for brokers; the next is read when one is answered.
const MAX_UNANSWERED: usize = 64;
/// Frames for the application that wait for its transport; brokers are not read while there are more.
const MAX_OUTBOX: usize = 16;
/// As in the API.
const MAX_HELD: usize = 10_000;
/// Shares follow demand, refused settlements are repeated, and growth of the queue is seen, this often.
const TICK: Duration = Duration::from_millis(250);
/// Deliveries that find no room for so long go back: another consumer may have some. Long enough for most handlers, and to
/// be no burden where nobody has.
const MAX_WAITING: Duration = Duration::from_secs(5);

pub(super) type Outgoing = Result<ConsumeResponse, Status>;

/// How the application's stream ended.
pub(super) enum End {
    Caller(StreamEnd),
    /// We end it, and say why.
    Refused(Status),
    /// The process stops.
    Stopping,
}

/// The application's side of a stream.
pub(super) struct Application {
    pub(super) requests: Streaming<ConsumeRequest>,
    pub(super) out: mpsc::Sender<Outgoing>,
    /// How many frames the transport took.
    pub(super) taken: Arc<AtomicU64>,
}

pub(super) struct Session {
    pub(super) line: Line,
    pub(super) ledger: Ledger,
    pub(super) answers: Answers,
    pub(super) legs: Vec<Leg>,
    pub(super) outbox: VecDeque<Outgoing>,
    /// Frames ever put into `outbox`.
    queued: u64,
    pub(super) is_draining: bool,
    settled: Arc<Listener>,
    pub(super) stream: StreamId,
    /// Since when no shard is reachable, and the last reason.
    down: Option<(Instant, Status)>,
}

impl Session {
    /// Opens the streams to all `shards`.
    pub(super) fn open(line: Line, open: Open, shards: usize, orphans: &Orphans) -> Result<Self, Failure> {
        if open.held.len() > MAX_HELD {
            return Err(Failure::invalid(format!("held has over {MAX_HELD} receipts")));
        }
        let window = Limits::parse(open.window.as_ref())?;
        let settled = line.queue.settled.listen();
        let mut session = Self {
            line,
            settled,
            stream: orphans.enter(),
            ledger: Ledger::new(window),
            answers: Answers::default(),
            legs: Vec::new(),
            outbox: VecDeque::new(),
            queued: 0,
            is_draining: false,
            down: None,
        };
        session.push(Frame::Opened(Opened { window: Some(window.wire()) }));
        session.resume(open.held, shards, orphans);
        session.open_legs(shards);
        Ok(session)
    }

    /// Until the stream ends.
    pub(super) async fn serve(
        &mut self,
        app: &mut Application,
        events: &mut mpsc::Receiver<Event>,
        sidecar: &Sidecar,
    ) -> End {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Application { requests, out, .. } = app;
        let settled = Arc::clone(&self.settled);
        loop {
            self.pump();
            let done = tokio::select! {
                permit = out.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        permit.send(self.outbox.pop_front().expect("the branch needs a frame"));
                        Ok(())
                    }
                    Err(_) => Err(self.dropped(requests).await),
                },
                () = out.closed() => Err(self.dropped(requests).await),
                read = requests.message(), if self.answers.len() < MAX_UNANSWERED => self.read(read),
                receipts = settled.heard() => { self.settled_beside(&receipts); Ok(()) }
                Some(event) = events.recv(), if self.outbox.len() < MAX_OUTBOX => self.on_event(event),
                () = self.next_expiry() => { self.expire(); Ok(()) }
                _ = ticks.tick() => self.tick().await,
                () = sidecar.draining.cancelled(), if !self.is_draining => { self.drain(); Ok(()) }
                () = sidecar.stopping.cancelled() => Err(End::Stopping),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Moves what is ready into the outbox.
    pub(super) fn pump(&mut self) {
        while let Some(frame) = self.answers.pop() {
            self.push(frame);
        }
        while self.outbox.len() < MAX_OUTBOX {
            let deliveries = self.ledger.admit(self.queued + 1);
            if deliveries.is_empty() {
                return;
            }
            traces::receive_frame(|| self.line.queue.full_name().to_owned(), &deliveries);
            self.push(Frame::Deliveries(Deliveries { deliveries }));
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.queued += 1;
        self.outbox.push_back(Ok(ConsumeResponse { frame: Some(frame) }));
    }

    /// When the oldest unanswered frame is given up; never, when there is none.
    pub(super) fn next_expiry(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.answers.next_deadline();
        async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Answers frames whose shard stayed away for too long.
    pub(super) fn expire(&mut self) {
        let last = self.down.as_ref().map(|(_, status)| status.message().to_owned());
        let deadline = Deadline::within(DEFAULT_BUDGET);
        let error = self.line.queue.unavailable(deadline, "its shard", last.as_deref()).into();
        for id in self.answers.expire(Instant::now(), &error) {
            self.legs.iter_mut().for_each(|leg| _ = leg.unanswered.remove(&id));
        }
    }

    /// Gives back, beside this stream.
    pub(super) fn release(&self, receipts: Vec<Bytes>) {
        if !receipts.is_empty() {
            let queue = Arc::clone(&self.line.queue);
            let task = async move { release(&queue, receipts, Deadline::within(RELEASE_BUDGET)).await };
            self.line.tasks.spawn(task);
        }
    }

    /// A frame from a shard that does not end its stream.
    pub(super) fn on_frame(&mut self, shard: usize, frame: Frame) {
        match frame {
            Frame::Opened(_) => {
                self.legs[shard].opened();
                self.down = None;
            }
            Frame::Deliveries(Deliveries { deliveries }) => self.on_deliveries(shard, deliveries),
            Frame::Settled(frame) => self.on_answer(shard, frame.seq, Results::Settle(frame.results)),
            Frame::Extended(frame) => self.on_answer(shard, frame.seq, Results::Extend(frame.results)),
            Frame::Revoked(Revoked { receipts, reason }) => self.on_revoked(shard, &receipts, reason),
            Frame::GoAway(_) => self.legs[shard].is_going_away = true,
        }
        self.hang_up_where_done(shard);
    }

    /// Whether the event is from the current stream of its shard.
    pub(super) fn is_current(&self, event: &Event) -> bool {
        self.legs.get(event.shard).is_some_and(|leg| leg.epoch == event.epoch)
    }

    fn resume(&mut self, held: Vec<Vec<u8>>, shards: usize, orphans: &Orphans) {
        let mut invalid = Vec::new();
        for receipt in held {
            let receipt = Bytes::from(receipt);
            if Receipt::open(&receipt, shards).is_ok() {
                orphans.claim_for(self.stream, &receipt);
                self.ledger.resume(receipt);
            } else {
                invalid.push(receipt.to_vec());
            }
        }
        if !invalid.is_empty() {
            let reason = Reason::InvalidReceipt.as_str().to_owned();
            self.push(Frame::Revoked(Revoked { receipts: invalid, reason }));
        }
    }

    fn open_legs(&mut self, shards: usize) {
        let first = self.legs.len();
        let demand = Demand { granted: u32::MAX, in_hand: 0 };
        let granted = self.ledger.window.split(&vec![demand; shards]);
        for (shard, share) in granted.into_iter().enumerate().skip(first) {
            let held = self.ledger.of_shard(shard);
            let mut leg = Leg::open(&self.line, shard, share, held);
            if self.is_draining {
                leg.drain();
            }
            self.legs.push(leg);
        }
    }

    fn read(&mut self, read: Result<Option<ConsumeRequest>, Status>) -> Result<(), End> {
        match StreamEnd::of(read) {
            Ok(end) => Err(End::Caller(end)),
            Err(request) => self.take(request).map_err(|failure| End::Refused(failure.into())),
        }
    }

    /// The response stream is gone: what came before that still counts.
    async fn dropped(&mut self, requests: &mut Streaming<ConsumeRequest>) -> End {
        let mut late = Vec::new();
        let end = stream_end::after_drop(requests, |request| late.push(request)).await;
        for request in late {
            _ = self.take(request);
        }
        End::Caller(end)
    }

    fn take(&mut self, request: ConsumeRequest) -> Result<(), Failure> {
        match request.frame {
            Some(consume_request::Frame::Open(_)) => {
                Err(Failure::invalid("`open` may only be the first frame of Consume"))
            }
            Some(consume_request::Frame::Window(window)) => {
                self.ledger.window = Limits::parse(Some(&window))?;
                self.share();
                Ok(())
            }
            Some(consume_request::Frame::Settle(frame)) => {
                self.settle(frame);
                Ok(())
            }
            Some(consume_request::Frame::Extend(frame)) => {
                self.extend(frame);
                Ok(())
            }
            Some(consume_request::Frame::Drain(_)) => {
                self.drain();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// No more deliveries: those that the application has not got go back.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        self.legs.iter_mut().for_each(Leg::drain);
        let waiting = self.ledger.take_waiting();
        self.release(waiting);
    }

    fn settle(&mut self, frame: SettleFrame) {
        let count = frame.settlements.len();
        let Some(id) = self.begin(frame.seq, Results::settle(count), "settlements") else { return };
        self.answers
            .trace(id, traces::settle_frame(|| self.line.queue.full_name().to_owned(), &frame.settlements));
        let Split { parts, refused } = split_settlements(frame.settlements, self.legs.len());
        self.refuse(id, refused);
        for Part { shard, positions, items } in parts {
            let part = SettleFrame { seq: id, settlements: items };
            self.legs[shard].ask(id, positions, consume_request::Frame::Settle(part));
        }
    }

    fn extend(&mut self, frame: ExtendFrame) {
        let count = frame.receipts.len();
        let Some(id) = self.begin(frame.seq, Results::extend(count), "receipts") else { return };
        let Split { parts, refused } = split_receipts(frame.receipts, self.legs.len());
        self.refuse(id, refused);
        for Part { shard, positions, items } in parts {
            let part = ExtendFrame { seq: id, receipts: items, ack_timeout: frame.ack_timeout };
            self.legs[shard].ask(id, positions, consume_request::Frame::Extend(part));
        }
    }

    /// Opens an answer; `None` when the frame is refused as a whole, which is answered item by item.
    fn begin(&mut self, seq: u64, results: Results, what: &str) -> Option<FrameId> {
        let count = results.len();
        let id = self.answers.begin(seq, results, Instant::now() + DEFAULT_BUDGET);
        match merge::check_batch(count, what) {
            Ok(()) => Some(id),
            Err(failure) => {
                self.answers.refuse(id, &(0..count).collect::<Vec<_>>(), &failure.into());
                None
            }
        }
    }

    fn refuse(&mut self, id: FrameId, refused: Vec<(usize, Failure)>) {
        for (position, failure) in refused {
            self.answers.refuse(id, &[position], &failure.into());
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), End> {
        if !self.is_current(&event) {
            return Ok(());
        }
        match event.what {
            What::Frame(frame) => self.on_frame(event.shard, frame),
            What::Ended(reason) => self.on_ended(event.shard, reason)?,
        }
        Ok(())
    }

    fn on_deliveries(&mut self, shard: usize, mut deliveries: Vec<Delivery>) {
        seal(&mut deliveries, shard);
        if self.is_draining {
            self.release(deliveries.into_iter().map(|delivery| delivery.receipt).collect());
        } else {
            self.ledger.wait(Instant::now(), deliveries);
        }
    }

    /// A shard answered its part of a frame. One that it cannot do now is asked for again.
    fn on_answer(&mut self, shard: usize, id: FrameId, results: Results) {
        let leg = &mut self.legs[shard];
        let Some(part) = leg.unanswered.get_mut(&id) else { return };
        if results.errors().any(is_temporary) {
            part.is_refused = true;
            return;
        }
        let Some(part) = leg.unanswered.remove(&id) else { return };
        if results.len() != part.positions.len() {
            let failure =
                Failure::new(Reason::BrokerUnavailable, "the broker answered another number of items");
            return self.answers.refuse(id, &part.positions, &failure.into());
        }
        if let (consume_request::Frame::Settle(frame), Results::Settle(results)) = (&part.frame, &results) {
            let over = frame.settlements.iter().zip(results).filter(|(_, result)| is_over(result));
            over.for_each(|(settlement, _)| _ = self.forget(shard, &settlement.receipt));
        }
        self.answers.fill(id, &part.positions, results);
    }

    fn on_revoked(&mut self, shard: usize, receipts: &[Vec<u8>], reason: String) {
        let known: Vec<_> = receipts.iter().filter_map(|receipt| self.forget(shard, receipt)).collect();
        traces::lost(|| self.line.queue.full_name().to_owned(), &known);
        if !known.is_empty() {
            let receipts = known.into_iter().map(Into::into).collect();
            self.push(Frame::Revoked(Revoked { receipts, reason }));
        }
    }

    /// The application settled these by calls of their own.
    fn settled_beside(&mut self, receipts: &[Bytes]) {
        receipts.iter().for_each(|receipt| _ = self.ledger.remove(receipt));
        (0..self.legs.len()).for_each(|shard| self.hang_up_where_done(shard));
    }

    /// Removes a receipt of the broker; its sealed form when the application knew it.
    fn forget(&mut self, shard: usize, receipt: &[u8]) -> Option<Bytes> {
        let sealed = Receipt::seal(u16::try_from(shard).unwrap_or(u16::MAX), receipt);
        self.ledger.remove(&sealed).then_some(sealed)
    }

    fn on_ended(&mut self, shard: usize, reason: Option<Status>) -> Result<(), End> {
        let reason = reason.unwrap_or_else(|| Status::unavailable("the broker closed the stream"));
        let is_new = self.legs[shard].epoch == 1 && !self.legs[shard].is_open;
        if !is_transient(&reason) && (is_new || reason.code() != tonic::Code::ResourceExhausted) {
            return Err(End::Refused(Status::with_details(
                reason.code(),
                reason.message(),
                Bytes::copy_from_slice(reason.details()),
            )));
        }
        tracing::debug!(queue = self.line.queue.full_name(), shard, %reason, "stream to a shard ended");
        let held = self.ledger.of_shard(shard);
        self.legs[shard].reopen(&self.line, held);
        if !self.legs.iter().any(|leg| leg.is_open) && self.down.is_none() {
            self.down = Some((Instant::now(), reason));
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), End> {
        if let Some((since, status)) = &self.down
            && since.elapsed() >= DEFAULT_BUDGET
        {
            let deadline = Deadline::within(DEFAULT_BUDGET);
            let failure = self.line.queue.unavailable(deadline, "its shards", Some(status.message()));
            return Err(End::Refused(failure.into()));
        }
        self.give_back_waiting();
        self.legs.iter_mut().for_each(Leg::ask_refused_again);
        // Known since the stream began, so this does not wait.
        let route = self.line.queue.route(Deadline::within(TICK)).await.map_err(End::Refused)?;
        if route.shards.len() > self.legs.len() {
            self.open_legs(route.shards.len());
        }
        self.share();
        Ok(())
    }

    fn give_back_waiting(&mut self) {
        if let Some(then) = Instant::now().checked_sub(MAX_WAITING) {
            let waiting = self.ledger.take_waiting_since(then);
            self.release(waiting);
        }
    }

    fn share(&mut self) {
        let shards = self.legs.len();
        let in_hand = if shards == 1 { vec![0] } else { self.ledger.in_hand(shards) };
        let demand = |(leg, in_hand): (&Leg, u32)| Demand { granted: leg.granted.messages, in_hand };
        let demands: Vec<_> = self.legs.iter().zip(in_hand).map(demand).collect();
        let granted = self.ledger.window.split(&demands);
        self.legs.iter_mut().zip(granted).for_each(|(leg, share)| leg.grant(share));
    }

    /// A stopping broker waits for its streams; ours ends as soon as nothing on it is unsettled.
    fn hang_up_where_done(&mut self, shard: usize) {
        let leg = &self.legs[shard];
        if leg.is_going_away && leg.unanswered.is_empty() && self.ledger.of_shard(shard).is_empty() {
            self.legs[shard].hang_up();
        }
    }
}

impl Application {
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// An error that a broker gives while it stops, or while its store is reopened.
fn is_temporary(error: &ItemError) -> bool {
    Reason::parse(&error.reason).is_some_and(|reason| reason.code() == tonic::Code::Unavailable)
}
