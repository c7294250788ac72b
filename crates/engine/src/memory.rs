//! What the engine remembers for a while, so that a repeated call is answered like the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Sent, Settled};
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
    Sent(Vec<Option<Sent>>),
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

/// Settled deliveries and items of requests remembered at most, of each kind: beyond it the oldest are forgotten before
/// their time. At most 40 MB of deliveries and 70 MB of requests; `docs/delivery.md` says what forgetting early means.
pub(crate) const MAX_ITEMS: usize = 200_000;
/// Dedup ids remembered at most. These are never forgotten early: a send that finds no room is refused.
pub(crate) const MAX_DEDUP_IDS: usize = 1_000_000;

/// Entries that forget themselves; tells which changed since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<MemoryKey, Memorized>,
    deliveries: Shelf,
    requests: Shelf,
    dedups: Shelf,
    dirty: BTreeSet<MemoryKey>,
}

/// Entries of one kind by their end.
#[derive(Debug, Default)]
struct Shelf {
    ends: BTreeSet<(Timestamp, MemoryKey)>,
    items: usize,
}

impl Memory {
    pub(crate) fn load(entries: Vec<(MemoryKey, Memorized)>) -> Self {
        let mut memory = Self::default();
        for (key, entry) in entries {
            memory.put(key, entry.until, entry.what);
        }
        memory.dirty.clear();
        memory
    }

    pub(crate) fn get(&self, key: &MemoryKey, now: Timestamp) -> Option<&Remembered> {
        self.entries.get(key).filter(|entry| entry.until > now).map(|entry| &entry.what)
    }

    pub(crate) fn put(&mut self, key: MemoryKey, until: Timestamp, what: Remembered) {
        self.remove(&key);
        let kind = self.shelf(&key);
        kind.items += what.items();
        kind.ends.insert((until, key.clone()));
        self.dirty.insert(key.clone());
        self.entries.insert(key, Memorized { until, what });
        self.make_room();
    }

    /// How many more dedup ids can be remembered.
    pub(crate) fn dedup_room(&self) -> usize {
        MAX_DEDUP_IDS.saturating_sub(self.dedups.items)
    }

    /// Forgets what ended at `now` or before, at most `max` of each kind.
    pub(crate) fn sweep(&mut self, now: Timestamp, max: usize) {
        let ended = |shelf: &Shelf| -> Vec<MemoryKey> {
            let ended = shelf.ends.iter().take_while(|(until, _)| *until <= now);
            ended.take(max).map(|(_, key)| key.clone()).collect()
        };
        let ended = [&self.deliveries, &self.requests, &self.dedups].map(ended);
        ended.iter().flatten().for_each(|key| self.remove(key));
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
        let Some(entry) = self.entries.remove(key) else { return };
        let kind = self.shelf(key);
        kind.items -= entry.what.items();
        kind.ends.remove(&(entry.until, key.clone()));
        self.dirty.insert(key.clone());
    }

    /// Forgets the oldest deliveries and requests beyond their bounds.
    fn make_room(&mut self) {
        while let Some(oldest) =
            [&self.deliveries, &self.requests].iter().find_map(|shelf| shelf.oldest_beyond(MAX_ITEMS))
        {
            self.remove(&oldest);
        }
    }

    fn shelf(&mut self, key: &MemoryKey) -> &mut Shelf {
        match key {
            MemoryKey::Delivery(_) => &mut self.deliveries,
            MemoryKey::Request(..) => &mut self.requests,
            MemoryKey::Dedup(..) => &mut self.dedups,
        }
    }
}

impl Shelf {
    fn oldest_beyond(&self, max_items: usize) -> Option<MemoryKey> {
        let (_, oldest) = self.ends.first()?;
        (self.items > max_items).then(|| oldest.clone())
    }
}

impl Remembered {
    fn items(&self) -> usize {
        match self {
            Self::Settled(..) | Self::Stored(_) => 1,
            Self::Sent(answers) => answers.len(),
            Self::Received(held) => held.len(),
        }
    }
}
