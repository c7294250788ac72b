//! The engine's thread: collect what arrived, add what the waiting may get, commit, answer; again.

mod asks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use ackwell_engine::command::{Delivery, Extend, NewMessage, Outcome, Settle, Settled};
use ackwell_engine::message::QueueId;
use ackwell_engine::{Applied, Command, Engine, Refusal, Reply, Timestamp};
use ackwell_proto::Failure;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use asks::Asked;

use super::demand::{Asker, Demands, Handed, Poll, Subscription, SubscriptionId};
use super::extension::{self, Orphans, RESUME_GRACE_MS};
use super::{Closed, Event, Job, View, disk};
use crate::broker::refusal;
use crate::clock;
use crate::stream_end::StreamEnd;

/// Jobs taken into one commit. Enough to use a slow disk well, few enough that one commit stays short.
const MAX_BATCH: usize = 1024;
/// Bodies taken into one commit, unless a single command has more. A record of the log holds them all, in memory too.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Between two tries to open a store that failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// How often the volume's free space is looked at.
const DISK_CHECK_EVERY_MS: u64 = 1_000;

type Answer = oneshot::Sender<Result<Reply, Failure>>;

/// What to do with the reply to a command of the batch.
enum Then {
    Answer(Answer),
    /// The receipts no longer count against their holders' windows.
    AnswerSettled(Answer, Vec<Bytes>),
    Hand(Asker),
    Extended(SubscriptionId, Vec<Bytes>),
    /// Nobody waits for the reply. The command is done again when its commit failed.
    Nothing,
}

pub(super) struct Driver {
    data: PathBuf,
    /// `None` between a failure and the next successful opening.
    engine: Option<Engine>,
    is_ready: watch::Sender<bool>,
    jobs: mpsc::WeakSender<Job>,
    demands: Demands,
    orphans: Orphans,
    batch: Vec<(Command, Then)>,
    is_granting: bool,
    asked: HashMap<QueueId, Asked>,
    /// How often in a row the asks of a queue changed nothing, since the last jobs.
    in_vain: HashMap<QueueId, u8>,
    is_disk_full: bool,
    next_disk_check: Timestamp,
}

impl Driver {
    pub(super) fn new(
        data: PathBuf,
        engine: Engine,
        is_ready: watch::Sender<bool>,
        jobs: mpsc::WeakSender<Job>,
    ) -> Self {
        Self {
            data,
            engine: Some(engine),
            is_ready,
            jobs,
            demands: Demands::default(),
            orphans: Orphans::default(),
            batch: Vec::new(),
            is_granting: true,
            asked: HashMap::new(),
            in_vain: HashMap::new(),
            is_disk_full: false,
            next_disk_check: Timestamp(0),
        }
    }

    pub(super) async fn run(mut self, mut mailbox: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while self.collect(&mut mailbox, &mut jobs).await {
            self.ensure_open();
            if !self.work(&mut jobs) {
                break;
            }
        }
        self.shut();
    }

    /// So that the next process has nothing to replay. When that fails, it has.
    fn shut(&mut self) {
        if let Some(Err(error)) = self.engine.take().map(Engine::close) {
            error!(error = &error as &dyn std::error::Error, "the last checkpoint failed");
        }
    }

    /// Does the jobs and what follows from them. `false`: one of them was to stop.
    fn work(&mut self, jobs: &mut Vec<Job>) -> bool {
        let mut goes_on = true;
        for job in jobs.drain(..) {
            goes_on &= self.take_in(job);
        }
        self.in_vain.clear();
        self.step();
        while self.has_more_to_do() {
            self.step();
        }
        goes_on
    }

    fn has_more_to_do(&self) -> bool {
        self.engine.is_some() && (!self.batch.is_empty() || self.has_more_to_hand())
    }

    /// Waits for jobs, or for a time at which something happens by itself. `false`: nobody can send any more.
    async fn collect(&self, mailbox: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
        let Some(wait) = self.wait() else { return mailbox.recv_many(jobs, MAX_BATCH).await > 0 };
        tokio::select! {
            taken = mailbox.recv_many(jobs, MAX_BATCH) => taken > 0,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn wait(&self) -> Option<Duration> {
        let Some(engine) = &self.engine else { return Some(REOPEN_EVERY) };
        let extensions = self.demands.consumers.values().filter_map(|consumer| consumer.extend_at).min();
        let next = [engine.next_wakeup(), self.demands.next_give_up(), self.orphans.next_due(), extensions];
        let at = next.into_iter().flatten().min()?;
        Some(Duration::from_millis(at.ms_since(clock::now())))
    }

    /// `false`: stop.
    fn take_in(&mut self, job: Job) -> bool {
        match job {
            Job::Apply(command, answer) => self.take_command(command, answer),
            Job::Poll(poll) if self.is_granting => {
                self.batch.push((Command::Receive(poll.receive.clone()), Then::Hand(Asker::Poll(poll))));
            }
            Job::Poll(poll) => _ = poll.reply.send(Err(refusal::shutting_down())),
            Job::Release(queue, receipts) => self.release(queue, receipts),
            Job::Look(look) => self.look(look),
            Job::Open(subscription, held) => self.open(subscription, held),
            Job::Resize(id, window) => self.demands.resize(id, window),
            Job::Close(closed) => self.close(closed),
            Job::Drain => self.drain(),
            Job::Stop => return false,
        }
        true
    }

    /// Without a store the question is dropped, which its asker notices.
    fn look(&mut self, look: Box<dyn FnOnce(View<'_>) + Send>) {
        if let Some(engine) = &mut self.engine {
            look(View { engine, demands: &self.demands });
            engine.let_go();
        }
    }

    fn take_command(&mut self, command: Command, answer: Answer) {
        if self.engine.is_none() {
            _ = answer.send(Err(refusal::storage_unavailable()));
            return;
        }
        let then = match &command {
            command if self.is_disk_full && stores(command) => {
                _ = answer.send(Err(refusal::disk_full()));
                return;
            }
            Command::Settle(settle) => Then::AnswerSettled(answer, receipts([settle])),
            Command::Commit(commit) => Then::AnswerSettled(answer, receipts(&commit.settle)),
            _ => Then::Answer(answer),
        };
        self.batch.push((command, then));
    }

    fn open(&mut self, subscription: Subscription, held: Vec<Bytes>) {
        let (id, queue) = (subscription.id, subscription.queue);
        if !self.is_granting {
            _ = subscription.events.try_send(Event::GoAway);
        }
        self.demands.open(subscription);
        if held.is_empty() {
            return;
        }
        self.orphans.claim(&held.iter().collect());
        // Its own from now on: they count against the window, go with the stream, and are checked by being extended. How
        // large the bodies are was known to the stream that broke; they count as messages and not in bytes.
        held.iter().for_each(|receipt| self.demands.adopt(id, receipt));
        self.extend_held(id, queue, held);
    }

    fn extend_held(&mut self, id: SubscriptionId, queue: QueueId, receipts: Vec<Bytes>) {
        let extend = Extend { queue, receipts: receipts.clone(), ack_timeout_ms: None };
        self.batch.push((Command::Extend(extend), Then::Extended(id, receipts)));
    }

    fn close(&mut self, mut closed: Closed) {
        let Some((queue, held)) = self.demands.close(closed.id) else { return };
        self.demands.forget_turns();
        let unseen = closed.unseen();
        let (unseen, seen): (Vec<Bytes>, Vec<Bytes>) =
            held.into_iter().partition(|receipt| unseen.contains(receipt));
        self.release(queue, unseen);
        match closed.end {
            StreamEnd::Deliberate => self.release(queue, seen),
            // The consumer will look for us again, and bring its receipts to the next process.
            StreamEnd::Broken if !self.is_granting => {}
            StreamEnd::Broken => self.orphan(queue, seen),
        }
    }

    fn orphan(&mut self, queue: QueueId, receipts: Vec<Bytes>) {
        if receipts.is_empty() {
            return;
        }
        // Held a little past the grace, so that the loss is noticed as such and not as an ack timeout.
        let ack_timeout_ms = Some(RESUME_GRACE_MS * 2);
        let extend = Extend { queue, receipts: receipts.clone(), ack_timeout_ms };
        self.batch.push((Command::Extend(extend), Then::Nothing));
        self.orphans.add(clock::now(), queue, receipts);
    }

    fn release(&mut self, queue: QueueId, receipts: Vec<Bytes>) {
        self.settle_all(queue, receipts, &Outcome::Release);
    }

    fn settle_all(&mut self, queue: QueueId, receipts: Vec<Bytes>, outcome: &Outcome) {
        if receipts.is_empty() {
            return;
        }
        let settlements = receipts.into_iter().map(|receipt| (receipt, outcome.clone())).collect();
        self.batch.push((Command::Settle(Settle { queue, settlements }), Then::Nothing));
    }

    fn drain(&mut self) {
        info!("draining: no more deliveries");
        self.is_granting = false;
        for poll in self.demands.take_polls() {
            _ = poll.reply.send(Err(refusal::shutting_down()));
        }
        for consumer in self.demands.consumers.values() {
            _ = consumer.subscription.events.try_send(Event::GoAway);
        }
    }

    /// One commit.
    fn step(&mut self) {
        let now = clock::now();
        self.check_disk(now);
        self.add_due(now);
        let rest = self.batch.split_off(fitting(&self.batch));
        self.add_asks();
        let owed = owed(&self.batch);
        let (commands, thens): (Vec<Command>, Vec<Then>) =
            std::mem::replace(&mut self.batch, rest).into_iter().unzip();
        let Some(engine) = &mut self.engine else {
            return self.fail(now, thens, owed, &refusal::storage_unavailable());
        };
        match engine.apply(now, commands) {
            Ok(applied) => self.conclude(now, applied, thens),
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "the store failed; reopening it");
                self.engine = None;
                self.is_ready.send_replace(false);
                self.fail(now, thens, owed, &refusal::storage_failure(&error));
            }
        }
    }

    /// Whatever waited behind the batch fails with it. What is owed is done once the store is open again.
    fn fail(&mut self, now: Timestamp, thens: Vec<Then>, owed: Vec<(Command, Then)>, failure: &Failure) {
        self.asked.clear();
        let behind = std::mem::replace(&mut self.batch, owed);
        self.batch.extend(self::owed(&behind));
        for then in thens.into_iter().chain(behind.into_iter().map(|(_, then)| then)) {
            match then {
                Then::Answer(answer) | Then::AnswerSettled(answer, _) => {
                    _ = answer.send(Err(failure.clone()));
                }
                Then::Hand(Asker::Poll(poll)) => _ = poll.reply.send(Err(failure.clone())),
                // Streams stay open: they are served again, and their deliveries extended, once the store is open.
                Then::Extended(id, _) => self.schedule_extension(id, now),
                Then::Hand(Asker::Consumer(_)) | Then::Nothing => {}
            }
        }
    }

    fn check_disk(&mut self, now: Timestamp) {
        if now >= self.next_disk_check {
            self.next_disk_check = now.plus_ms(DISK_CHECK_EVERY_MS);
            self.is_disk_full = disk::is_nearly_full(&self.data);
        }
    }

    /// What is due by itself: calls that waited long enough, lost consumers, extensions.
    fn add_due(&mut self, now: Timestamp) {
        for poll in self.demands.give_up(now) {
            let nothing = Handed::nothing(poll.receive.queue, self.jobs.clone());
            _ = poll.reply.send(Ok(nothing));
        }
        if self.engine.is_none() {
            return;
        }
        for (queue, receipts) in self.orphans.take_due(now) {
            self.settle_all(
                queue,
                receipts,
                &Outcome::Lost { reason: "the consumer's connection broke".to_owned() },
            );
        }
        for (id, queue, receipts) in self.demands.take_due_extensions(now) {
            self.extend_held(id, queue, receipts);
        }
    }

    fn conclude(&mut self, now: Timestamp, applied: Applied, thens: Vec<Then>) {
        self.revoke(applied.expired);
        for (reply, then) in applied.replies.into_iter().zip(thens) {
            match then {
                Then::Nothing => {}
                Then::Answer(answer) => _ = answer.send(Ok(reply)),
                Then::AnswerSettled(answer, receipts) => {
                    self.let_go_settled(&receipts, &reply);
                    _ = answer.send(Ok(reply));
                }
                Then::Hand(asker) => self.hand(now, asker, reply),
                Then::Extended(id, receipts) => self.extended(now, id, receipts, reply),
            }
        }
        self.judge_asks();
    }

    /// Whatever else was wrong with a settlement, its receipt is no longer valid; but of another queue it says nothing, and
    /// a Commit that was refused for another item changed nothing.
    fn let_go_settled(&mut self, receipts: &[Bytes], reply: &Reply) {
        let results: Vec<_> = match reply {
            Reply::Settled(results) => results.iter().collect(),
            Reply::Committed(committed) => committed.settled.iter().flatten().collect(),
            _ => return,
        };
        let is_over = |result: &Result<Settled, Refusal>| {
            !matches!(result, Err(Refusal::InvalidReceipt | Refusal::CommitRefused))
        };
        let over = receipts.iter().zip(results).filter(|(_, result)| is_over(result));
        over.for_each(|(receipt, _)| _ = self.demands.let_go(receipt));
    }

    fn hand(&mut self, now: Timestamp, asker: Asker, reply: Reply) {
        let deliveries = match reply {
            Reply::Received(deliveries) => Ok(deliveries),
            Reply::Refused(refused) => Err(refused),
            other => unreachable!("a Receive is answered by deliveries, not {other:?}"),
        };
        match asker {
            Asker::Poll(poll) => self.hand_to_poll(now, poll, deliveries),
            Asker::Consumer(id) => self.hand_to_consumer(now, id, deliveries.unwrap_or_default()),
        }
    }

    fn hand_to_poll(&mut self, now: Timestamp, poll: Poll, deliveries: Result<Vec<Delivery>, Refusal>) {
        match deliveries {
            Ok(deliveries) if deliveries.is_empty() && now < poll.give_up_at && self.is_granting => {
                self.demands.park(poll);
            }
            Ok(deliveries) => {
                let queue = poll.receive.queue;
                self.note_handed(queue, &deliveries);
                _ = poll.reply.send(Ok(Handed::new(queue, deliveries, self.jobs.clone())));
            }
            Err(refused) => _ = poll.reply.send(Err(refusal::failure(&refused))),
        }
    }

    fn hand_to_consumer(&mut self, now: Timestamp, id: SubscriptionId, deliveries: Vec<Delivery>) {
        let Some(consumer) = self.demands.consumers.get(&id) else { return };
        let queue = consumer.subscription.queue;
        let Some(first) = deliveries.first() else { return };
        self.note_handed(queue, &deliveries);
        self.schedule_extension(id, extension::extend_at(now, first.deadline));
        for delivery in &deliveries {
            self.demands.hold(id, delivery.receipt.clone(), delivery.message.payload.body.len() as u64);
        }
        self.tell(id, Event::Deliveries(deliveries));
    }

    /// A stream that is gone is told nothing; its end is on the way as [`Job::Close`] and releases what it held.
    fn tell(&self, id: SubscriptionId, event: Event) {
        if let Some(consumer) = self.demands.consumers.get(&id) {
            _ = consumer.subscription.events.try_send(event);
        }
    }

    /// Plans the next extension of those still valid and revokes the others.
    fn extended(&mut self, now: Timestamp, id: SubscriptionId, receipts: Vec<Bytes>, reply: Reply) {
        let Reply::Extended(results) = reply else { return };
        let mut revoked = Vec::new();
        for (receipt, result) in receipts.into_iter().zip(results) {
            match result {
                Ok(deadline) => self.schedule_extension(id, extension::extend_at(now, deadline)),
                Err(_) => revoked.push(receipt),
            }
        }
        revoked.iter().for_each(|receipt| self.demands.disown(id, receipt));
        if !revoked.is_empty() {
            self.tell(id, Event::Revoked(revoked));
        }
    }

    fn schedule_extension(&mut self, id: SubscriptionId, at: Timestamp) {
        if let Some(consumer) = self.demands.consumers.get_mut(&id) {
            consumer.extend_at = Some(consumer.extend_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Tells the holders of receipts that ran out of time.
    fn revoke(&mut self, receipts: Vec<Bytes>) {
        for receipt in receipts {
            if let Some(id) = self.demands.let_go(&receipt).map(|consumer| consumer.subscription.id) {
                self.tell(id, Event::Revoked(vec![receipt]));
            }
        }
    }

    fn ensure_open(&mut self) {
        if self.engine.is_some() {
            return;
        }
        match super::open(&self.data) {
            Ok(engine) => {
                info!("the store is open again");
                self.engine = Some(engine);
                self.is_ready.send_replace(true);
            }
            Err(error) => error!(error = &*error as &dyn std::error::Error, "cannot reopen the store"),
        }
    }
}

/// Whether the command needs room on the volume, which settling makes.
fn stores(command: &Command) -> bool {
    match command {
        Command::Send(_) => true,
        Command::Commit(commit) => !commit.send.is_empty(),
        _ => false,
    }
}

fn receipts<'a>(settles: impl IntoIterator<Item = &'a Settle>) -> Vec<Bytes> {
    let settlements = settles.into_iter().flat_map(|settle| &settle.settlements);
    settlements.map(|(receipt, _)| receipt.clone()).collect()
}

/// How many commands of the batch make one commit.
fn fitting(batch: &[(Command, Then)]) -> usize {
    let mut bytes = 0;
    let fits = |(command, _): &&(Command, Then)| {
        bytes += body_bytes(command);
        bytes <= MAX_BATCH_BYTES
    };
    let fitting = batch.iter().take_while(fits).count();
    fitting.max(1).min(batch.len())
}

fn body_bytes(command: &Command) -> usize {
    let of = |messages: &[NewMessage]| messages.iter().map(|message| message.payload.body.len()).sum();
    match command {
        Command::Send(send) => of(&send.messages),
        Command::Commit(commit) => commit.send.iter().map(|outgoing| of(&outgoing.messages)).sum(),
        _ => 0,
    }
}

/// What is to be done even if this commit fails: ends and extensions that nobody would ask for again.
fn owed(batch: &[(Command, Then)]) -> Vec<(Command, Then)> {
    let owed = batch.iter().filter(|(_, then)| matches!(then, Then::Nothing));
    owed.map(|(command, _)| (command.clone(), Then::Nothing)).collect()
}
