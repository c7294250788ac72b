//! Ordering keys of a queue: of each, only the first message is eligible, and only while none of it is in flight.

mod table;

use std::collections::BTreeSet;

use crate::dense::NumberSet;
use crate::message::{KeyId, Seq, State};
use crate::slots::SlotSet;
use table::Table;

#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_key: Table<Line>,
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
        let line = self.by_key.get(key);
        (line.and_then(|line| line.waiting.first()), line.and_then(|line| line.in_flight))
    }

    /// Keys of the slots with messages: looks at all keys there are.
    pub(super) fn of(&self, slots: &SlotSet) -> BTreeSet<KeyId> {
        self.by_key.keys(|key| slots.contains(key.slot()))
    }

    /// Whether the key has any.
    pub(super) fn has(&self, key: KeyId) -> bool {
        self.by_key.get(key).is_some()
    }

    pub(super) fn insert(&mut self, key: KeyId, seq: Seq, state: State) {
        match state {
            State::Dead => {}
            State::InFlight => self.by_key.entry(key).in_flight = Some(seq),
            State::Ready | State::Delayed => _ = self.by_key.entry(key).waiting.insert(seq),
        }
    }

    pub(super) fn remove(&mut self, key: KeyId, seq: Seq) {
        let Some(line) = self.by_key.get_mut(key) else { return };
        line.waiting.remove(seq);
        line.in_flight.take_if(|in_flight| *in_flight == seq);
        if line.waiting.is_empty() && line.in_flight.is_none() {
            self.by_key.remove(key);
        }
    }
}
