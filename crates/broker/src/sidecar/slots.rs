//! Which shard a key belongs to: the same one in every sidecar, for as long as the number of shards stays.
//!
//! A key is hashed to one of [`SLOTS`] slots, and the slots lie evenly over the shards, in order. There is no fail-over:
//! a key that went elsewhere while its shard is away would lose its order, and a dedup id its memory.

/// Far more than the shards of any queue, so that each gets its share within a percent or two.
const SLOTS: usize = 4096;

/// The ordinal of the key's shard.
pub(crate) fn shard_of(key: &str, shards: usize) -> usize {
    slot_of(key) * shards / SLOTS
}

/// CRC-32C, so that any language can tell the shard of a key.
fn slot_of(key: &str) -> usize {
    usize::try_from(crc32c::crc32c(key.as_bytes())).expect("32 bits fit") % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule is public: what another language computes must agree. 0xE3069283 is the check value of CRC-32C.
    #[test]
    fn slot_is_the_crc32c_of_the_key() {
        assert_eq!(slot_of("123456789"), 0xE306_9283 % SLOTS);
        assert_eq!(slot_of(""), 0);
    }

    /// Keys that differ in a digit spread, and every shard has keys.
    #[test]
    fn keys_spread_over_all_shards() {
        for shards in [1, 2, 3, 7, 64] {
            let mut counts = vec![0_usize; shards];
            (0..shards * 1000)
                .for_each(|number| counts[shard_of(&format!("customer-{number}"), shards)] += 1);
            assert!(counts.iter().all(|count| (700..1300).contains(count)), "{shards}: {counts:?}");
        }
    }
}
