//! The rules of a queue.

use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};
use crate::store::encoding::{Reader, Writer};

pub(in crate::store) fn encode_settings(out: &mut Writer, settings: &Settings) {
    let Settings {
        ack_timeout_ms,
        max_processing_ms,
        max_attempts,
        backoff,
        max_messages,
        max_bytes,
        max_message_bytes,
        max_in_flight,
        dead_ms,
        dedup_window_ms,
        expired,
        priority_step_ms,
    } = settings;
    out.u64(*ack_timeout_ms).u64(*max_processing_ms).u32(*max_attempts);
    out.u8(backoff.policy as u8).u64(backoff.min_ms).u64(backoff.max_ms);
    out.u64(*max_messages).u64(*max_bytes).u64(*max_message_bytes).u64(*max_in_flight);
    out.u64(*dead_ms).u64(*dedup_window_ms).u8(*expired as u8);
    out.u64(*priority_step_ms);
}

pub(in crate::store) fn decode_settings(input: &mut Reader<'_>) -> Option<Settings> {
    Some(Settings {
        ack_timeout_ms: input.u64()?,
        max_processing_ms: input.u64()?,
        max_attempts: input.u32()?,
        backoff: Backoff {
            policy: input.one_of([
                BackoffPolicy::Constant,
                BackoffPolicy::Linear,
                BackoffPolicy::Exponential,
            ])?,
            min_ms: input.u64()?,
            max_ms: input.u64()?,
        },
        max_messages: input.u64()?,
        max_bytes: input.u64()?,
        max_message_bytes: input.u64()?,
        max_in_flight: input.u64()?,
        dead_ms: input.u64()?,
        dedup_window_ms: input.u64()?,
        expired: input.one_of([Expired::DeadLetter, Expired::Drop])?,
        priority_step_ms: input.u64()?,
    })
}
