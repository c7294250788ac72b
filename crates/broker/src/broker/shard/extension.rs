//! When deliveries on a stream are extended, and what becomes of those whose stream broke.

use std::collections::{BTreeMap, HashSet};

use ackwell_engine::Timestamp;
use ackwell_engine::message::QueueId;
use bytes::Bytes;

/// How long a broken stream's deliveries wait for their consumer to come back with them.
pub(super) const RESUME_GRACE_MS: u64 = 5_000;
/// Extensions are commits: never more often than this, however short an ack timeout is.
const MIN_EXTEND_EVERY_MS: u64 = 300;

/// When to extend a delivery that ends at `deadline`: after a third of what is left, so that two may fail.
pub(super) fn extend_at(now: Timestamp, deadline: Timestamp) -> Timestamp {
    now.plus_ms((deadline.ms_since(now) / 3).max(MIN_EXTEND_EVERY_MS))
}

/// Deliveries whose stream broke.
#[derive(Default)]
pub(super) struct Orphans {
    by_end: BTreeMap<(Timestamp, u64), (QueueId, Vec<Bytes>)>,
    next: u64,
}

impl Orphans {
    pub(super) fn add(&mut self, now: Timestamp, queue: QueueId, receipts: Vec<Bytes>) {
        self.next += 1;
        self.by_end.insert((now.plus_ms(RESUME_GRACE_MS), self.next), (queue, receipts));
    }

    /// The consumer is back with these.
    pub(super) fn claim(&mut self, receipts: &HashSet<&Bytes>) {
        for (_, orphans) in self.by_end.values_mut() {
            orphans.retain(|receipt| !receipts.contains(receipt));
        }
    }

    /// Those whose consumer did not come back.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<(QueueId, Vec<Bytes>)> {
        let later = self.by_end.split_off(&(now.plus_ms(1), 0));
        std::mem::replace(&mut self.by_end, later).into_values().collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.by_end.keys().next().map(|(at, _)| *at)
    }
}
