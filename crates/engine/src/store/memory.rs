//! Tables in memory: what a store keeps, without a disk.

use std::collections::BTreeMap;

use super::{Changes, Entropy, Loaded, Meta, QueueRecord};
use crate::memory::{Memorized, MemoryKey};
use crate::message::{Payload, QueueId, Row, Seq};

#[derive(Clone)]
pub(super) struct MemoryTables {
    meta: Meta,
    queues: BTreeMap<QueueId, QueueRecord>,
    rows: BTreeMap<Seq, Row>,
    payloads: BTreeMap<Seq, Payload>,
    memory: BTreeMap<MemoryKey, Memorized>,
}

impl MemoryTables {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self {
            meta: Meta::new(entropy),
            queues: BTreeMap::new(),
            rows: BTreeMap::new(),
            payloads: BTreeMap::new(),
            memory: BTreeMap::new(),
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

    pub(super) fn payload(&self, seq: Seq) -> Option<Payload> {
        self.payloads.get(&seq).cloned()
    }

    pub(super) fn commit(&mut self, changes: &Changes<'_>) {
        self.meta = changes.meta;
        self.payloads.extend(changes.payloads.iter().cloned());
        changes.queues.iter().for_each(|(id, queue)| put(&mut self.queues, id, *queue));
        changes.memory.iter().for_each(|(key, entry)| put(&mut self.memory, key, *entry));
        for (seq, row) in &changes.rows {
            put(&mut self.rows, seq, *row);
            if row.is_none() {
                self.payloads.remove(seq);
            }
        }
    }
}

fn entries<K: Clone, V: Clone>(table: &BTreeMap<K, V>) -> Vec<(K, V)> {
    table.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn put<K: Clone + Ord, V: Clone>(table: &mut BTreeMap<K, V>, key: &K, value: Option<&V>) {
    match value {
        Some(value) => _ = table.insert(key.clone(), value.clone()),
        None => _ = table.remove(key),
    }
}
