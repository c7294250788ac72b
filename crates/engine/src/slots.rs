//! Which shard a key belongs to: a rule that every process, in any language, computes alike.
//!
//! A key is hashed to one of [`SLOTS`] slots, and a slot to a shard by jump consistent hashing (Lamping, Veach 2014). With
//! another number of shards only those slots move that must: of the last shards when they go, to the new ones when they
//! come.

/// Far more than the shards of any queue.
pub const SLOTS: u16 = 4096;

/// One of [`SLOTS`] groups of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The key's: CRC-32C modulo [`SLOTS`].
    pub fn of(key: &str) -> Self {
        let slot = crc32c::crc32c(key.as_bytes()) % u32::from(SLOTS);
        Self(u16::try_from(slot).expect("below 4096"))
    }

    /// `None` from [`SLOTS`] on.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// Below [`SLOTS`].
    pub fn number(self) -> u16 {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// The ordinal of its shard among `shards`.
    pub fn shard(self, shards: u32) -> u32 {
        jump(u64::from(self.0), shards)
    }
}

/// The ordinal of the key's shard among `shards`.
pub fn shard_of(key: &str, shards: u32) -> u32 {
    Slot::of(key).shard(shards)
}

/// Jump consistent hash. The published algorithm divides floating-point numbers and rounds down; these are its integers.
pub fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0, 0);
    while next < u64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) << 31) / ((key >> 33) + 1);
    }
    u32::try_from(bucket).expect("below the number of buckets")
}

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SlotSet([u64; SlotSet::WORDS]);

impl SlotSet {
    const WORDS: usize = SLOTS as usize / 64;

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        self.0[word] & bit != 0
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        let (word, bit) = Self::place(slot);
        self.0[word] |= bit;
    }

    /// Those of them that the other one lacks.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= !other);
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        Slot::all().filter(|slot| self.contains(*slot))
    }

    fn place(slot: Slot) -> (usize, u64) {
        (usize::from(slot.0 / 64), 1 << (slot.0 % 64))
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        Self([0; Self::WORDS])
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Slot::number)).finish()
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule is public: what another language computes must agree. 0xE3069283 is the check value of CRC-32C.
    #[test]
    fn slot_is_the_crc32c_of_the_key() {
        assert_eq!(Slot::of("123456789").number(), (0xE306_9283_u32 % 4096) as u16);
        assert_eq!(Slot::of("").number(), 0);
    }

    /// The same, of the shard: by the published algorithm with its floating-point numbers.
    #[test]
    fn shard_is_the_jump_hash_of_the_slot() {
        for (slot, shards) in Slot::all().flat_map(|slot| [1, 2, 3, 7, 64].map(|shards| (slot, shards))) {
            let (mut key, mut bucket, mut next) = (u64::from(slot.number()), -1_i64, 0_i64);
            while next < i64::from(shards) {
                bucket = next;
                key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    reason = "as published"
                )]
                {
                    next = ((bucket + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
                }
            }
            assert_eq!(i64::from(slot.shard(shards)), bucket, "slot {slot:?} of {shards}");
        }
    }

    /// Promise: only what must move moves.
    #[test]
    fn slots_move_only_to_new_shards() {
        for (slot, shards) in Slot::all().flat_map(|slot| (1..20).map(move |shards| (slot, shards))) {
            let (before, after) = (slot.shard(shards), slot.shard(shards + 1));
            assert!(before == after || after == shards, "slot {slot:?} of {shards}");
        }
    }

    /// Every shard has its share, give or take a third.
    #[test]
    fn slots_spread_over_all_shards() {
        for shards in [1, 2, 3, 5, 8, 16] {
            let share = usize::from(SLOTS) / shards as usize;
            for shard in 0..shards {
                let slots = Slot::all().filter(|slot| slot.shard(shards) == shard).count();
                assert!(
                    (share * 2 / 3..=share * 4 / 3).contains(&slots),
                    "shard {shard} of {shards}: {slots}"
                );
            }
        }
    }
}
