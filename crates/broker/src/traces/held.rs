//! Deliveries of recorded messages that are not settled: a settlement names a receipt, and not the trace.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::context::Context;

/// About 300 bytes each. The oldest give way: whoever holds so many that are recorded samples too many.
const MAX_HELD: usize = 4096;

/// A delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Delivered {
    pub(super) context: Context,
    pub(super) id: String,
    /// When it was handed out.
    pub(super) since: u64,
}

/// By receipt.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// So that who holds none pays nothing.
    count: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_receipt: HashMap<Bytes, Delivered>,
    /// In the order in which they came, with some that are settled.
    order: VecDeque<Bytes>,
}

impl Held {
    pub(super) fn add(&self, deliveries: impl Iterator<Item = (Bytes, Delivered)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (receipt, delivered) in deliveries {
            known.add(receipt, delivered);
        }
        self.count.store(known.by_receipt.len(), Ordering::Relaxed);
    }

    /// They are settled.
    pub(super) fn take<'a>(&self, receipts: impl Iterator<Item = &'a Bytes>) -> Vec<Option<Delivered>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = receipts.map(|receipt| known.by_receipt.remove(receipt)).collect();
        self.count.store(known.by_receipt.len(), Ordering::Relaxed);
        taken
    }
}

impl Known {
    fn add(&mut self, receipt: Bytes, delivered: Delivered) {
        while self.by_receipt.len() >= MAX_HELD
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_receipt.remove(&oldest);
        }
        if self.order.len() >= 2 * MAX_HELD {
            self.order.retain(|receipt| self.by_receipt.contains_key(receipt));
        }
        self.order.push_back(receipt.clone());
        self.by_receipt.insert(receipt, delivered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(held: &Held, number: usize) -> Bytes {
        let receipt = Bytes::from(number.to_string());
        let delivered = Delivered { context: Context::root(), id: number.to_string(), since: 0 };
        held.add([(receipt.clone(), delivered)].into_iter());
        receipt
    }

    /// Promise: an application that never settles, or settles everything, makes us keep no more than the bound.
    #[test]
    fn memory_is_bounded() {
        let (lazy, busy) = (Held::default(), Held::default());
        for number in 0..3 * MAX_HELD {
            add(&lazy, number);
            let receipt = add(&busy, number);
            assert!(busy.take([&receipt].into_iter())[0].is_some());
        }
        let size = |held: &Held| {
            let known = held.known.lock().unwrap();
            (known.by_receipt.len(), known.order.len() <= 2 * MAX_HELD)
        };
        assert_eq!((size(&lazy), size(&busy)), ((MAX_HELD, true), (0, true)));
    }

    /// The newest stay; a receipt is taken once.
    #[test]
    fn oldest_gives_way() {
        let held = Held::default();
        let receipts: Vec<_> = (0..=MAX_HELD).map(|number| add(&held, number)).collect();
        let taken = held.take([&receipts[0], &receipts[1], &receipts[1]].into_iter());
        assert_eq!(taken.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    }
}
