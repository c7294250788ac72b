//! Receipts whose stream broke, for as long as their application may come back with them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Ten full windows. What does not fit is released when its grace is over, not blamed.
const MAX_ORPHANS: usize = 100_000;

/// Sealed receipts that nobody has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    receipts: Mutex<HashSet<Bytes>>,
}

impl Orphans {
    pub(crate) fn add(&self, receipts: &[Bytes]) {
        let mut orphans = self.lock();
        let room = MAX_ORPHANS.saturating_sub(orphans.len());
        orphans.extend(receipts.iter().take(room).cloned());
    }

    /// Takes the receipt; false when it is not here, or somebody was faster.
    pub(crate) fn claim(&self, receipt: &Bytes) -> bool {
        self.lock().remove(receipt)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Bytes>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
