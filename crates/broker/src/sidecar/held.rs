//! What the application received and has not settled, so that it can be given back when the pod ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ackwell_proto::timestamp_millis;
use ackwell_proto::v1::{Delivery, ExtendResult, SettleResult};
use bytes::Bytes;

/// About 100 bytes each. What does not fit comes back by its ack timeout instead.
const MAX_HELD: usize = 20_000;

/// Sealed receipts with their ack deadlines. Holds no bodies.
#[derive(Debug, Default)]
pub(crate) struct Held {
    deadlines: Mutex<HashMap<Bytes, u64>>,
}

impl Held {
    /// Remembers what is being handed to the application.
    pub(crate) fn add(&self, deliveries: &[Delivery], now_ms: u64) {
        let mut deadlines = self.lock();
        if deadlines.len() + deliveries.len() > MAX_HELD {
            deadlines.retain(|_, deadline| *deadline > now_ms);
        }
        let room = MAX_HELD.saturating_sub(deadlines.len());
        let entry =
            |delivery: &Delivery| (delivery.receipt.clone(), deadline_ms(delivery.ack_deadline.as_ref()));
        deadlines.extend(deliveries.iter().take(room).map(entry));
    }

    /// Forgets what was settled. An error may be an outage: that one is kept.
    pub(crate) fn settled<'a>(&self, results: impl IntoIterator<Item = (&'a Bytes, &'a SettleResult)>) {
        let mut deadlines = self.lock();
        for (receipt, result) in results {
            if result.error.is_none() {
                deadlines.remove(receipt);
            }
        }
    }

    /// Follows extensions.
    pub(crate) fn extended<'a>(&self, results: impl IntoIterator<Item = (&'a [u8], &'a ExtendResult)>) {
        let mut deadlines = self.lock();
        for (receipt, result) in results {
            if let Some(deadline) = deadlines.get_mut(receipt).filter(|_| result.error.is_none()) {
                *deadline = deadline_ms(result.ack_deadline.as_ref());
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Everything that is still held at `now_ms`; nothing is remembered after.
    pub(crate) fn take(&self, now_ms: u64) -> Vec<Bytes> {
        let deadlines = std::mem::take(&mut *self.lock());
        deadlines.into_iter().filter(|(_, deadline)| *deadline > now_ms).map(|(receipt, _)| receipt).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Bytes, u64>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery without a deadline is held until settled.
fn deadline_ms(deadline: Option<&prost_types::Timestamp>) -> u64 {
    deadline.and_then(timestamp_millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ackwell_proto::timestamp;

    use super::*;

    fn delivery(receipt: u32, deadline_ms: u64) -> Delivery {
        Delivery {
            receipt: Bytes::copy_from_slice(&receipt.to_be_bytes()),
            ack_deadline: Some(timestamp(deadline_ms)),
            ..Delivery::default()
        }
    }

    /// Only what is still held is given back at the end.
    #[test]
    fn settled_and_expired_are_not_taken() {
        let held = Held::default();
        let deliveries = [delivery(1, 100), delivery(2, 100), delivery(3, 10)];
        held.add(&deliveries, 0);
        held.settled([(&deliveries[0].receipt, &SettleResult::default())]);
        assert_eq!(held.take(50), [deliveries[1].receipt.clone()]);
        assert_eq!(held.len(), 0);
    }

    /// An extended delivery is held until its new deadline.
    #[test]
    fn extended_is_taken_after_its_first_deadline() {
        let held = Held::default();
        held.add(&[delivery(1, 10)], 0);
        let result = ExtendResult { ack_deadline: Some(timestamp(100)), error: None };
        held.extended([(1_u32.to_be_bytes().as_slice(), &result)]);
        assert_eq!(held.take(50).len(), 1);
    }

    /// The memory is bounded; what expired makes room first.
    #[test]
    fn full_registry_makes_room_of_expired_only() {
        let held = Held::default();
        for receipt in 0..u32::try_from(MAX_HELD).unwrap() {
            held.add(&[delivery(receipt, if receipt == 0 { 10 } else { 1000 })], 0);
        }
        held.add(&[delivery(u32::MAX, 1000)], 20);
        assert_eq!(held.len(), MAX_HELD);
        held.add(&[delivery(u32::MAX - 1, 1000)], 20);
        assert_eq!(held.len(), MAX_HELD);
    }
}
