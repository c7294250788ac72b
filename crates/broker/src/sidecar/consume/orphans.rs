//! Receipts whose stream broke, for as long as their application may come back with them.
//!
//! An application may be back before its broken stream was noticed: what it claims then never becomes an orphan.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Ten full windows. What does not fit is released when its grace is over, not blamed.
const MAX_ORPHANS: usize = 100_000;

/// Names a stream of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

/// Sealed receipts that nobody has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct Orphans(Mutex<Receipts>);

#[derive(Debug, Default)]
struct Receipts {
    orphans: HashSet<Bytes>,
    /// Claimed by these streams while they were no orphans, perhaps not yet.
    claimed: HashMap<Bytes, StreamId>,
    streams: u64,
}

impl Orphans {
    /// A stream begins, and will [claim](Self::claim_for) what its application holds.
    pub(crate) fn enter(&self) -> StreamId {
        let mut receipts = self.lock();
        receipts.streams += 1;
        StreamId(receipts.streams)
    }

    /// The stream ends: what it holds is its own to give back.
    pub(crate) fn leave(&self, stream: StreamId) {
        self.lock().claimed.retain(|_, by| *by != stream);
    }

    /// Their stream broke.
    pub(crate) fn add(&self, broken: &[Bytes]) {
        let Receipts { orphans, claimed, .. } = &mut *self.lock();
        let unclaimed = broken.iter().filter(|receipt| claimed.remove(*receipt).is_none());
        let room = MAX_ORPHANS.saturating_sub(orphans.len());
        orphans.extend(unclaimed.take(room).cloned());
    }

    /// The application of that stream holds the receipt.
    pub(crate) fn claim_for(&self, stream: StreamId, receipt: &Bytes) {
        let Receipts { orphans, claimed, .. } = &mut *self.lock();
        if !orphans.remove(receipt) && claimed.len() < MAX_ORPHANS {
            claimed.insert(receipt.clone(), stream);
        }
    }

    /// Takes the receipt; false when it is not here, or somebody was faster.
    pub(crate) fn claim(&self, receipt: &Bytes) -> bool {
        self.lock().orphans.remove(receipt)
    }

    fn lock(&self) -> MutexGuard<'_, Receipts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what an application came back with is not lost for it, whether its broken stream was noticed before or after.
    #[test]
    fn claimed_receipt_is_no_orphan() {
        let (orphans, kept, lost) = (Orphans::default(), Bytes::from("kept"), Bytes::from("lost"));
        let both = [kept.clone(), lost.clone()];
        let next = orphans.enter();
        orphans.claim_for(next, &kept);
        orphans.add(&both);
        assert_eq!((orphans.claim(&kept), orphans.claim(&lost)), (false, true));
        orphans.add(&both);
        orphans.claim_for(next, &kept);
        assert_eq!((orphans.claim(&kept), orphans.claim(&lost)), (false, true));
    }

    /// Promise: a stream that came back and broke again leaves orphans as every other does.
    #[test]
    fn claims_end_with_their_stream() {
        let (orphans, kept) = (Orphans::default(), Bytes::from("kept"));
        let next = orphans.enter();
        orphans.claim_for(next, &kept);
        orphans.leave(next);
        orphans.add(std::slice::from_ref(&kept));
        assert!(orphans.claim(&kept));
    }
}
