//! What the engine remembers for a while, so that a repeated call is answered like the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::Settled;
use crate::message::{Epoch, MessageId, QueueId, Seq};
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MemoryKey {
    /// A settled delivery.
    Delivery(Epoch),
    /// A caller's request id.
    Request(QueueId, String),
    /// A sender's dedup id.
    Dedup(QueueId, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    Settled(OutcomeKind, Settled),
    /// `None` where the item was refused: a repetition tries that one again.
    Sent(Vec<Option<MessageId>>),
    Received(Vec<(Seq, Epoch)>),
    Stored(MessageId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Ack,
    Nack,
    Release,
    Reject,
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memorized {
    pub(crate) until: Timestamp,
    pub(crate) what: Remembered,
}

/// Entries that forget themselves; tells which changed since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<MemoryKey, Memorized>,
    ends: BTreeSet<(Timestamp, MemoryKey)>,
    dirty: BTreeSet<MemoryKey>,
}

impl Memory {
    pub(crate) fn load(entries: Vec<(MemoryKey, Memorized)>) -> Self {
        let ends = entries.iter().map(|(key, entry)| (entry.until, key.clone())).collect();
        Self { entries: entries.into_iter().collect(), ends, dirty: BTreeSet::new() }
    }

    pub(crate) fn get(&self, key: &MemoryKey) -> Option<&Remembered> {
        self.entries.get(key).map(|entry| &entry.what)
    }

    pub(crate) fn put(&mut self, key: MemoryKey, until: Timestamp, what: Remembered) {
        self.remove(&key);
        self.ends.insert((until, key.clone()));
        self.dirty.insert(key.clone());
        self.entries.insert(key, Memorized { until, what });
    }

    /// Forgets what ended at `now` or before.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        while let Some((until, key)) = self.ends.first().cloned() {
            if until > now {
                return;
            }
            self.remove(&key);
        }
    }

    /// The changed keys with their entries; `None` for those that are gone.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&MemoryKey, Option<&Memorized>)> {
        self.dirty.iter().map(|key| (key, self.entries.get(key)))
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(crate) fn committed(&mut self) {
        self.dirty.clear();
    }

    fn remove(&mut self, key: &MemoryKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.ends.remove(&(entry.until, key.clone()));
            self.dirty.insert(key.clone());
        }
    }
}
