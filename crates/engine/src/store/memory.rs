//! Tables in memory: what a store keeps, without a disk.

use std::collections::BTreeMap;

use super::record::Batch;
use super::{Changes, Entropy, Loaded, Meta, QueueState};
use crate::memory::{Memorized, MemoryKey};
use crate::message::{Location, Payload, QueueId, Row, Seq};

/// A checkpoint is written after every batch, so that there is no log.
#[derive(Clone)]
pub(super) struct MemoryTables {
    meta: Meta,
    queues: BTreeMap<QueueId, QueueState>,
    rows: BTreeMap<Seq, Row>,
    memory: BTreeMap<MemoryKey, Memorized>,
    payloads: BTreeMap<Location, Payload>,
    /// Takes the place of a segment's number.
    appended: u64,
}

impl MemoryTables {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self {
            meta: Meta::new(entropy),
            queues: BTreeMap::new(),
            rows: BTreeMap::new(),
            memory: BTreeMap::new(),
            payloads: BTreeMap::new(),
            appended: 0,
        }
    }

    pub(super) fn load(&self) -> Loaded {
        Loaded {
            meta: self.meta,
            queues: entries(&self.queues),
            rows: entries(&self.rows),
            memory: entries(&self.memory),
        }
    }

    pub(super) fn append(&mut self, batch: &Batch) -> Vec<Location> {
        let mut locations = Vec::new();
        batch.each_message(|message| {
            self.appended += 1;
            let location = Location { segment: self.appended, ..Location::NONE };
            self.payloads.insert(location, message.payload.clone());
            locations.push(location);
        });
        locations
    }

    pub(super) fn payload(&self, location: Location) -> Option<Payload> {
        self.payloads.get(&location).cloned()
    }

    pub(super) fn freed(&mut self, location: Location) {
        self.payloads.remove(&location);
    }

    pub(super) fn commit(&mut self, changes: Changes) {
        self.meta = changes.meta;
        changes.queues.into_iter().for_each(|(id, queue)| put(&mut self.queues, id, queue));
        changes.rows.into_iter().for_each(|(seq, row)| put(&mut self.rows, seq, row));
        changes.memory.into_iter().for_each(|(key, entry)| put(&mut self.memory, key, entry));
    }
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
