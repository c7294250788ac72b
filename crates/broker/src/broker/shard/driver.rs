//! The engine's thread: collect what arrived, add what the waiting may get, submit, apply and answer what was submitted
//! before; again.
//!
//! While the disk writes one commit the one before is applied, and what arrives meanwhile becomes the next.

mod asks;
mod commits;
mod replies;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use ackwell_engine::command::{Extend, Outcome, Settle};
use ackwell_engine::message::QueueId;
use ackwell_engine::{Command, Engine, Timestamp};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use asks::Asked;
use commits::UnderWay;

use super::demand::{Asker, Demands, Handed, Poll, Subscription, SubscriptionId};
use super::disk::Volume;
use super::extension::{self, Orphans, RESUME_GRACE_MS};
use super::{Answer, Closed, Event, Job, Levels, Measures, Place, View};
use crate::broker::refusal;
use crate::clock;
use crate::stream_end::StreamEnd;

/// Jobs taken into one commit. Enough to use a slow disk well, few enough that one commit stays short.
const MAX_BATCH: usize = 1024;
/// Between two tries to open a store that failed, whether or not it was open in between: a full volume must not make a broker
/// busy with nothing but reading its log.
const REOPEN_EVERY_MS: u64 = 1_000;

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

/// What others see of it without asking.
pub(super) struct Told {
    pub(super) ready: watch::Sender<bool>,
    pub(super) levels: Levels,
    pub(super) measures: Measures,
}

pub(super) struct Driver {
    place: Place,
    /// `None` between a failure and the next successful opening.
    engine: Option<Engine>,
    told: Told,
    jobs: mpsc::WeakSender<Job>,
    demands: Demands,
    orphans: Orphans,
    batch: Vec<(Command, Then)>,
    /// More waits in `batch` than one commit may hold: nothing is added to it.
    is_behind: bool,
    under_way: UnderWay,
    is_granting: bool,
    /// By the commit that is applied.
    asked: HashMap<QueueId, Asked>,
    /// How often in a row the asks of a queue changed nothing, since the last jobs.
    in_vain: HashMap<QueueId, u8>,
    volume: Volume,
    /// When a failed store may be opened.
    next_opening: Timestamp,
}

impl Driver {
    pub(super) fn new(place: Place, engine: Engine, jobs: mpsc::WeakSender<Job>, told: Told) -> Self {
        Self {
            place,
            engine: Some(engine),
            told,
            jobs,
            demands: Demands::default(),
            orphans: Orphans::default(),
            batch: Vec::new(),
            is_behind: false,
            under_way: UnderWay::default(),
            is_granting: true,
            asked: HashMap::new(),
            in_vain: HashMap::new(),
            volume: Volume::default(),
            next_opening: Timestamp(0),
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
        while self.is_busy() {
            self.step();
        }
        self.shut();
    }

    /// So that the next process has nothing to replay. When that fails, it has.
    fn shut(&mut self) {
        if let Some(Err(error)) = self.engine.take().map(Engine::close) {
            error!(error = &error as &dyn std::error::Error, "the last checkpoint failed");
        }
    }

    /// Takes the jobs in and makes a commit of them. `false`: one of them was to stop.
    fn work(&mut self, jobs: &mut Vec<Job>) -> bool {
        if !jobs.is_empty() {
            self.in_vain.clear();
        }
        let mut goes_on = true;
        if let Some(engine) = &self.engine {
            self.volume.learn(clock::now(), engine.space().ok());
            self.told.levels.publish_disk(self.volume.is_full());
            self.told.measures.publish_disk(self.volume.is_full());
        }
        for job in jobs.drain(..) {
            goes_on &= self.take_in(job);
        }
        self.step();
        goes_on
    }

    /// Waits for the disk, or for jobs, or for a time at which something happens by itself. `false`: nobody can send any
    /// more.
    async fn collect(&mut self, mailbox: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
        if self.is_busy() {
            self.sync();
            while !self.is_behind
                && jobs.len() < MAX_BATCH
                && let Ok(job) = mailbox.try_recv()
            {
                jobs.push(job);
            }
            return true;
        }
        self.in_vain.clear();
        let Some(wait) = self.wait() else { return mailbox.recv_many(jobs, MAX_BATCH).await > 0 };
        tokio::select! {
            taken = mailbox.recv_many(jobs, MAX_BATCH) => taken > 0,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn wait(&self) -> Option<Duration> {
        let Some(engine) = &self.engine else { return Some(self.until_opening(clock::now())) };
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
            // Being asked for again is all that follows.
            Job::Read => {}
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
        if answer.is_cut_off() {
            return answer.fail(refusal::storage_unavailable());
        }
        if stores(&command) && !self.volume.admits(commits::body_bytes(&command) as u64) {
            return answer.give(Err(refusal::disk_full()));
        }
        if self.engine.is_none() {
            return answer.fail(refusal::storage_unavailable());
        }
        let then = match &command {
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

    fn ensure_open(&mut self) {
        let now = clock::now();
        if self.engine.is_some() || !self.until_opening(now).is_zero() {
            return;
        }
        self.next_opening = now.plus_ms(REOPEN_EVERY_MS);
        match self.place.open() {
            Ok(engine) => {
                info!("the store is open again");
                self.engine = Some(engine);
                self.told.ready.send_replace(true);
            }
            Err(error) => error!(error = &*error as &dyn std::error::Error, "cannot reopen the store"),
        }
    }

    /// At most as long as between two tries, should the clock be set back.
    fn until_opening(&self, now: Timestamp) -> Duration {
        Duration::from_millis(self.next_opening.ms_since(now).min(REOPEN_EVERY_MS))
    }
}

/// Whether the command needs room on the volume, which settling makes.
fn stores(command: &Command) -> bool {
    match command {
        Command::Send(_) => true,
        Command::Commit(commit) => !commit.send.is_empty(),
        Command::Import(import) => !import.messages.is_empty(),
        _ => false,
    }
}

fn receipts<'a>(settles: impl IntoIterator<Item = &'a Settle>) -> Vec<Bytes> {
    let settlements = settles.into_iter().flat_map(|settle| &settle.settlements);
    settlements.map(|(receipt, _)| receipt.clone()).collect()
}
