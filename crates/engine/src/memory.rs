//! What the engine remembers for a while, so that a repeated call is answered like the first.

mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::command::{Sent, Settled};
use crate::dense::{Page, PageNo, Pages, Timers, number_at};
use crate::message::{Epoch, MessageId, QueueId, Seq};
use crate::moving::RememberedId;
use crate::time::Timestamp;
use shelf::Shelf;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MemoryKey {
    /// A settled delivery.
    Delivery(QueueId, Epoch),
    /// A caller's request id; [`QueueId::NONE`] for a call about several queues.
    Request(QueueId, Arc<str>),
    /// A sender's dedup id.
    Dedup(QueueId, Arc<str>),
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
/// before their time. At most 10 MB of deliveries and 70 MB of requests; `docs/delivery.md` says what forgetting early means.
pub(crate) const MAX_ITEMS: usize = 200_000;
/// Dedup ids remembered at most for a queue. These are never forgotten early: a send that finds no room is refused.
pub(crate) const MAX_DEDUP_IDS: usize = 1_000_000;

/// Entries that forget themselves; tells which changed since the last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By epoch, which names a delivery among all queues.
    deliveries: Pages<Epoch, Ended>,
    shelves: BTreeMap<QueueId, Shelves>,
    /// Requests and dedup ids that changed since the last checkpoint.
    dirty: BTreeSet<MemoryKey>,
}

/// A settled delivery.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) queue: QueueId,
    pub(crate) until: Timestamp,
    pub(crate) kind: OutcomeKind,
    pub(crate) settled: Settled,
}

/// What changed since the last time; `None` deletes.
#[derive(Debug)]
pub(crate) struct FrozenMemory {
    pub(crate) deliveries: Vec<(PageNo, Option<Arc<Page<Ended>>>)>,
    /// Requests and dedup ids.
    pub(crate) texts: Vec<(MemoryKey, Option<Memorized>)>,
}

/// What is remembered of one queue, so that none takes the room of another.
#[derive(Debug, Default)]
struct Shelves {
    /// When deliveries are forgotten.
    deliveries: Timers<Epoch>,
    delivery_count: usize,
    requests: Shelf,
    dedups: Shelf,
}

impl Memory {
    /// What [`Memory::freeze`] gave away once.
    pub(crate) fn load(
        deliveries: Vec<(PageNo, Arc<Page<Ended>>)>,
        texts: Vec<(MemoryKey, Memorized)>,
    ) -> Self {
        let mut memory = Self::default();
        texts.into_iter().for_each(|(key, entry)| memory.put(key, entry.until, entry.what));
        memory.dirty.clear();
        memory.deliveries = Pages::load(deliveries.iter().cloned());
        for (no, page) in deliveries {
            for (slot, ended) in page.iter() {
                let shelves = memory.shelves.entry(ended.queue).or_default();
                shelves.deliveries.insert(ended.until, number_at(no, slot));
                shelves.delivery_count += 1;
            }
        }
        memory
    }

    /// What changed since the last time.
    pub(crate) fn freeze(&mut self) -> FrozenMemory {
        let texts = std::mem::take(&mut self.dirty);
        let texts = texts.into_iter().map(|key| {
            let entry = self.entry(&key).cloned();
            (key, entry)
        });
        let texts = texts.collect();
        FrozenMemory { deliveries: self.deliveries.freeze(), texts }
    }

    pub(crate) fn get(&self, key: &MemoryKey, now: Timestamp) -> Option<Remembered> {
        let shelves = || self.shelves.get(&key.queue());
        match key {
            MemoryKey::Delivery(queue, epoch) => {
                self.settled(*queue, *epoch, now).map(|(kind, settled)| Remembered::Settled(kind, settled))
            }
            MemoryKey::Request(_, id) => shelves()?.requests.get(id, now).cloned(),
            MemoryKey::Dedup(_, id) => shelves()?.dedups.get(id, now).cloned(),
        }
    }

    /// How a delivery was settled.
    pub(crate) fn settled(
        &self,
        queue: QueueId,
        epoch: Epoch,
        now: Timestamp,
    ) -> Option<(OutcomeKind, Settled)> {
        let ended = self.deliveries.get(epoch)?;
        (ended.queue == queue && ended.until > now).then_some((ended.kind, ended.settled))
    }

    /// What was stored under a dedup id.
    pub(crate) fn stored(&self, queue: QueueId, dedup_id: &str, now: Timestamp) -> Option<MessageId> {
        match self.shelves.get(&queue)?.dedups.get(dedup_id, now)? {
            Remembered::Stored(id) => Some(*id),
            _ => None,
        }
    }

    pub(crate) fn put(&mut self, key: MemoryKey, until: Timestamp, what: Remembered) {
        let shelves = self.shelves.entry(key.queue()).or_default();
        match (&key, what) {
            (MemoryKey::Delivery(queue, epoch), Remembered::Settled(kind, settled)) => {
                self.put_settled(*queue, *epoch, until, (kind, settled));
                return;
            }
            // Of a delivery nothing else is ever asked.
            (MemoryKey::Delivery(..), _) => return,
            (MemoryKey::Request(_, id), what) => {
                shelves.requests.put(Arc::clone(id), Memorized { until, what });
            }
            (MemoryKey::Dedup(_, id), what) => {
                shelves.dedups.put(Arc::clone(id), Memorized { until, what });
            }
        }
        let queue = key.queue();
        self.dirty.insert(key);
        while shelves.requests.items() > MAX_ITEMS {
            let Some(id) = shelves.requests.pop_due(Timestamp::NEVER) else { break };
            self.dirty.insert(MemoryKey::Request(queue, id));
        }
    }

    pub(crate) fn put_settled(
        &mut self,
        queue: QueueId,
        epoch: Epoch,
        until: Timestamp,
        (kind, settled): (OutcomeKind, Settled),
    ) {
        let shelves = self.shelves.entry(queue).or_default();
        if let Some(before) = self.deliveries.insert(epoch, Ended { queue, until, kind, settled }) {
            shelves.deliveries.remove(before.until, epoch);
            shelves.delivery_count -= 1;
        }
        shelves.deliveries.insert(until, epoch);
        shelves.delivery_count += 1;
        while shelves.delivery_count > MAX_ITEMS {
            let Some(epoch) = shelves.pop_delivery(Timestamp::NEVER) else { break };
            self.deliveries.remove(epoch);
        }
    }

    /// How many more dedup ids of the queue can be remembered.
    pub(crate) fn dedup_room(&self, queue: QueueId) -> usize {
        MAX_DEDUP_IDS.saturating_sub(self.shelves.get(&queue).map_or(0, |shelves| shelves.dedups.items()))
    }

    /// Dedup ids that are remembered, behind `after`, by name.
    pub(crate) fn dedup_ids(
        &self,
        queue: QueueId,
        after: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = RememberedId> {
        let shelves = self.shelves.get(&queue).into_iter();
        let entries = shelves.flat_map(move |shelves| shelves.dedups.behind(after));
        entries.filter(move |(_, entry)| entry.until > now).filter_map(|(id, entry)| match entry.what {
            Remembered::Stored(message) => {
                Some(RememberedId { dedup_id: id.to_string(), message, until: entry.until })
            }
            _ => None,
        })
    }

    /// Until when a repeated call is answered from memory, about this queue or about several.
    pub(crate) fn remembers_until(&self, queue: QueueId) -> Option<Timestamp> {
        let shelves = [queue, QueueId::NONE].into_iter().filter_map(|queue| self.shelves.get(&queue));
        shelves.flat_map(|shelves| [shelves.deliveries.last(), shelves.requests.last()]).flatten().max()
    }

    /// Forgets what ended at `now` or before, at most `max` of each kind and queue.
    pub(crate) fn sweep(&mut self, now: Timestamp, max: usize) {
        for (queue, shelves) in &mut self.shelves {
            for epoch in std::iter::from_fn(|| shelves.pop_delivery(now)).take(max) {
                self.deliveries.remove(epoch);
            }
            let requests = std::iter::from_fn(|| shelves.requests.pop_due(now)).take(max);
            self.dirty.extend(requests.map(|id| MemoryKey::Request(*queue, id)));
            let dedups = std::iter::from_fn(|| shelves.dedups.pop_due(now)).take(max);
            self.dirty.extend(dedups.map(|id| MemoryKey::Dedup(*queue, id)));
        }
    }

    /// Forgets all about a queue.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        let Some(shelves) = self.shelves.remove(&queue) else { return };
        for epoch in shelves.deliveries.iter() {
            self.deliveries.remove(epoch);
        }
        self.dirty.extend(shelves.texts(queue).map(|(key, _)| key));
    }

    /// All entries, in an order that depends on nothing else.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (MemoryKey, Memorized)> {
        let deliveries = self.deliveries.iter();
        let deliveries =
            deliveries.map(|(epoch, ended)| (MemoryKey::Delivery(ended.queue, epoch), ended.memorized()));
        let texts = self.shelves.iter().flat_map(|(queue, shelves)| shelves.texts(*queue));
        deliveries.chain(texts.map(|(key, entry)| (key, entry.clone())))
    }

    fn entry(&self, key: &MemoryKey) -> Option<&Memorized> {
        let shelves = self.shelves.get(&key.queue())?;
        match key {
            MemoryKey::Delivery(..) => None,
            MemoryKey::Request(_, id) => shelves.requests.entry(id),
            MemoryKey::Dedup(_, id) => shelves.dedups.entry(id),
        }
    }
}

impl Shelves {
    /// Takes the delivery that ends first, if it has ended.
    fn pop_delivery(&mut self, now: Timestamp) -> Option<Epoch> {
        let epoch = self.deliveries.pop_due(now)?;
        self.delivery_count -= 1;
        Some(epoch)
    }

    fn texts(&self, queue: QueueId) -> impl Iterator<Item = (MemoryKey, &Memorized)> {
        let requests = self.requests.iter();
        let requests = requests.map(move |(id, entry)| (MemoryKey::Request(queue, Arc::clone(id)), entry));
        let dedups = self.dedups.iter();
        requests.chain(dedups.map(move |(id, entry)| (MemoryKey::Dedup(queue, Arc::clone(id)), entry)))
    }
}

impl Ended {
    fn memorized(&self) -> Memorized {
        Memorized { until: self.until, what: Remembered::Settled(self.kind, self.settled) }
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
