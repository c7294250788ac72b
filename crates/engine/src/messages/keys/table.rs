//! A table that is asked for keys, and tells them sorted: nothing can depend on the order in which they lie.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::message::KeyId;

/// Parts of a table. Each grows by itself, so that no message waits while a million keys are moved.
const PARTS: usize = 256;
/// Keys of a part below which its room is not worth giving back.
const FEW: usize = 64;

/// Values by key.
#[derive(Debug)]
pub(super) struct Table<V> {
    /// None until there is a key.
    parts: Vec<Part<V>>,
}

type Part<V> = HashMap<KeyId, V, BuildHasherDefault<AsIs>>;

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<V: Default> Table<V> {
    pub(super) fn get(&self, key: KeyId) -> Option<&V> {
        self.parts.get(part_of(key))?.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: KeyId) -> Option<&mut V> {
        self.parts.get_mut(part_of(key))?.get_mut(&key)
    }

    /// Those that are wanted.
    pub(super) fn keys(&self, is_wanted: impl Fn(KeyId) -> bool) -> BTreeSet<KeyId> {
        self.parts.iter().flat_map(Part::keys).copied().filter(|key| is_wanted(*key)).collect()
    }

    /// The value of the key, new if there was none.
    pub(super) fn entry(&mut self, key: KeyId) -> &mut V {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Part::default);
        }
        self.parts[part_of(key)].entry(key).or_default()
    }

    pub(super) fn remove(&mut self, key: KeyId) {
        let Some(part) = self.parts.get_mut(part_of(key)) else { return };
        part.remove(&key);
        if part.capacity() > FEW && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2);
        }
    }
}

/// By other bits than those that a part places its keys by.
fn part_of(key: KeyId) -> usize {
    usize::from(key.0.to_le_bytes()[4])
}

/// A key is a hash already, and a secret one but for its high bits, which say its slot. A table tells keys that lie together
/// apart by these: other bits of the key are mixed in.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, key: u64) {
        self.0 = key ^ key << 40;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_of_keys_that_are_gone_is_given_back() {
        let mut table = Table::default();
        let all = || (0..100_000_u64).map(|n| (KeyId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), n));
        all().for_each(|(key, n)| *table.entry(key) = n);
        assert!(all().all(|(key, n)| table.get(key) == Some(&n)));
        all().skip(100).for_each(|(key, _)| table.remove(key));
        let room: usize = table.parts.iter().map(Part::capacity).sum();
        assert!(room <= 2 * FEW * PARTS, "{room}");
        assert!(all().take(100).all(|(key, n)| table.get_mut(key) == Some(&mut n.clone())));
        assert_eq!(table.keys(|_| true), all().take(100).map(|(key, _)| key).collect());
        assert!(all().skip(100).all(|(key, _)| table.get(key).is_none()));
    }
}
