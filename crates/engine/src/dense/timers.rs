//! What happens when: numbers by time, those of one time in order.

use std::collections::BTreeMap;

use super::{Number, NumberSet};
use crate::time::Timestamp;

/// Messages of one batch often share their time, and then they share an entry.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    by_time: BTreeMap<Timestamp, NumberSet<T>>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { by_time: BTreeMap::new() }
    }
}

impl<T: Number> Timers<T> {
    pub(crate) fn insert(&mut self, at: Timestamp, what: T) -> bool {
        self.by_time.entry(at).or_default().insert(what)
    }

    pub(crate) fn remove(&mut self, at: Timestamp, what: T) -> bool {
        let Some(set) = self.by_time.get_mut(&at) else { return false };
        let was_there = set.remove(what);
        if set.is_empty() {
            self.by_time.remove(&at);
        }
        was_there
    }

    pub(crate) fn first(&self) -> Option<(Timestamp, T)> {
        let (at, set) = self.by_time.first_key_value()?;
        Some((*at, set.first()?))
    }

    /// When the last is due.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.by_time.last_key_value().map(|(at, _)| *at)
    }

    /// Takes the first, if its time has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        let (at, what) = self.first().filter(|(at, _)| *at <= now)?;
        self.remove(at, what);
        Some(what)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.by_time.values().flat_map(NumberSet::iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Seq;

    /// Promise: timers go off in the order of their times, and of one time in the order of their numbers.
    #[test]
    fn timers_go_off_in_order() {
        let mut timers = Timers::default();
        for (at, seq) in [(5, 9), (7, 1), (5, 2), (4, 3), (7, 1)] {
            timers.insert(Timestamp(at), Seq(seq));
        }
        assert!(timers.remove(Timestamp(4), Seq(3)) && !timers.remove(Timestamp(4), Seq(3)));
        assert_eq!(timers.first(), Some((Timestamp(5), Seq(2))));
        assert_eq!(timers.pop_due(Timestamp(4)), None);
        let due: Vec<Seq> = std::iter::from_fn(|| timers.pop_due(Timestamp(7))).collect();
        assert_eq!(due, [2, 9, 1].map(Seq));
        assert_eq!(timers.first(), None);
    }
}
