//! A queue's settings from the wire, within the bounds that the engine's arithmetic is made for.

use ackwell_engine::Settings;
use ackwell_engine::settings::{Backoff, BackoffPolicy, Expired};
use ackwell_proto::Failure;
use ackwell_proto::v1::{self, QueueSettings};

/// Longest body that the API carries: a gRPC message must be held in memory whole.
const MAX_MESSAGE_BYTES: u64 = 16 << 20;

/// The engine's settings, or what is wrong with these.
pub(crate) fn settings(from: &QueueSettings) -> Result<Settings, Failure> {
    let backoff = from.backoff.unwrap_or_default();
    at_least_one("ackTimeoutSeconds", from.ack_timeout_seconds.into())?;
    at_least_one("maxAttempts", from.max_attempts.into())?;
    at_least_one("maxInFlight", from.max_in_flight)?;
    at_least_one("maxMessageBytes", from.max_message_bytes)?;
    if from.max_message_bytes > MAX_MESSAGE_BYTES {
        return Err(Failure::invalid(format!("maxMessageBytes is over {MAX_MESSAGE_BYTES}")));
    }
    Ok(Settings {
        ack_timeout_ms: millis(from.ack_timeout_seconds),
        max_processing_ms: millis(from.max_processing_seconds),
        max_attempts: from.max_attempts,
        backoff: Backoff {
            policy: policy(backoff.policy())?,
            min_ms: millis(backoff.min_seconds),
            max_ms: millis(backoff.max_seconds),
        },
        max_messages: from.max_messages,
        max_bytes: from.max_bytes,
        max_message_bytes: from.max_message_bytes,
        max_in_flight: from.max_in_flight,
        dead_ms: millis(from.dead_seconds),
        dedup_window_ms: millis(from.dedup_window_seconds),
        expired: if from.dead_letter_expired { Expired::DeadLetter } else { Expired::Drop },
        ..Settings::default()
    })
}

fn policy(policy: v1::BackoffPolicy) -> Result<BackoffPolicy, Failure> {
    match policy {
        v1::BackoffPolicy::Constant => Ok(BackoffPolicy::Constant),
        v1::BackoffPolicy::Linear => Ok(BackoffPolicy::Linear),
        v1::BackoffPolicy::Exponential => Ok(BackoffPolicy::Exponential),
        v1::BackoffPolicy::Unspecified => Err(Failure::invalid("backoff.policy is missing")),
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), Failure> {
    if value == 0 { Err(Failure::invalid(format!("{field} must be at least 1"))) } else { Ok(()) }
}

fn millis(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}
