//! Ordering keys of a queue: of each, only the first message is eligible, and only while none of it is in flight.

use std::collections::BTreeMap;

use crate::dense::NumberSet;
use crate::message::{KeyId, Seq, State};
use crate::slots::Slot;

#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_key: BTreeMap<KeyId, Line>,
}

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
        let line = self.by_key.get(&key);
        (line.and_then(|line| line.waiting.first()), line.and_then(|line| line.in_flight))
    }

    /// Keys of the slot with messages.
    pub(super) fn of(&self, slot: Slot) -> impl Iterator<Item = KeyId> {
        self.by_key.range(KeyId::first_of(slot)..=KeyId::last_of(slot)).map(|(key, _)| *key)
    }

    /// Whether the slot has any.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.of(slot).next().is_some()
    }

    pub(super) fn insert(&mut self, key: KeyId, seq: Seq, state: State) {
        match state {
            State::Dead => {}
            State::InFlight => self.by_key.entry(key).or_default().in_flight = Some(seq),
            State::Ready | State::Delayed => _ = self.by_key.entry(key).or_default().waiting.insert(seq),
        }
    }

    pub(super) fn remove(&mut self, key: KeyId, seq: Seq) {
        let Some(line) = self.by_key.get_mut(&key) else { return };
        line.waiting.remove(seq);
        line.in_flight.take_if(|in_flight| *in_flight == seq);
        if line.waiting.is_empty() && line.in_flight.is_none() {
            self.by_key.remove(&key);
        }
    }
}
