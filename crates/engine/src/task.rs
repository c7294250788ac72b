//! Tasks: what was ordered once to be done with many messages, and is done in parts that may be asked for any number of times.
//!
//! `docs/adr/0011-tasks-are-kept-by-shards.md` says why a shard keeps what it did of each.

use std::collections::BTreeMap;

use crate::message::{QueueId, Row, Stage, State};
use crate::messages::Counts;
use crate::time::Timestamp;

/// Tasks that a queue knows at most; of more the oldest are forgotten, and never begun again.
pub(crate) const MAX_TASKS: usize = 64;
/// In which a task that has a rate does so many.
const RATE_WINDOW_MS: u64 = 1000;

/// Names a task, and says which is older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId {
    /// When it was ordered, by the clock of who keeps the orders.
    pub created: Timestamp,
    /// Never used twice.
    pub uid: String,
}

/// Does the next part of a task, or ends it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Whose messages.
    pub queue: QueueId,
    /// Which.
    pub id: TaskId,
    /// What was ordered. What the first call says holds.
    pub order: Order,
    /// Who asks has written down that it began here. Without that it only begins: nothing is done by a call that may be
    /// the first, so that a shard that lost its record is not taken for one that did nothing yet.
    pub has_begun: bool,
    /// Nothing more of it is done.
    pub cancel: bool,
}

/// What is to be done, with which messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub work: Work,
    /// Only those that were stored earlier.
    pub stored_before: Option<Timestamp>,
    /// At most so many; 0: all.
    pub max_messages: u64,
    /// At most so many in a second; 0: as fast as it goes.
    pub max_per_second: u64,
}

/// What becomes of the messages of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Dead ones get another life.
    Redrive,
    /// Those in these states are gone for good. None that is in flight.
    Purge(Vec<State>),
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether there is more to do.
    pub state: TaskState,
    /// Messages that there were when it began, or as many of them as it may take.
    pub total: u64,
    /// Done.
    pub processed: u64,
    /// Could not be done: their bodies are corrupt.
    pub failed: u64,
}

/// Whether there is more of a task to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// At once.
    Running,
    /// In the next second: it did as many as it may.
    Waiting,
    /// No: it is done, or was cancelled.
    Over,
    /// It began, and there is no record of it; or it is older than one that was forgotten, so it may have been done.
    Forgotten,
}

/// What a queue's shard knows of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) known: BTreeMap<TaskId, Record>,
    /// The newest of those that were forgotten: of older ones nothing is known.
    pub(crate) forgotten: Option<TaskId>,
}

/// What was done of a task. What it is about is fixed when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) order: Order,
    /// Messages that die later are not meant.
    pub(crate) started: Timestamp,
    /// Nor are those that are stored from this place on.
    pub(crate) end: u64,
    /// The last place that was looked at.
    pub(crate) scanned: u64,
    pub(crate) total: u64,
    pub(crate) processed: u64,
    pub(crate) failed: u64,
    /// When the second began for which the rate counts, and how many it has had.
    pub(crate) second: Timestamp,
    pub(crate) in_second: u64,
    pub(crate) is_over: bool,
}

/// What a task does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is meant.
    Meant,
    /// It is meant, and cannot be redriven: it would only die again.
    Corrupt,
    /// It is not meant.
    Other,
}

impl Tasks {
    /// Whether nothing is known of the task because it was forgotten, or would be as soon as it were known.
    pub(crate) fn has_forgotten(&self, id: &TaskId) -> bool {
        let is_too_old = || self.forgotten.as_ref().is_some_and(|newest| id <= newest);
        let is_oldest = || self.known.first_key_value().is_some_and(|(oldest, _)| id < oldest);
        !self.known.contains_key(id) && (is_too_old() || (self.known.len() >= MAX_TASKS && is_oldest()))
    }

    /// Keeps the record, and forgets the oldest of too many.
    pub(crate) fn keep(&mut self, id: TaskId, record: Record) {
        self.known.insert(id, record);
        while self.known.len() > MAX_TASKS {
            let oldest = self.known.pop_first().map(|(id, _)| id);
            self.forgotten = oldest.max(self.forgotten.take());
        }
    }
}

impl Record {
    /// Begins: what is stored from place `end` on comes too late. Another shard may have done as many as may be in this
    /// second.
    pub(crate) fn new(order: Order, now: Timestamp, end: u64, counts: &Counts) -> Self {
        let meant = order.work.count(counts);
        let total = if order.max_messages == 0 { meant } else { meant.min(order.max_messages) };
        Self {
            in_second: order.max_per_second,
            order,
            started: now,
            end,
            scanned: 0,
            total,
            processed: 0,
            failed: 0,
            second: now,
            is_over: false,
        }
    }

    /// How many more it may do now.
    pub(crate) fn allowance(&mut self, now: Timestamp) -> u64 {
        let Order { max_messages, max_per_second, .. } = self.order;
        if now.ms_since(self.second) >= RATE_WINDOW_MS {
            (self.second, self.in_second) = (now, 0);
        }
        let left = |max: u64, used: u64| if max == 0 { u64::MAX } else { max.saturating_sub(used) };
        left(max_messages, self.processed).min(left(max_per_second, self.in_second))
    }

    pub(crate) fn verdict(&self, row: &Row) -> Verdict {
        let is_old = self.order.stored_before.is_none_or(|before| row.stored_at < before);
        let is_late = matches!(row.stage, Stage::Dead { since, .. } if since > self.started);
        let is_meant =
            is_old && !is_late && row.hold().is_none() && self.order.work.states().contains(&row.state());
        match (is_meant, &self.order.work) {
            (false, _) => Verdict::Other,
            (true, Work::Redrive) if !row.is_redrivable() => Verdict::Corrupt,
            (true, _) => Verdict::Meant,
        }
    }

    /// Notes one that is done.
    pub(crate) fn count(&mut self) {
        self.processed += 1;
        self.in_second += 1;
    }

    /// It has done as many as it may at all.
    pub(crate) fn is_used_up(&self) -> bool {
        self.order.max_messages > 0 && self.processed >= self.order.max_messages
    }

    pub(crate) fn progress(&self) -> Progress {
        let Self { total, processed, failed, .. } = *self;
        let max_per_second = self.order.max_per_second;
        let state = match (self.is_over, max_per_second > 0 && self.in_second >= max_per_second) {
            (true, _) => TaskState::Over,
            (false, true) => TaskState::Waiting,
            (false, false) => TaskState::Running,
        };
        Progress { state, total, processed, failed }
    }
}

impl Work {
    /// Of the messages that it is about.
    pub(crate) fn states(&self) -> &[State] {
        match self {
            Self::Redrive => &[State::Dead],
            Self::Purge(states) => states,
        }
    }

    fn count(&self, counts: &Counts) -> u64 {
        let count = |state: &State| match state {
            State::Ready => counts.ready,
            State::Delayed => counts.delayed,
            State::InFlight => 0,
            State::Dead => counts.dead,
        };
        self.states().iter().map(count).sum()
    }
}

impl Progress {
    /// Of a task of which nothing is known any more.
    pub(crate) const FORGOTTEN: Self =
        Self { state: TaskState::Forgotten, total: 0, processed: 0, failed: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(created: u64) -> TaskId {
        TaskId { created: Timestamp(created), uid: "t".to_owned() }
    }

    fn record(max_messages: u64, max_per_second: u64) -> Record {
        let order = Order { work: Work::Redrive, stored_before: None, max_messages, max_per_second };
        Record::new(order, Timestamp(1000), 9, &Counts::default())
    }

    /// Promise: what was forgotten is never taken for new, and what is known is not bounded by it.
    #[test]
    fn oldest_task_is_forgotten_and_stays_forgotten() {
        let mut tasks = Tasks::default();
        let last = MAX_TASKS as u64 + 2;
        (2..=last).for_each(|created| tasks.keep(id(created), record(0, 0)));
        assert_eq!(tasks.known.len(), MAX_TASKS);
        assert!(tasks.has_forgotten(&id(2)), "the oldest");
        assert!(tasks.has_forgotten(&id(1)), "an older one may have been known before");
        assert!(!tasks.has_forgotten(&id(3)) && !tasks.has_forgotten(&id(last + 1)));
    }

    /// Promise: what would be forgotten by the next call is not begun by this one.
    #[test]
    fn task_that_is_older_than_all_that_fit_is_as_good_as_forgotten() {
        let mut tasks = Tasks::default();
        (2..=MAX_TASKS as u64).for_each(|created| tasks.keep(id(created), record(0, 0)));
        assert!(!tasks.has_forgotten(&id(1)), "there is room for one");
        tasks.keep(id(MAX_TASKS as u64 + 1), record(0, 0));
        assert_eq!((tasks.known.len(), &tasks.forgotten), (MAX_TASKS, &None));
        assert!(tasks.has_forgotten(&id(1)));
        assert!(!tasks.has_forgotten(&id(2)) && !tasks.has_forgotten(&id(99)));
    }

    #[test]
    fn rate_is_one_of_each_second() {
        let mut record = record(5, 2);
        assert_eq!(record.allowance(Timestamp(1999)), 0, "the shard before may have done two");
        assert_eq!(record.allowance(Timestamp(2000)), 2);
        (0..2).for_each(|_| record.count());
        assert_eq!((record.allowance(Timestamp(2999)), record.progress().state), (0, TaskState::Waiting));
        assert_eq!(record.allowance(Timestamp(3000)), 2);
        (0..2).for_each(|_| record.count());
        assert_eq!(record.allowance(Timestamp(4000)), 1, "of five");
    }
}
