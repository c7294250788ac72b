//! What the engine's thread measures for `/metrics`, read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds: an idle fast disk syncs in less than the first, a disk that is over its limit takes the last.
pub(crate) const COMMIT_SECONDS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Cheap to update, and to share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    commits: [AtomicU64; COMMIT_SECONDS.len() + 1],
    commit_nanos: AtomicU64,
    store_failures: AtomicU64,
    is_disk_full: AtomicBool,
}

impl Measures {
    /// A commit was durable and applied so long after it was begun.
    pub(super) fn committed(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket =
            COMMIT_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(COMMIT_SECONDS.len());
        self.0.commits[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn store_failed(&self) {
        self.0.store_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn publish_disk(&self, is_full: bool) {
        self.0.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    /// Commits, by the bound that they took less than, and the sum in seconds.
    pub(crate) fn commits(&self) -> (Vec<u64>, f64) {
        let counts = self.0.commits.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, Duration::from_nanos(self.0.commit_nanos.load(Ordering::Relaxed)).as_secs_f64())
    }

    /// How often the store failed and was opened again.
    pub(crate) fn store_failures(&self) -> u64 {
        self.0.store_failures.load(Ordering::Relaxed)
    }

    /// Whether senders are refused for want of room.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.0.is_disk_full.load(Ordering::Relaxed)
    }
}
