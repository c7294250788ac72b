//! Tables in memory: what a store keeps, without a disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::Batch;
use super::{Changes, Entropy, Loaded, Meta, QueueState};
use crate::dense::{Page, PageNo};
use crate::memory::{Ended, FrozenMemory, Memorized, MemoryKey};
use crate::message::{Location, Payload, QueueId, Row};
use crate::messages::Summary;

type Rows = BTreeMap<PageNo, Arc<Page<Row>>>;

/// A checkpoint is written after every batch, so that there is no log.
pub(super) struct MemoryTables {
    /// No checkpoint is written ever.
    is_forgetful: bool,
    meta: Meta,
    queues: BTreeMap<QueueId, QueueState>,
    /// Shared with the engine, which fetches pages that it let go.
    rows: Arc<Mutex<Rows>>,
    checkpoints: u64,
    deliveries: BTreeMap<PageNo, Arc<Page<Ended>>>,
    memory: BTreeMap<MemoryKey, Memorized>,
    /// By [`Location::segment`], which counts them; those in front that are freed are left out.
    payloads: VecDeque<Option<Payload>>,
    /// Left out.
    forgotten: u64,
}

impl MemoryTables {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self {
            is_forgetful: false,
            meta: Meta::new(entropy),
            queues: BTreeMap::new(),
            rows: Arc::default(),
            checkpoints: 0,
            deliveries: BTreeMap::new(),
            memory: BTreeMap::new(),
            payloads: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Of payloads alone.
    pub(super) fn forgetful(entropy: Entropy) -> Self {
        Self { is_forgetful: true, ..Self::new(entropy) }
    }

    pub(super) fn is_forgetful(&self) -> bool {
        self.is_forgetful
    }

    /// Of its own from now on.
    pub(super) fn copy(&self) -> Self {
        Self {
            rows: Arc::new(Mutex::new(self.rows().clone())),
            queues: self.queues.clone(),
            deliveries: self.deliveries.clone(),
            memory: self.memory.clone(),
            payloads: self.payloads.clone(),
            ..*self
        }
    }

    pub(super) fn load(&mut self) -> Loaded {
        self.checkpoints = 0;
        let rows = Arc::clone(&self.rows);
        Loaded {
            meta: self.meta,
            queues: entries(&self.queues),
            rows: self.rows().iter().map(|(no, page)| (*no, Summary::of(page))).collect(),
            fetch: Arc::new(move |no| Arc::clone(&lock(&rows)[&no])),
            deliveries: entries(&self.deliveries),
            memory: entries(&self.memory),
        }
    }

    /// Since the last opening.
    pub(super) fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    pub(super) fn append(&mut self, batch: &Batch) -> Vec<Location> {
        let mut locations = Vec::new();
        batch.each_message(|message| {
            let segment = self.forgotten + self.payloads.len() as u64;
            self.payloads.push_back(Some(message.payload.clone()));
            locations.push(Location { segment, ..Location::NONE });
        });
        locations
    }

    pub(super) fn payload(&self, location: Location) -> Option<Payload> {
        self.payloads.get(self.at(location)?)?.clone()
    }

    pub(super) fn freed(&mut self, location: Location) {
        let payload = self.at(location).and_then(|at| self.payloads.get_mut(at));
        payload.into_iter().for_each(|payload| *payload = None);
        while self.payloads.pop_front_if(|payload| payload.is_none()).is_some() {
            self.forgotten += 1;
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        lock(&self.rows)
    }

    fn at(&self, location: Location) -> Option<usize> {
        usize::try_from(location.segment.checked_sub(self.forgotten)?).ok()
    }

    pub(super) fn commit(&mut self, changes: Changes) {
        self.meta = changes.meta;
        changes.queues.into_iter().for_each(|(id, queue)| put(&mut self.queues, id, queue));
        self.checkpoints += 1;
        let mut rows = self.rows();
        changes.rows.into_iter().for_each(|(no, page)| put(&mut rows, no, page));
        drop(rows);
        let FrozenMemory { deliveries, texts } = changes.memory;
        deliveries.into_iter().for_each(|(no, page)| put(&mut self.deliveries, no, page));
        texts.into_iter().for_each(|(key, entry)| put(&mut self.memory, key, entry));
    }
}

/// Nobody ends halfway through changing it.
fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries<K: Clone, V: Clone>(table: &BTreeMap<K, V>) -> Vec<(K, V)> {
    table.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => _ = table.insert(key, value),
        None => _ = table.remove(&key),
    }
}
