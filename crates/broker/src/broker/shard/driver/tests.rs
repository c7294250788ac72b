//! The driver without its thread: jobs in, events and answers out.

use ackwell_engine::command::{
    Batch, Commit, Configure, Delivery, Handover, NewMessage, Oversized, Receive, Send,
};
use ackwell_engine::message::Payload;
use ackwell_engine::{Refusal, Reply, Settings, command};
use ackwell_proto::Failure;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::commits::{MAX_BATCH_BYTES, fitting};
use super::*;
use crate::broker::MAX_ROWS;
use crate::broker::shard::{Answered, Chain, Unread, Window};

/// A failed test must not hang the run.
const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    driver: Driver,
    jobs: mpsc::Sender<Job>,
    mailbox: mpsc::Receiver<Job>,
    queue: QueueId,
    _folder: TempDir,
}

/// A consumer's stream, as its session sees it.
struct Stream {
    id: SubscriptionId,
    told: mpsc::Receiver<Event>,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, mailbox) = mpsc::channel(4);
        let place = Place { folder: folder.path().to_owned(), max_rows: MAX_ROWS, keys: None };
        let engine = place.open().unwrap();
        let ready = watch::channel(true).0;
        let told = Told { ready, levels: Levels::default(), measures: Measures::default() };
        let driver = Driver::new(place, engine, jobs.downgrade(), told);
        let mut rig = Self { driver, jobs, mailbox, queue: QueueId(0), _folder: folder };
        rig.queue = rig.configure("shop/orders");
        rig
    }

    fn configure(&mut self, name: &str) -> QueueId {
        let configure = Configure { name: name.to_owned(), generation: 1, settings: Settings::default() };
        match self.apply(Command::Configure(configure)) {
            Reply::Configured(queue, _) => queue,
            other => panic!("{other:?}"),
        }
    }

    fn work(&mut self, jobs: impl IntoIterator<Item = Job>) -> bool {
        let goes_on = self.driver.work(&mut jobs.into_iter().collect());
        while self.driver.is_busy() {
            self.driver.step();
        }
        goes_on
    }

    fn apply(&mut self, command: Command) -> Reply {
        let (answer, mut answered) = Answer::new(None, None);
        self.work([Job::Apply(command, answer)]);
        answered.now().unwrap().unwrap()
    }

    fn send(&mut self, bodies: &[usize]) {
        self.apply(self.send_of(bodies));
    }

    fn send_of(&self, bodies: &[usize]) -> Command {
        let message = |bytes: &usize| NewMessage {
            payload: Payload { body: vec![0; *bytes].into(), ..Payload::default() },
            ..NewMessage::default()
        };
        let messages = bodies.iter().map(message).collect();
        let request_id = String::new();
        Command::Send(Send { queue: self.queue, messages, batch: Batch::Each, request_id })
    }

    fn settle(
        &mut self,
        queue: QueueId,
        receipt: &Bytes,
        outcome: Outcome,
    ) -> Result<command::Settled, Refusal> {
        let settlements = vec![(receipt.clone(), outcome)];
        match self.apply(Command::Settle(Settle { queue, settlements })) {
            Reply::Settled(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn consume(&mut self, id: u64, window: Window, held: Vec<Bytes>) -> Stream {
        let (job, stream) = self.stream(id, window, held);
        self.work([job]);
        stream
    }

    fn stream(&self, id: u64, window: Window, held: Vec<Bytes>) -> (Job, Stream) {
        let (events, told) = mpsc::channel(16);
        let id = SubscriptionId(id);
        let subscription = Subscription {
            id,
            queue: self.queue,
            consumer: String::new(),
            window,
            events,
            unread: Unread::default(),
        };
        (Job::Open(subscription, held), Stream { id, told })
    }

    fn poll(&self, request_id: &str) -> (Job, oneshot::Receiver<Result<Handed, Failure>>) {
        let (reply, answer) = oneshot::channel();
        let receive = Receive {
            queue: self.queue,
            max_messages: 1,
            max_bytes: 100,
            oversized: Oversized::Comes,
            ack_timeout_ms: None,
            consumer: String::new(),
            request_id: request_id.to_owned(),
            handover: Handover::AtOnce,
        };
        (Job::Poll(Poll { receive, give_up_at: clock::now().plus_ms(60_000), reply }), answer)
    }

    /// Lets the store fail, so that the driver reopens it next.
    fn break_store(&mut self) {
        self.driver.engine = None;
    }

    fn reopen(&mut self) {
        self.driver.ensure_open();
        self.work([]);
    }

    fn counts(&self) -> ackwell_engine::Counts {
        self.driver.engine.as_ref().unwrap().stats(self.queue).counts
    }
}

impl Answered {
    /// What is there by now.
    fn now(&mut self) -> Result<Result<Reply, Failure>, oneshot::error::TryRecvError> {
        self.0.try_recv()
    }
}

impl Stream {
    fn bodies(&mut self) -> Vec<usize> {
        self.deliveries().iter().map(|delivery| delivery.message.payload.body.len()).collect()
    }

    fn receipts(&mut self) -> Vec<Bytes> {
        self.deliveries().into_iter().map(|delivery| delivery.receipt).collect()
    }

    fn deliveries(&mut self) -> Vec<Delivery> {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .flat_map(|event| match event {
                Event::Deliveries(deliveries) => deliveries,
                Event::Revoked(_) | Event::GoAway => Vec::new(),
            })
            .collect()
    }

    fn close(self, end: StreamEnd) -> Job {
        Job::Close(Closed { id: self.id, untaken: Vec::new(), unread: self.told, end })
    }
}

fn window(max_messages: u32) -> Window {
    Window { max_messages, max_bytes: 100 }
}

/// A clean close costs nothing, even while the store is away.
#[test]
fn close_during_a_storage_failure_releases_after_it() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let mut stream = rig.consume(1, window(9), vec![]);
    assert_eq!(stream.bodies(), [1]);
    rig.break_store();
    rig.work([stream.close(StreamEnd::Deliberate)]);
    rig.reopen();
    assert_eq!((rig.counts().ready, rig.counts().in_flight), (1, 0));
}

/// A Commit that acks makes room in its holder's window; one that was refused for another item leaves what is held.
#[test]
fn commit_makes_room_only_when_it_is_done() {
    let mut rig = Rig::new();
    rig.send(&[1, 2]);
    let mut stream = rig.consume(1, window(1), vec![]);
    let receipt = stream.receipts().remove(0);
    let settle = |receipts: &[&Bytes]| Settle {
        queue: rig.queue,
        settlements: receipts.iter().map(|receipt| ((*receipt).clone(), Outcome::Ack)).collect(),
    };
    let commit =
        |settle| Command::Commit(Commit { settle: vec![settle], send: vec![], request_id: String::new() });
    let (refused, done) = (settle(&[&receipt, &Bytes::from_static(b"forged")]), settle(&[&receipt]));
    rig.apply(commit(refused));
    assert_eq!(stream.bodies(), [0; 0]);
    rig.apply(commit(done));
    assert_eq!(stream.bodies(), [2]);
}

/// A full disk refuses what stores, and lets everything else make room.
#[test]
fn full_disk_refuses_commits_that_send() {
    let queue = QueueId(1);
    let settle = Settle { queue, settlements: Vec::new() };
    let outgoing = command::Outgoing { queue, messages: Vec::new() };
    let commit =
        |send| Command::Commit(Commit { settle: vec![settle.clone()], send, request_id: String::new() });
    assert!(stores(&commit(vec![outgoing])));
    assert!(!stores(&commit(Vec::new())) && !stores(&Command::Settle(settle.clone())));
}

/// While a stream lives its deliveries are extended; a failed commit must not end that.
#[test]
fn extension_that_failed_is_done_again() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let mut stream = rig.consume(1, window(9), vec![]);
    let receipt = stream.receipts().remove(0);
    rig.break_store();
    let (open, resumed) = rig.stream(2, window(9), vec![receipt]);
    rig.work([open]);
    rig.reopen();
    let consumer = &rig.driver.demands.consumers[&resumed.id];
    assert_eq!(consumer.held.len(), 1);
    assert!(consumer.extend_at.is_some_and(|at| at > clock::now()));
}

/// A consumer that comes back with what it held gets no more than its window.
#[test]
fn resumed_deliveries_count_against_the_window() {
    let mut rig = Rig::new();
    rig.send(&[1, 2, 3]);
    let mut stream = rig.consume(1, window(2), vec![]);
    let held = stream.receipts();
    assert_eq!(held.len(), 2);
    let mut resumed = rig.consume(2, window(2), held);
    assert_eq!(resumed.bodies(), [0; 0]);
}

/// A clean close is free, however soon after the resumption.
#[test]
fn resumed_and_closed_in_one_batch_is_released() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let (poll, mut answer) = rig.poll("");
    rig.work([poll]);
    let mut deliveries = answer.try_recv().unwrap().unwrap().into_fitting(u64::MAX);
    let held = vec![deliveries.remove(0).receipt];
    let (open, resumed) = rig.stream(2, Window { max_messages: 1, max_bytes: 1 }, held);
    let close = resumed.close(StreamEnd::Deliberate);
    rig.work([open, close]);
    assert_eq!((rig.counts().ready, rig.counts().in_flight), (1, 0));
}

/// Nobody is blamed for what never left this process.
#[test]
fn broken_stream_releases_what_it_was_not_told() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let stream = rig.consume(1, window(2), vec![]);
    rig.work([stream.close(StreamEnd::Broken)]);
    assert_eq!((rig.counts().ready, rig.counts().in_flight), (1, 0));
}

/// What arrived before the process stops is done.
#[test]
fn stop_finishes_the_batch() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let mut stream = rig.consume(1, window(2), vec![]);
    assert_eq!(stream.bodies(), [1]);
    assert!(!rig.work([stream.close(StreamEnd::Deliberate), Job::Stop]));
    assert_eq!((rig.counts().ready, rig.counts().in_flight), (1, 0));
}

/// A settlement that is refused changes nothing: not the window, and not who extends the delivery.
#[test]
fn settlement_with_another_queue_leaves_the_holder() {
    let mut rig = Rig::new();
    let other = rig.configure("shop/logs");
    rig.send(&[1, 2]);
    let mut stream = rig.consume(1, window(1), vec![]);
    let receipt = stream.receipts().remove(0);
    assert_eq!(rig.settle(other, &receipt, Outcome::Ack), Err(Refusal::InvalidReceipt));
    assert_eq!(stream.bodies(), [0; 0]);
    rig.settle(rig.queue, &receipt, Outcome::Ack).unwrap();
    assert_eq!(stream.bodies(), [2]);
}

/// A Ready message never waits beside a consumer with room: here another call is asked first and may have nothing.
#[test]
fn demand_that_takes_nothing_does_not_hold_up_the_next() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let (poll, mut answer) = rig.poll("same");
    rig.work([poll]);
    let first = answer.try_recv().unwrap().unwrap().into_fitting(u64::MAX);
    rig.settle(rig.queue, &first[0].receipt, Outcome::Ack).unwrap();
    let (again, _waiting) = rig.poll("same");
    rig.work([again]);
    let mut stream = rig.consume(1, window(1), vec![]);
    rig.send(&[2]);
    assert_eq!(stream.bodies(), [2]);
}

/// The window is never passed, neither in messages nor in bytes; a message larger than all of it comes alone.
#[test]
fn window_of_bytes_holds() {
    let mut rig = Rig::new();
    rig.send(&[60, 60, 500]);
    let mut stream = rig.consume(1, window(9), vec![]);
    for expected in [60, 60, 500] {
        let deliveries = stream.deliveries();
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].message.payload.body.len(), expected);
        rig.settle(rig.queue, &deliveries[0].receipt, Outcome::Ack).unwrap();
    }
}

/// Handing over is free: also when nobody reads the answer and the mailbox is full.
#[tokio::test]
async fn answer_that_nobody_reads_goes_back_through_a_full_mailbox() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let (poll, answer) = rig.poll("");
    rig.work([poll]);
    while rig.jobs.try_send(Job::Look(Box::new(|_| {}))).is_ok() {}
    drop(answer);
    while rig.counts().in_flight > 0 {
        let job = tokio::time::timeout(PATIENCE, rig.mailbox.recv()).await.unwrap().unwrap();
        rig.work([job]);
    }
    assert_eq!(rig.counts().ready, 1);
}

/// Calls that their callers gave up do not pile up until they would have ended.
#[test]
fn cancelled_polls_are_forgotten() {
    let mut rig = Rig::new();
    for _ in 0..1000 {
        let (poll, _) = rig.poll("");
        rig.work([poll]);
    }
    assert!(rig.driver.demands.polls() < 200);
    assert_eq!(rig.driver.demands.count(rig.queue), 0);
}

/// Promise: no record of the log is larger than what one commit may hold, however much arrives at once.
#[test]
fn large_sends_that_arrive_together_are_committed_apart() {
    let batch = [MAX_BATCH_BYTES + 1, MAX_BATCH_BYTES - 1, 1, 1].map(|bytes| (large(bytes), Then::Nothing));
    assert_eq!(fitting(&batch), 1, "one that is too large comes alone");
    assert_eq!(fitting(&batch[1..]), 2);
    assert_eq!(fitting(&batch[3..]), 1);
    assert_eq!(fitting(&[]), 0);
}

/// Promise: everybody who waited when the store failed is told so, and what nobody would ask for again is kept.
#[test]
fn what_waits_behind_a_failed_commit_fails_with_it() {
    let mut rig = Rig::new();
    rig.break_store();
    let (answer, mut answered) = Answer::new(None, None);
    rig.driver.batch.push((large(MAX_BATCH_BYTES), Then::Nothing));
    rig.driver.batch.push((large(MAX_BATCH_BYTES), Then::Answer(answer)));
    rig.driver.batch.push((large(MAX_BATCH_BYTES), Then::Nothing));
    rig.work([]);
    assert!(answered.now().unwrap().is_err());
    assert_eq!(rig.driver.batch.len(), 2);
}

/// Promise: a message is handed to one consumer, and in vain to none, however many commits are under way.
#[test]
fn queue_is_not_asked_again_while_it_is_asked() {
    let mut rig = Rig::new();
    let mut stream = rig.consume(1, window(1), vec![]);
    for bytes in [1, 2, 3] {
        let (answer, _) = Answer::new(None, None);
        rig.driver.work(&mut vec![Job::Apply(rig.send_of(&[bytes]), answer)]);
    }
    assert_eq!(stream.bodies(), [1], "the third commit was submitted when the first was applied");
    rig.work([]);
    assert_eq!(rig.counts().in_flight, 1, "the window holds");
}

/// Nobody is blamed for what was on its way to a consumer that left.
#[test]
fn consumer_that_leaves_while_it_is_asked_for_holds_nothing() {
    let mut rig = Rig::new();
    let stream = rig.consume(1, window(9), vec![]);
    let (answer, _) = Answer::new(None, None);
    rig.driver.work(&mut vec![Job::Apply(rig.send_of(&[1]), answer)]);
    rig.work([stream.close(StreamEnd::Broken)]);
    assert_eq!((rig.counts().ready, rig.counts().in_flight), (1, 0));
}

/// Promise: what a producer sent behind a batch that failed is not stored before that is sent again.
#[test]
fn command_behind_a_failed_one_of_its_chain_fails_too() {
    let mut rig = Rig::new();
    let chain = Chain::default();
    let in_order = |rig: &mut Rig| {
        let (answer, mut answered) = Answer::new(None, Some(chain.clone()));
        let command = rig.send_of(&[1]);
        rig.work([Job::Apply(command, answer)]);
        answered.now().unwrap()
    };
    assert!(in_order(&mut rig).is_ok());
    rig.break_store();
    assert!(in_order(&mut rig).is_err());
    rig.reopen();
    assert!(in_order(&mut rig).is_err());
    assert_eq!(rig.counts().ready, 1);
}

/// Nobody is told to stop working on what it has just settled.
#[test]
fn settled_delivery_is_not_revoked_by_its_extension() {
    let mut rig = Rig::new();
    rig.send(&[1]);
    let mut stream = rig.consume(1, window(9), vec![]);
    let receipt = stream.receipts().remove(0);
    let settle = Settle { queue: rig.queue, settlements: vec![(receipt.clone(), Outcome::Ack)] };
    let (answer, _) = Answer::new(None, None);
    rig.driver.work(&mut vec![Job::Apply(Command::Settle(settle), answer)]);
    rig.driver.extend_held(stream.id, rig.queue, vec![receipt]);
    rig.work([]);
    assert!(stream.told.try_recv().is_err());
}

/// Promise: nothing is answered before it is on disk, though the next commit is made before.
#[test]
fn commit_under_way_is_answered_by_the_next_step() {
    let mut rig = Rig::new();
    let (answer, mut answered) = Answer::new(None, None);
    rig.driver.work(&mut vec![Job::Apply(rig.send_of(&[1]), answer)]);
    assert!(answered.now().is_err());
    rig.driver.sync();
    assert!(answered.now().is_err());
    rig.driver.step();
    assert!(matches!(answered.now().unwrap().unwrap(), Reply::Sent(_)));
}

fn large(bytes: usize) -> Command {
    let payload = Payload { body: vec![0; bytes].into(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    Command::Send(Send { queue: QueueId(1), messages, batch: Batch::Each, request_id: String::new() })
}
