//! What the indexes go by of a page of rows: enough to know what is where without reading the rows.

use std::collections::BTreeMap;

use super::lanes::Place;
use super::wake_at;
use crate::dense::Page;
use crate::message::{KeyId, Priority, QueueId, Row, Seq, State};
use crate::time::Timestamp;

/// Of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Neighbours are much alike: a page of a plain backlog is one group.
    pub(crate) groups: Vec<Group>,
    pub(crate) stored: Vec<Stored>,
}

/// Rows that are alike but for their sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) alike: Alike,
    /// Of all bodies.
    pub(crate) bytes: u64,
    pub(crate) slots: Slots,
}

/// What rows of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alike {
    pub(crate) queue: QueueId,
    pub(crate) state: State,
    pub(crate) priority: Priority,
    pub(crate) ordering: Option<KeyId>,
    pub(crate) fairness: Option<KeyId>,
    pub(crate) wake_at: Option<Timestamp>,
}

/// Slots of a page, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots([u64; 4]);

/// Payloads of the page that lie in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) segment: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Summary {
    pub(crate) fn of(page: &Page<Row>) -> Self {
        let mut groups: BTreeMap<Alike, (u64, Slots)> = BTreeMap::new();
        let mut stored: BTreeMap<u64, Stored> = BTreeMap::new();
        for (slot, row) in page.iter() {
            let (bytes, slots) = groups.entry(Alike::of(row)).or_default();
            *bytes += row.body_bytes;
            slots.insert(slot);
            let segment = row.location.segment;
            let there = stored.entry(segment).or_insert(Stored { segment, messages: 0, bytes: 0 });
            there.messages += 1;
            there.bytes += u64::from(row.location.len);
        }
        let groups = groups.into_iter().map(|(alike, (bytes, slots))| Group { alike, bytes, slots });
        Self { groups: groups.collect(), stored: stored.into_values().collect() }
    }
}

impl Alike {
    fn of(row: &Row) -> Self {
        Self {
            queue: row.queue,
            state: row.state(),
            priority: row.priority,
            ordering: row.ordering,
            fairness: row.fairness,
            wake_at: wake_at(row),
        }
    }

    pub(super) fn place(&self, seq: Seq) -> Place {
        Place { seq, fairness: self.fairness, priority: self.priority }
    }
}

impl Slots {
    pub(crate) fn insert(&mut self, slot: u8) {
        self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
    }

    pub(crate) fn len(self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Of runs as [`Slots::runs`] tells them.
    pub(crate) fn of_runs(runs: &[(u8, u8)]) -> Option<Self> {
        let mut slots = Self::default();
        runs.iter().for_each(|(first, last)| (*first..=*last).for_each(|slot| slots.insert(slot)));
        slots.runs().eq(runs.iter().copied()).then_some(slots)
    }

    /// All of them, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |slot| self.contains(*slot))
    }

    /// The first and last of each run without gaps, in order.
    pub(crate) fn runs(self) -> impl Iterator<Item = (u8, u8)> {
        let starts =
            self.iter().filter(move |slot| slot.checked_sub(1).is_none_or(|before| !self.contains(before)));
        starts.map(move |first| {
            let last = (first..=u8::MAX).take_while(|slot| self.contains(*slot)).last();
            (first, last.unwrap_or(first))
        })
    }

    fn contains(self, slot: u8) -> bool {
        self.0[usize::from(slot / 64)] >> (slot % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: runs are what was put in, however it lies.
    #[test]
    fn runs_are_the_slots() {
        let mut slots = Slots::default();
        [0, 1, 2, 63, 64, 65, 200, 254, 255].into_iter().for_each(|slot| slots.insert(slot));
        let runs: Vec<_> = slots.runs().collect();
        assert_eq!(runs, [(0, 2), (63, 65), (200, 200), (254, 255)]);
        assert_eq!(slots.len(), 9);
        assert!(slots.iter().eq(runs.iter().flat_map(|(first, last)| *first..=*last)));
        assert_eq!(Slots::of_runs(&runs), Some(slots));
        assert_eq!(Slots::of_runs(&[(2, 1)]), None);
        assert_eq!(Slots::of_runs(&[(0, 1), (2, 3)]), None);
    }
}
