//! What a handler says about its message when it is not simply done.

use std::time::Duration;

use ackwell_proto::v1::{Delivery, Settlement};

use crate::settlement::{ack, nack, reject, release};

/// Brokers keep the first KiB of a reason.
const MAX_REASON_BYTES: usize = 1024;

/// Why a handler did not end with success. Any error becomes [`Outcome::Failed`], so that `?` works in handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Failed: counts an attempt, and comes again after the queue's backoff.
    Failed(String),
    /// Failed: counts an attempt, and comes again after this time.
    Retry {
        /// 0: at once.
        after: Duration,
        /// For people.
        reason: String,
    },
    /// Never again: Dead at once, with the reason.
    Reject(String),
    /// Not processed: back to its place, free of charge.
    Release,
}

impl<E: std::error::Error> From<E> for Outcome {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The settlement after a handler.
pub(crate) fn settlement(delivery: &Delivery, ended: Result<(), Outcome>) -> Settlement {
    match ended {
        Ok(()) => ack(delivery),
        Err(Outcome::Failed(reason)) => nack(delivery, cut(&reason), None),
        Err(Outcome::Retry { after, reason }) => nack(delivery, cut(&reason), Some(after)),
        Err(Outcome::Reject(reason)) => reject(delivery, cut(&reason)),
        Err(Outcome::Release) => release(delivery),
    }
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reason that is too long is cut between characters, not refused.
    #[test]
    fn long_reason_is_cut_at_a_character() {
        let reason = "x".repeat(1023) + "ß";
        assert_eq!(cut(&reason), "x".repeat(1023));
        assert_eq!(cut("short"), "short");
    }
}
