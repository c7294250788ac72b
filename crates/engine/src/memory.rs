//! What the engine remembers for a while, so that a repeated call is answered like the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Sent, Settled};
use crate::message::{Epoch, MessageId, QueueId, Seq};
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MemoryKey {
    /// A settled delivery.
    Delivery(QueueId, Epoch),
    /// A caller's request id; [`QueueId::NONE`] for a call about several queues.
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
    Committed(Vec<Vec<Settled>>, Vec<Vec<Sent>>),
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

/// Settled deliveries and items of requests remembered at most, of each kind and queue: beyond it the oldest are forgotten
/// before their time. At most 40 MB of deliveries and 70 MB of requests; `docs/delivery.md` says what forgetting early means.
pub(crate) const MAX_ITEMS: usize = 200_000;
/// Dedup ids remembered at most for a queue. These are never forgotten early: a send that finds no room is refused.
pub(crate) const MAX_DEDUP_IDS: usize = 1_000_000;

/// Entries that forget themselves; tells which changed since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<MemoryKey, Memorized>,
    shelves: BTreeMap<QueueId, Shelves>,
    dirty: BTreeSet<MemoryKey>,
}

/// The entries of one queue, so that none takes the room of another.
#[derive(Debug, Default)]
struct Shelves {
    deliveries: Shelf,
    requests: Shelf,
    dedups: Shelf,
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
        let queue = key.queue();
        let kind = self.shelves.entry(queue).or_default().of(&key);
        kind.items += what.items();
        kind.ends.insert((until, key.clone()));
        self.dirty.insert(key.clone());
        self.entries.insert(key, Memorized { until, what });
        self.make_room(queue);
    }

    /// How many more dedup ids of the queue can be remembered.
    pub(crate) fn dedup_room(&self, queue: QueueId) -> usize {
        MAX_DEDUP_IDS.saturating_sub(self.shelves.get(&queue).map_or(0, |shelves| shelves.dedups.items))
    }

    /// Forgets what ended at `now` or before, at most `max` of each kind and queue.
    pub(crate) fn sweep(&mut self, now: Timestamp, max: usize) {
        let shelves = self.shelves.values().flat_map(Shelves::all);
        let ended: Vec<MemoryKey> = shelves.flat_map(|shelf| shelf.ended(now).take(max)).cloned().collect();
        ended.iter().for_each(|key| self.remove(key));
    }

    /// Forgets all about a queue.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        let Some(shelves) = self.shelves.remove(&queue) else { return };
        for (_, key) in shelves.all().into_iter().flat_map(|shelf| &shelf.ends) {
            self.entries.remove(key);
            self.dirty.insert(key.clone());
        }
    }

    /// All entries, in the order of their keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&MemoryKey, &Memorized)> {
        self.entries.iter()
    }

    /// The changed keys with their entries; `None` for those that are gone.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&MemoryKey, Option<&Memorized>)> {
        self.dirty.iter().map(|key| (key, self.entries.get(key)))
    }

    pub(crate) fn committed(&mut self) {
        self.dirty.clear();
    }

    fn remove(&mut self, key: &MemoryKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        let kind = self.shelves.entry(key.queue()).or_default().of(key);
        kind.items -= entry.what.items();
        kind.ends.remove(&(entry.until, key.clone()));
        self.dirty.insert(key.clone());
    }

    /// Forgets the oldest deliveries and requests of the queue beyond their bounds.
    fn make_room(&mut self, queue: QueueId) {
        while let Some(oldest) =
            self.shelves.get(&queue).and_then(|shelves| shelves.oldest_beyond(MAX_ITEMS)).cloned()
        {
            self.remove(&oldest);
        }
    }
}

impl Shelves {
    fn of(&mut self, key: &MemoryKey) -> &mut Shelf {
        match key {
            MemoryKey::Delivery(..) => &mut self.deliveries,
            MemoryKey::Request(..) => &mut self.requests,
            MemoryKey::Dedup(..) => &mut self.dedups,
        }
    }

    fn all(&self) -> [&Shelf; 3] {
        [&self.deliveries, &self.requests, &self.dedups]
    }

    fn oldest_beyond(&self, max_items: usize) -> Option<&MemoryKey> {
        let full = [&self.deliveries, &self.requests].into_iter().find(|shelf| shelf.items > max_items)?;
        full.ends.first().map(|(_, key)| key)
    }
}

impl Shelf {
    fn ended(&self, now: Timestamp) -> impl Iterator<Item = &MemoryKey> {
        self.ends.iter().take_while(move |(until, _)| *until <= now).map(|(_, key)| key)
    }
}

impl MemoryKey {
    /// The caller gave no request id.
    pub(crate) fn is_empty_request(&self) -> bool {
        matches!(self, Self::Request(_, id) if id.is_empty())
    }

    fn queue(&self) -> QueueId {
        match self {
            Self::Delivery(queue, _) | Self::Request(queue, _) | Self::Dedup(queue, _) => *queue,
        }
    }
}

impl Remembered {
    fn items(&self) -> usize {
        match self {
            Self::Settled(..) | Self::Stored(_) => 1,
            Self::Sent(answers) => answers.len(),
            Self::Received(held) => held.len(),
            Self::Committed(settled, sent) => {
                settled.iter().map(Vec::len).sum::<usize>() + sent.iter().map(Vec::len).sum::<usize>()
            }
        }
    }
}
