//! Ordering keys of a queue: of each, only the first message is eligible, and only while none of it is in flight.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::dense::NumberSet;
use crate::message::{KeyId, Seq, State};

/// Parts of the table of keys. Each grows by itself, so that no message waits while a million keys are moved.
const PARTS: usize = 256;
/// Keys of a part below which its room is not worth giving back.
const FEW: usize = 64;

/// In no order, so that nothing can depend on one.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// None until there is a key.
    parts: Vec<Part>,
}

type Part = HashMap<KeyId, Line, BuildHasherDefault<AsIs>>;

/// All messages of a key but the Dead.
#[derive(Debug, Default)]
struct Line {
    waiting: NumberSet<Seq>,
    /// Not always the first of the line: a redriven message takes its old place before it.
    in_flight: Option<Seq>,
}

impl Keys {
    /// The first of the key, and which one is in flight.
    pub(crate) fn head(&self, key: KeyId) -> (Option<Seq>, Option<Seq>) {
        let line = self.parts.get(part_of(key)).and_then(|part| part.get(&key));
        (line.and_then(|line| line.waiting.first()), line.and_then(|line| line.in_flight))
    }

    pub(super) fn insert(&mut self, key: KeyId, seq: Seq, state: State) {
        match state {
            State::Dead => {}
            State::InFlight => self.line(key).in_flight = Some(seq),
            State::Ready | State::Delayed => _ = self.line(key).waiting.insert(seq),
        }
    }

    fn line(&mut self, key: KeyId) -> &mut Line {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Part::default);
        }
        self.parts[part_of(key)].entry(key).or_default()
    }

    pub(super) fn remove(&mut self, key: KeyId, seq: Seq) {
        let Some(part) = self.parts.get_mut(part_of(key)) else { return };
        let Some(line) = part.get_mut(&key) else { return };
        line.waiting.remove(seq);
        line.in_flight.take_if(|in_flight| *in_flight == seq);
        if line.waiting.is_empty() && line.in_flight.is_none() {
            part.remove(&key);
            give_back(part);
        }
    }
}

/// By other bits than those that a part places its keys by.
fn part_of(key: KeyId) -> usize {
    usize::from(key.0.to_le_bytes()[4])
}

/// Most of what was taken for keys that are gone.
fn give_back(part: &mut Part) {
    if part.capacity() > FEW && part.len() < part.capacity() / 8 {
        part.shrink_to(part.len() * 2);
    }
}

/// A key is a hash already, and a secret one.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
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
        let mut keys = Keys::default();
        let all = || (0..100_000_u64).map(|n| (KeyId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), Seq(n)));
        all().for_each(|(key, seq)| keys.insert(key, seq, State::Ready));
        assert!(all().all(|(key, seq)| keys.head(key) == (Some(seq), None)));
        all().skip(100).for_each(|(key, seq)| keys.remove(key, seq));
        let room: usize = keys.parts.iter().map(Part::capacity).sum();
        assert!(room <= 2 * FEW * PARTS, "{room}");
        assert!(all().take(100).all(|(key, seq)| keys.head(key) == (Some(seq), None)));
    }
}
