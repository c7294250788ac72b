//! Protobuf times from and to milliseconds, which is what the engine counts in.

use prost_types::{Duration, Timestamp};

/// A protobuf timestamp from milliseconds since 1970.
pub fn timestamp(millis: u64) -> Timestamp {
    Timestamp { seconds: seconds(millis), nanos: nanos(millis) }
}

/// A protobuf duration from milliseconds.
pub fn duration(millis: u64) -> Duration {
    Duration { seconds: seconds(millis), nanos: nanos(millis) }
}

/// Milliseconds since 1970; `None` for a malformed time or one before 1970.
pub fn timestamp_millis(timestamp: &Timestamp) -> Option<u64> {
    millis(timestamp.seconds, timestamp.nanos)
}

/// Milliseconds, rounded down; `None` for a malformed or negative duration.
pub fn duration_millis(duration: &Duration) -> Option<u64> {
    millis(duration.seconds, duration.nanos)
}

fn seconds(millis: u64) -> i64 {
    i64::try_from(millis / 1000).expect("u64::MAX / 1000 fits an i64")
}

fn nanos(millis: u64) -> i32 {
    i32::try_from(millis % 1000 * 1_000_000).expect("below one billion")
}

fn millis(seconds: i64, nanos: i32) -> Option<u64> {
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_survive_the_round_trip() {
        for value in [0, 1, 999, 1000, 1_764_000_000_123, u64::MAX] {
            assert_eq!(timestamp_millis(&timestamp(value)), Some(value));
            assert_eq!(duration_millis(&duration(value)), Some(value));
        }
    }

    #[test]
    fn malformed_times_are_none() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(duration_millis(&Duration { seconds, nanos }), None);
        }
    }
}
