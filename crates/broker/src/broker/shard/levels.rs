//! How full queues are, for those who send: published by the engine's thread, read without asking it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ackwell_engine::message::QueueId;
use ackwell_engine::{Counts, Engine};

/// Of one queue.
#[derive(Default)]
pub(crate) struct Level {
    messages: AtomicU64,
    bytes: AtomicU64,
    is_disk_full: AtomicBool,
}

impl Level {
    /// Stored messages, in whatever state.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Of their bodies.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nothing is stored at the moment, whatever the queue's limits.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set_messages(&self, messages: u64) {
        self.messages.store(messages, Ordering::Relaxed);
    }

    fn set(&self, counts: &Counts) {
        let Counts { ready, delayed, in_flight, dead, bytes } = counts;
        self.messages.store(ready + delayed + in_flight + dead, Ordering::Relaxed);
        self.bytes.store(*bytes, Ordering::Relaxed);
    }
}

/// Of the queues that somebody looks at.
#[derive(Clone, Default)]
pub(crate) struct Levels(Arc<Mutex<HashMap<QueueId, Arc<Level>>>>);

impl Levels {
    pub(super) fn of(&self, queue: QueueId) -> Arc<Level> {
        Arc::clone(self.lock().entry(queue).or_default())
    }

    pub(super) fn publish(&self, engine: &Engine) {
        for (queue, level) in self.lock().iter() {
            level.set(&engine.stats(*queue).counts);
        }
    }

    pub(super) fn publish_disk(&self, is_full: bool) {
        self.lock().values().for_each(|level| level.is_disk_full.store(is_full, Ordering::Relaxed));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<QueueId, Arc<Level>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
