//! How a consumer's window is shared by the shards of a queue.

use ackwell_proto::Failure;
use ackwell_proto::v1::Window;

const DEFAULT_MESSAGES: u32 = 32;
const DEFAULT_BYTES: u64 = 16 << 20;
/// As brokers allow.
const MAX_MESSAGES: u32 = 10_000;
const MAX_BYTES: u64 = 256 << 20;

/// A window with its defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

impl Limits {
    /// Reads what the application asked for.
    pub(crate) fn parse(wanted: Option<&Window>) -> Result<Self, Failure> {
        let Window { max_messages, max_bytes } = wanted.copied().unwrap_or_default();
        if max_messages > MAX_MESSAGES || max_bytes > MAX_BYTES {
            let limits = format!("{MAX_MESSAGES} messages and {MAX_BYTES} bytes");
            return Err(Failure::invalid(format!("the window is too large: at most {limits}")));
        }
        Ok(Self {
            messages: if max_messages == 0 { DEFAULT_MESSAGES } else { max_messages },
            bytes: if max_bytes == 0 { DEFAULT_BYTES } else { max_bytes },
        })
    }

    pub(crate) fn wire(self) -> Window {
        Window { max_messages: self.messages, max_bytes: self.bytes }
    }

    /// The shares of shards of which the application holds `in_hand` and was granted `granted` messages.
    ///
    /// Interest is free and credit is scarce: a shard that fills its share gets what the others do not hold. Each of those
    /// keeps one all the same, or it would never be heard; that is beyond the window, and what comes so waits here until
    /// there is room, or goes back. Kept within the window it would be missing where all messages are on one shard.
    pub(crate) fn split(self, shards: &[Demand]) -> Vec<Self> {
        let is_hungry = |shard: &Demand| shard.in_hand >= shard.granted;
        let hungry = shards.iter().filter(|shard| is_hungry(shard)).count();
        if hungry == 0 || hungry == shards.len() {
            return self.shares(&even(self.messages, shards.len()));
        }
        let kept: u32 = shards.iter().filter(|shard| !is_hungry(shard)).map(|shard| shard.in_hand).sum();
        let mut rest = even(self.messages.saturating_sub(kept), hungry).into_iter();
        let share = |shard: &Demand| {
            if is_hungry(shard) { rest.next().unwrap_or(1) } else { shard.in_hand.max(1) }
        };
        self.shares(&shards.iter().map(share).collect::<Vec<_>>())
    }

    fn shares(self, messages: &[u32]) -> Vec<Self> {
        let bytes = |share: u32| {
            let bytes = u128::from(self.bytes) * u128::from(share) / u128::from(self.messages.max(1));
            u64::try_from(bytes).unwrap_or(u64::MAX).clamp(1, self.bytes.max(1))
        };
        messages.iter().map(|&messages| Self { messages, bytes: bytes(messages) }).collect()
    }
}

/// What a shard was granted, and how much of it the application has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) granted: u32,
    pub(crate) in_hand: u32,
}

fn even(total: u32, parts: usize) -> Vec<u32> {
    let count = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
    (0..count).map(|part| (total / count + u32::from(part < total % count)).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(messages: u32, shards: &[(u32, u32)]) -> Vec<u32> {
        let demands: Vec<_> = shards.iter().map(|&(granted, in_hand)| Demand { granted, in_hand }).collect();
        let limits = Limits { messages, bytes: 1 << 20 };
        limits.split(&demands).into_iter().map(|share| share.messages).collect()
    }

    /// With one shard the broker sees exactly what the application asked for.
    #[test]
    fn single_shard_gets_the_whole_window() {
        let limits = Limits { messages: 32, bytes: 1000 };
        for in_hand in [0, 32] {
            assert_eq!(limits.split(&[Demand { granted: 32, in_hand }]), [limits]);
        }
    }

    /// A shard with a backlog is not held back by shards without.
    #[test]
    fn hungry_shard_gets_what_others_leave() {
        assert_eq!(split(30, &[(10, 10), (10, 0), (10, 2)]), [28, 1, 2]);
        assert_eq!(split(30, &[(10, 10), (10, 10), (10, 0)]), [15, 15, 1]);
        assert_eq!(split(2, &[(1, 1), (1, 0)]), [2, 1]);
        assert_eq!(split(31, &[(10, 0), (10, 0), (10, 0)]), [11, 10, 10]);
    }

    /// Every shard is heard, and beyond the window there is no more than that takes.
    #[test]
    fn sum_of_shares_is_at_most_the_window_and_one_for_each_idle_shard() {
        for window in 1..40_u32 {
            for state in 0..27_u32 {
                let hand = |shard: u32| (window.div_ceil(3), state / 3_u32.pow(shard) % 3 * window / 6);
                let shares = split(window, &[hand(0), hand(1), hand(2)]);
                assert!(shares.iter().all(|share| *share >= 1), "{shares:?}");
                assert!(shares.iter().sum::<u32>() <= window.max(3) + 2, "{window} {state} {shares:?}");
            }
        }
    }

    /// Zero means the default, not nothing.
    #[test]
    fn absent_window_is_the_default() {
        assert_eq!(Limits::parse(None).unwrap(), Limits { messages: 32, bytes: 16 << 20 });
        assert!(Limits::parse(Some(&Window { max_messages: 10_001, max_bytes: 0 })).is_err());
    }
}
