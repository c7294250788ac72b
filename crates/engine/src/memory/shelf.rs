//! Entries of one kind and queue that are named by texts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{Memorized, Remembered};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: BTreeMap<Arc<str>, Memorized>,
    /// The names by when they end.
    ends: BTreeSet<(Timestamp, Arc<str>)>,
    items: usize,
}

impl Shelf {
    /// What there is to remember, counted.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    pub(super) fn get(&self, name: &str, now: Timestamp) -> Option<&Remembered> {
        self.entries.get(name).filter(|entry| entry.until > now).map(|entry| &entry.what)
    }

    /// The entry, even if it has ended.
    pub(super) fn entry(&self, name: &str) -> Option<&Memorized> {
        self.entries.get(name)
    }

    pub(super) fn put(&mut self, name: Arc<str>, entry: Memorized) {
        self.items += entry.what.items();
        self.ends.insert((entry.until, Arc::clone(&name)));
        let until = entry.until;
        if let Some(before) = self.entries.insert(Arc::clone(&name), entry) {
            self.items -= before.what.items();
            if before.until != until {
                self.ends.remove(&(before.until, name));
            }
        }
    }

    /// Takes the one that ends first, if it has ended.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Arc<str>> {
        self.ends.first().filter(|(until, _)| *until <= now)?;
        let (_, name) = self.ends.pop_first()?;
        self.items -= self.entries.remove(&name).map_or(0, |entry| entry.what.items());
        Some(name)
    }

    /// When the one that ends last does.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.ends.last().map(|(until, _)| *until)
    }

    pub(super) fn behind(&self, name: &str) -> impl Iterator<Item = (&Arc<str>, &Memorized)> {
        self.entries.range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Memorized)> {
        self.entries.iter()
    }
}
