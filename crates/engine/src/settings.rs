//! The rules of a queue, and the arithmetic of retries.

use crate::time::Timestamp;

/// How long the engine remembers requests and settled receipts, so that a caller may repeat a call whose answer it lost.
/// Longer than any retry of the sidecar (60 s), short enough that the memory stays small.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 120_000;

/// Farthest that a message can be scheduled ahead: long enough for "in a year", short enough that a wrong unit is noticed.
pub const MAX_DELAY_MS: u64 = 365 * 24 * 3_600_000;

/// What a queue allows. Zero means unlimited where a limit is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Held this long unless extended.
    pub ack_timeout_ms: u64,
    /// Extended at most this long.
    pub max_processing_ms: u64,
    /// Failed attempts after which a message is Dead.
    pub max_attempts: u32,
    /// Wait after a failed attempt.
    pub backoff: Backoff,
    /// Messages stored at once, in all states.
    pub max_messages: u64,
    /// Bytes of bodies stored at once.
    pub max_bytes: u64,
    /// Longest body.
    pub max_message_bytes: u64,
    /// Messages in flight at once.
    pub max_in_flight: u64,
    /// How long Dead messages are kept; 0: until they are redriven.
    pub dead_ms: u64,
    /// How long a dedup id is remembered.
    pub dedup_window_ms: u64,
    /// What becomes of a message whose ttl passed.
    pub expired: Expired,
    /// How much longer a message must have waited to come before one of the next higher priority. Priorities are head
    /// starts, so that nothing starves.
    pub priority_step_ms: u64,
}

/// What becomes of a message whose ttl passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Dead, kept for people to see.
    DeadLetter,
    /// Gone.
    Drop,
}

impl Settings {
    /// Until when a message is kept that is Dead since then.
    pub(crate) fn dead_until(&self, since: Timestamp) -> Timestamp {
        if self.dead_ms == 0 { Timestamp::NEVER } else { since.plus_ms(self.dead_ms) }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ack_timeout_ms: 30_000,
            max_processing_ms: 1_800_000,
            max_attempts: 10,
            backoff: Backoff { policy: BackoffPolicy::Exponential, min_ms: 1000, max_ms: 300_000 },
            max_messages: 0,
            max_bytes: 0,
            max_message_bytes: 1 << 20,
            max_in_flight: 100_000,
            dead_ms: 14 * 24 * 3_600_000,
            dedup_window_ms: 600_000,
            expired: Expired::DeadLetter,
            priority_step_ms: 600_000,
        }
    }
}

/// How the wait grows with the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// Always `min_ms`.
    Constant,
    /// `min_ms` times the attempts.
    Linear,
    /// Doubles with each attempt.
    Exponential,
}

/// The wait after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How it grows.
    pub policy: BackoffPolicy,
    /// After the first attempt.
    pub min_ms: u64,
    /// Never longer, jitter aside.
    pub max_ms: u64,
}

impl Backoff {
    /// The wait after `attempts` failures (1 after the first), spread by +-20 % so that messages which failed together do
    /// not come back together. `jitter` is any number that is the same on every replay.
    pub fn delay_ms(self, attempts: u32, jitter: u64) -> u64 {
        let steps = attempts.max(1);
        let base = match self.policy {
            BackoffPolicy::Constant => self.min_ms,
            BackoffPolicy::Linear => self.min_ms.saturating_mul(u64::from(steps)),
            BackoffPolicy::Exponential => {
                self.min_ms.saturating_mul(1u64.checked_shl(steps - 1).unwrap_or(u64::MAX))
            }
        };
        spread(base.min(self.max_ms), jitter)
    }
}

/// `base` times 0.8 to 1.2.
fn spread(base: u64, jitter: u64) -> u64 {
    const STEPS: u64 = 4096;
    let span = base / 5 * 2;
    (base - base / 5).saturating_add(
        u64::try_from(u128::from(span) * u128::from(jitter % STEPS) / u128::from(STEPS - 1))
            .expect("at most span"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Backoff = Backoff { policy: BackoffPolicy::Exponential, min_ms: 1000, max_ms: 300_000 };

    #[test]
    fn exponential_doubles_up_to_the_maximum() {
        let middle = 2048;
        let waits: Vec<u64> = (1..=10).map(|n| DEFAULT.delay_ms(n, middle) / 100 * 100).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16000, 32000, 64000, 128_000, 256_000, 300_000]);
    }

    proptest! {
        /// Promise: a wait is within 20 % of the policy's, whatever the attempt.
        #[test]
        fn delay_stays_within_a_fifth(attempts in any::<u32>(), jitter in any::<u64>(), min in 0u64..100_000, more in 0u64..1_000_000) {
            for policy in [BackoffPolicy::Constant, BackoffPolicy::Linear, BackoffPolicy::Exponential] {
                let backoff = Backoff { policy, min_ms: min, max_ms: min + more };
                let wait = backoff.delay_ms(attempts, jitter);
                prop_assert!(wait <= (min + more) / 5 * 6 + 6);
                prop_assert!(wait >= min - min / 5);
            }
        }
    }
}
