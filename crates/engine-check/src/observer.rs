//! Watches commands, replies and messages, and asserts what was promised, without knowing how it is kept.
//!
//! It is not a second model: it foresees no answer. It remembers what it was told, and says when two things that it was
//! told cannot both be true. The properties have the numbers of `docs/delivery.md`, section "How this is tested".

mod looks;
mod replies;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use ackwell_engine::command::{Applied, NewMessage, Sent, Settled};
use ackwell_engine::message::{Epoch, Message, MessageId, QueueId};
use ackwell_engine::task::{Order, TaskId, TaskState};
use ackwell_engine::{Command, Refusal, Reply, Settings, Timestamp};
use bytes::Bytes;

use crate::violation::{Violation, ensure};
use turns::Turns;

/// All messages of all queues.
pub type Look = [(QueueId, Vec<Message>)];

/// What was seen of one shard so far.
#[derive(Debug, Default)]
pub struct Observer {
    now: Timestamp,
    facts: BTreeMap<MessageId, Fact>,
    held: BTreeMap<Bytes, Held>,
    /// How, and until when a repetition is answered the same.
    settled: BTreeMap<Bytes, (Kind, Settled, Timestamp)>,
    requests: BTreeMap<Request, (Timestamp, Reply)>,
    /// Until when the next message with the dedup id is a duplicate.
    dedups: BTreeMap<(QueueId, String), Timestamp>,
    settings: BTreeMap<QueueId, Settings>,
    deleted: BTreeSet<QueueId>,
    last_epoch: Option<Epoch>,
    last_look: Vec<(QueueId, Vec<Message>)>,
    wakes_at: Option<Timestamp>,
    turns: Turns,
    /// What the first call of each task said, and what was answered last.
    orders: BTreeMap<(QueueId, TaskId), Order>,
    processed: BTreeMap<(QueueId, TaskId), (TaskState, u64)>,
    batch: Batch,
}

/// A request id of a queue's Sends and Receives, or of Commits.
type Request = (Option<QueueId>, String);
type Kind = std::mem::Discriminant<ackwell_engine::command::Outcome>;

/// What is known of a message.
#[derive(Debug)]
struct Fact {
    queue: QueueId,
    available: Timestamp,
    expires_at: Option<Timestamp>,
    attempts: u32,
    /// The receipt that holds it.
    current: Option<Bytes>,
    is_gone: bool,
    /// It may have been Dead when a Redrive came.
    may_be_redriven: bool,
}

/// What is known of a delivery.
#[derive(Clone, Debug)]
struct Held {
    id: MessageId,
    deadline: Timestamp,
    is_handed: bool,
}

/// What happened in one batch.
#[derive(Debug, Default)]
struct Batch {
    /// Anything at all.
    has_effect: bool,
    delivered: Vec<turns::Served>,
    /// Messages whose delivery ended.
    ended: BTreeSet<MessageId>,
    redriven: BTreeMap<QueueId, u64>,
    /// By a Purge or a Delete.
    removed: BTreeMap<QueueId, u64>,
    deleting: BTreeSet<QueueId>,
    configured: BTreeSet<QueueId>,
}

impl Observer {
    /// A batch was applied at that time, and the next is due then; `look` is what the shard holds now.
    pub fn saw(
        &mut self,
        (clock, next_wakeup): (Timestamp, Option<Timestamp>),
        commands: &[Command],
        applied: &Applied,
        look: &Look,
    ) -> Result<(), Violation> {
        self.now = self.now.max(clock);
        let was_due = self.wakes_at.is_some_and(|at| at <= self.now);
        self.batch = Batch { has_effect: was_due, ..Batch::default() };
        applied.expired.iter().try_for_each(|receipt| self.saw_timeout(receipt))?;
        for (command, reply) in commands.iter().zip(&applied.replies) {
            self.saw_reply(command, reply)?;
        }
        self.looked(look)?;
        // What was redriven may have been Dead while others were served; what was deleted is missing in the answers.
        self.turns.forget(self.batch.redriven.keys().chain(&self.batch.deleting));
        self.turns.looked(look, &std::mem::take(&mut self.batch.delivered))?;
        self.wakes_at = next_wakeup;
        // A shortened retention holds from the next batch on.
        let is_awake = next_wakeup.is_none_or(|at| at > self.now) || !self.batch.configured.is_empty();
        ensure(is_awake, "15: nothing is overdue", || format!("{next_wakeup:?} at {:?}", self.now))
    }

    /// The shard was started again, whatever it was doing: every confirmed effect is there, and no other.
    pub fn restarted(&mut self, clock: Timestamp, look: &Look) -> Result<(), Violation> {
        self.now = self.now.max(clock);
        self.turns = Turns::default();
        ensure(self.last_look == look, "1, 9: a crash keeps what was confirmed, and only that", || {
            format!("before: {:?}\nafter: {look:?}", self.last_look)
        })
    }

    fn fact(&mut self, id: MessageId) -> Result<&mut Fact, Violation> {
        self.facts.get_mut(&id).ok_or_else(|| Violation::new("2: messages come from sends", id.to_string()))
    }
}

/// Messages that were to be stored in a queue, and what became of each.
type Results<'a> = (QueueId, &'a [NewMessage], &'a [Result<Sent, Refusal>]);

/// What a call stored that was not stored before, or was said to be.
pub(crate) fn stored<'a>(command: &'a Command, reply: &'a Reply) -> Vec<(QueueId, &'a NewMessage, &'a Sent)> {
    let lists: Vec<Results<'a>> = match (command, reply) {
        (Command::Send(send), Reply::Sent(results)) => vec![(send.queue, &send.messages, results)],
        (Command::Commit(commit), Reply::Committed(committed)) => {
            let pairs = commit.send.iter().zip(&committed.sent);
            pairs.map(|(send, results)| (send.queue, send.messages.as_slice(), results.as_slice())).collect()
        }
        _ => Vec::new(),
    };
    let pairs = lists.into_iter().flat_map(|(queue, messages, results)| {
        messages.iter().zip(results).map(move |(message, result)| (queue, message, result))
    });
    let fresh = pairs.filter_map(|(queue, message, result)| Some((queue, message, result.as_ref().ok()?)));
    fresh.filter(|(_, _, sent)| !sent.duplicate).collect()
}
