//! Outcomes of deliveries.

use std::time::Duration;

use ackwell_proto::v1::settlement::Outcome;
use ackwell_proto::v1::{Ack, Delivery, Nack, Reject, Release, Settlement};

/// Done: the message is gone.
pub fn ack(delivery: &Delivery) -> Settlement {
    settle(delivery, Outcome::Ack(Ack {}))
}

/// Failed: counts an attempt; comes back after `delay`, or after the queue's backoff.
pub fn nack(delivery: &Delivery, reason: impl Into<String>, delay: Option<Duration>) -> Settlement {
    let delay = delay.map(crate::client::wire_duration);
    settle(delivery, Outcome::Nack(Nack { delay, reason: reason.into() }))
}

/// Not processed: back to its place, free of charge.
pub fn release(delivery: &Delivery) -> Settlement {
    settle(delivery, Outcome::Release(Release {}))
}

/// Never again: Dead at once.
pub fn reject(delivery: &Delivery, reason: impl Into<String>) -> Settlement {
    settle(delivery, Outcome::Reject(Reject { reason: reason.into() }))
}

fn settle(delivery: &Delivery, outcome: Outcome) -> Settlement {
    Settlement { receipt: delivery.receipt.clone(), outcome: Some(outcome) }
}
