//! A shard that is obviously right: one list of messages, looked through from the start for every question.
//!
//! It speaks the engine's own commands and replies, so that both can be compared word by word; only receipts it cannot
//! make, and leaves empty. It knows nothing of the engine's insides: what `docs/delivery.md` says is written here a second
//! time. It does not know the bounds that a short history never meets: 10 000 timers a batch, 20 000 messages a page, 64 tasks.

mod arithmetic;
mod explain;
mod queues;
mod receive;
mod select;
mod send;
mod settle;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use ackwell_engine::command::{Delivery, Sent, Settled};
use ackwell_engine::message::{DeadReason, KeyId, Message, QueueId, Seq, State};
use ackwell_engine::settings::Expired;
use ackwell_engine::store::Entropy;
use ackwell_engine::task::TaskId;
use ackwell_engine::{Command, Counts, Reply, Settings, Stats, Timestamp, Totals};
use bytes::Bytes;

pub use receive::Lease;
use receive::{Hold, Turns};
use settle::Failure;
use tasks::Known;

/// How long calls and settlements are remembered.
const WINDOW_MS: u64 = 120_000;

/// What each receipt that was ever given out stands for.
pub type Receipts = BTreeMap<Bytes, Lease>;

/// All queues of a shard.
#[derive(Clone, Debug)]
pub struct Model {
    entropy: Entropy,
    now: Timestamp,
    queues: Vec<Queue>,
    /// In stored order.
    messages: Vec<Stored>,
    notes: Vec<(Timestamp, Note)>,
    next_seq: u64,
    next_epoch: u64,
    next_queue: u32,
}

#[derive(Clone, Debug)]
struct Queue {
    id: QueueId,
    name: String,
    generation: u64,
    settings: Settings,
    is_paused: bool,
    is_closed: bool,
    totals: Totals,
    turns: Turns,
    tasks: BTreeMap<TaskId, Known>,
}

#[derive(Clone, Debug)]
struct Stored {
    queue: QueueId,
    /// As everybody sees it.
    shown: Message,
    hold: Option<Hold>,
    dead_since: Timestamp,
}

/// What is remembered for a while.
#[derive(Clone, Debug)]
enum Note {
    Settled(Lease, &'static str, Settled),
    Sent(QueueId, String, Vec<Option<Sent>>),
    Received(QueueId, String, Vec<Lease>),
    Dedup(QueueId, String, Sent),
    Committed(String, ackwell_engine::command::Committed),
}

/// What the engine must answer to a batch.
#[derive(Debug)]
pub struct Expected {
    /// With empty receipts.
    pub replies: Vec<Reply>,
    /// Deliveries that ran out of time, in order.
    pub expired: Vec<Lease>,
}

enum Answer {
    Now(Reply),
    /// What of it is still held when the batch ends.
    Later(Vec<Lease>),
}

impl Model {
    /// An empty store.
    pub fn new(entropy: Entropy, now: Timestamp) -> Self {
        let (queues, messages, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { entropy, now, queues, messages, notes, next_seq: 1, next_epoch: 1, next_queue: 1 }
    }

    /// What the engine must answer.
    pub fn apply(&mut self, now: Timestamp, commands: &[Command], receipts: &Receipts) -> Expected {
        self.now = self.now.max(now);
        self.notes.retain(|(until, _)| *until > self.now);
        let expired = self.let_happen_what_is_due();
        let answers: Vec<Answer> = commands.iter().map(|command| self.answer(command, receipts)).collect();
        let close = |answer| match answer {
            Answer::Now(reply) => reply,
            Answer::Later(held) => Reply::Received(self.deliveries(&held)),
        };
        Expected { replies: answers.into_iter().map(close).collect(), expired }
    }

    /// The process ends and starts again: all but what is on disk is forgotten.
    pub fn restart(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        let now = self.now;
        for hold in self.messages.iter_mut().filter_map(|message| message.hold.as_mut()) {
            hold.deadline = hold.deadline.max(now.plus_ms(hold.ack_ms));
        }
        for queue in &mut self.queues {
            (queue.totals, queue.turns) = (Totals::default(), Turns::default());
        }
    }

    /// The time that the engine goes by.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens by itself.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.messages.iter().filter_map(|message| self.wakes_at(message)).min()
    }

    /// Everything in the queue.
    pub fn shown(&self, queue: QueueId) -> Vec<&Message> {
        self.of(queue).map(|message| &message.shown).collect()
    }

    /// Counted anew.
    pub fn stats(&self, queue: QueueId) -> Stats {
        let mut counts = Counts::default();
        for message in self.of(queue) {
            let count = match message.shown.state {
                State::Ready => &mut counts.ready,
                State::Delayed => &mut counts.delayed,
                State::InFlight => &mut counts.in_flight,
                State::Dead => &mut counts.dead,
            };
            *count += 1;
            counts.bytes += message.bytes();
        }
        let oldest = self.of(queue).find(|message| message.shown.state == State::Ready);
        let totals = self.queue(queue).map(|queue| queue.totals).unwrap_or_default();
        Stats { counts, totals, oldest_ready: oldest.map(|message| message.shown.stored_at) }
    }

    fn answer(&mut self, command: &Command, receipts: &Receipts) -> Answer {
        let reply = match command {
            Command::Configure(configure) => Ok(self.configure(configure)),
            Command::Pause(pause) => self.pause(*pause),
            Command::Delete(delete) => self.delete(*delete),
            Command::Send(send) => self.send(send),
            Command::Receive(receive) => match self.receive(receive) {
                Ok(held) => return Answer::Later(held),
                Err(refusal) => Err(refusal),
            },
            Command::HandOver(handover) => self.hand_over(handover, receipts),
            Command::Settle(settle) => self.settle(settle, receipts),
            Command::Extend(extend) => self.extend(extend, receipts),
            Command::Commit(commit) => self.commit(commit, receipts),
            Command::Cancel(cancel) => self.cancel(cancel),
            Command::Redrive(selection) => self.redrive(selection),
            Command::Purge(selection) => self.purge(selection),
            Command::Task(task) => self.task(task),
            // Takes two: the engine's own tests have worlds of several.
            Command::Place(_)
            | Command::Arrive(_)
            | Command::Import(_)
            | Command::Depart(_)
            | Command::Forget(_) => unreachable!("histories are of one shard"),
        };
        Answer::Now(reply.unwrap_or_else(Reply::Refused))
    }

    fn let_happen_what_is_due(&mut self) -> Vec<Lease> {
        let mut expired = Vec::new();
        while let Some(seq) = self.due() {
            let message = self.find(seq);
            match message.shown.state {
                State::Ready | State::Delayed => self.come_back(seq, self.now),
                State::Dead => self.remove(seq),
                State::InFlight => {
                    expired.extend(message.lease());
                    self.fail(seq, &Failure::TimedOut);
                }
            }
        }
        expired
    }

    /// What happens first.
    fn due(&self) -> Option<Seq> {
        let timers =
            self.messages.iter().filter_map(|message| Some((self.wakes_at(message)?, message.seq())));
        timers.min().filter(|(at, _)| *at <= self.now).map(|(_, seq)| seq)
    }

    fn wakes_at(&self, message: &Stored) -> Option<Timestamp> {
        let Message { state, delayed_until, expires_at, .. } = &message.shown;
        match state {
            State::Ready => *expires_at,
            State::Delayed => delayed_until.iter().chain(expires_at).min().copied(),
            State::InFlight => message.hold.as_ref().map(|hold| hold.deadline),
            State::Dead => Some(self.kept_until(message)).filter(|until| *until < Timestamp::NEVER),
        }
    }

    fn kept_until(&self, message: &Stored) -> Timestamp {
        match self.rules(message.queue).dead_ms {
            0 => Timestamp::NEVER,
            dead_ms => message.dead_since.plus_ms(dead_ms),
        }
    }

    /// Nobody holds it any more: it waits until then, unless its ttl has passed.
    fn come_back(&mut self, seq: Seq, until: Timestamp) {
        let now = self.now;
        let message = self.find_mut(seq);
        message.hold = None;
        message.shown.state = if until > now { State::Delayed } else { State::Ready };
        message.shown.delayed_until = Some(until).filter(|until| *until > now);
        if message.shown.expires_at.is_some_and(|expires_at| expires_at <= now) {
            let queue = message.queue;
            match self.rules(queue).expired {
                Expired::DeadLetter => self.die(seq, DeadReason::Expired),
                Expired::Drop => {
                    self.queue_mut(queue).totals.dropped += 1;
                    self.remove(seq);
                }
            }
        }
        self.forget_idle_debts();
    }

    fn die(&mut self, seq: Seq, reason: DeadReason) {
        let now = self.now;
        let message = self.find_mut(seq);
        (message.hold, message.dead_since) = (None, now);
        (message.shown.state, message.shown.delayed_until) = (State::Dead, None);
        message.shown.dead_reason = Some(reason);
        let queue = message.queue;
        self.queue_mut(queue).totals.add_death(reason);
        self.forget_idle_debts();
    }

    fn remove(&mut self, seq: Seq) {
        self.messages.retain(|message| message.seq() != seq);
        self.forget_idle_debts();
    }

    fn of(&self, queue: QueueId) -> impl Iterator<Item = &Stored> {
        self.messages.iter().filter(move |message| message.queue == queue)
    }

    fn queue(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.iter().find(|candidate| candidate.id == queue)
    }

    fn queue_mut(&mut self, queue: QueueId) -> &mut Queue {
        self.queues.iter_mut().find(|candidate| candidate.id == queue).expect("messages are in queues")
    }

    fn rules(&self, queue: QueueId) -> &Settings {
        &self.queue(queue).expect("messages are in queues").settings
    }

    fn find(&self, seq: Seq) -> &Stored {
        self.messages.iter().find(|message| message.seq() == seq).expect("it was just seen")
    }

    fn find_mut(&mut self, seq: Seq) -> &mut Stored {
        self.messages.iter_mut().find(|message| message.seq() == seq).expect("it was just seen")
    }

    fn key(&self, text: &str) -> Option<KeyId> {
        KeyId::of(text, &self.entropy.receipt_key)
    }

    fn deliveries(&self, held: &[Lease]) -> Vec<Delivery> {
        let held = held.iter().filter_map(|lease| self.held(*lease));
        let delivery = |(message, hold): (&Stored, &Hold)| Delivery {
            receipt: Bytes::new(),
            message: message.shown.clone(),
            deadline: hold.deadline,
            epoch: hold.epoch,
        };
        held.map(delivery).collect()
    }

    /// The message, if this very delivery holds it.
    fn held(&self, lease: Lease) -> Option<(&Stored, &Hold)> {
        let message = self.messages.iter().find(|message| message.lease() == Some(lease))?;
        Some((message, message.hold.as_ref()?))
    }

    fn note(&mut self, ms: u64, note: Note) {
        self.notes.push((self.now.plus_ms(ms), note));
    }

    /// What was noted last comes first.
    fn noted<T>(&self, find: impl Fn(&Note) -> Option<T>) -> Option<T> {
        self.notes.iter().rev().find_map(|(_, note)| find(note))
    }

    fn keys_with_work(&self, queue: QueueId) -> BTreeSet<Option<KeyId>> {
        self.eligible(queue)
            .into_iter()
            .map(|message| self.key(&message.shown.payload.fairness_key))
            .collect()
    }
}

impl Stored {
    fn seq(&self) -> Seq {
        self.shown.id.seq()
    }

    fn bytes(&self) -> u64 {
        self.shown.payload.body.len() as u64
    }

    fn lease(&self) -> Option<Lease> {
        let hold = self.hold.as_ref()?;
        Some(Lease { queue: self.queue, seq: self.seq(), epoch: hold.epoch })
    }
}
