//! A table of values by number, in pages of 256 neighbours.
//!
//! [`Pages::freeze`] gives away the pages that changed since the last time, without copying them: a page is copied when it
//! changes while somebody still reads it.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Number;

/// Numbers the pages.
pub(crate) type PageNo = u64;

const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;

/// Values by number.
#[derive(Debug)]
pub(crate) struct Pages<K, V> {
    /// None of them is empty.
    kept: BTreeMap<PageNo, Kept<V>>,
    /// Pages that changed since the last freeze; some perhaps twice.
    changed: Vec<PageNo>,
    keys: PhantomData<K>,
}

#[derive(Debug)]
struct Kept<V> {
    page: Arc<Page<V>>,
    /// It is in [`Pages::changed`].
    is_changed: bool,
}

/// The values of neighbours. Takes the room of those that are there.
#[derive(Clone, Debug)]
pub(crate) struct Page<V> {
    /// Which slots have a value, as bits.
    taken: [u64; SLOTS / 64],
    /// Where the value of each of these lies.
    places: [u8; SLOTS],
    /// In any order.
    values: Vec<V>,
    /// The slot of each value.
    slots: Vec<u8>,
}

impl<K, V> Default for Pages<K, V> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), changed: Vec::new(), keys: PhantomData }
    }
}

impl<K: Number, V: Clone> Pages<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let (no, slot) = split(key);
        self.kept.get(&no)?.page.get(slot)
    }

    /// The value, to be changed.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (no, slot) = split(key);
        let kept = self.kept.get_mut(&no).filter(|kept| kept.page.has(slot))?;
        kept.change(no, &mut self.changed).get_mut(slot)
    }

    /// Returns the value of before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (no, slot) = split(key);
        let kept = self.kept.entry(no).or_insert_with(|| Kept::starting_at(slot));
        kept.change(no, &mut self.changed).insert(slot, value)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let (no, slot) = split(key);
        let kept = self.kept.get_mut(&no).filter(|kept| kept.page.has(slot))?;
        let page = kept.change(no, &mut self.changed);
        let value = page.remove(slot);
        if page.values.is_empty() {
            self.kept.remove(&no);
        }
        value
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.kept
            .iter()
            .flat_map(|(no, kept)| kept.page.iter().map(|(slot, value)| (number_at(*no, slot), value)))
    }

    /// Those with numbers in the range, in order.
    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = (K, &V)> {
        let pages = self.kept.range(split(*keys.start()).0..=split(*keys.end()).0);
        let values =
            pages.flat_map(|(no, kept)| kept.page.iter().map(|(slot, value)| (number_at(*no, slot), value)));
        values.filter(move |(key, _)| keys.contains(key))
    }

    /// The pages that changed since the last time; `None` for those that are empty now.
    pub(crate) fn freeze(&mut self) -> Vec<(PageNo, Option<Arc<Page<V>>>)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let frozen = changed.into_iter().map(|no| {
            let kept = self.kept.get_mut(&no);
            let page = kept.map(|kept| {
                kept.is_changed = false;
                Arc::clone(&kept.page)
            });
            (no, page)
        });
        frozen.collect()
    }

    /// What [`Pages::freeze`] gave away once.
    pub(crate) fn load(pages: impl IntoIterator<Item = (PageNo, Arc<Page<V>>)>) -> Self {
        let pages = pages.into_iter().filter(|(_, page)| !page.values.is_empty());
        let kept = pages.map(|(no, page)| (no, Kept { page, is_changed: false })).collect();
        Self { kept, ..Self::default() }
    }
}

fn split<K: Number>(key: K) -> (PageNo, u8) {
    let number = key.number();
    (number >> SLOT_BITS, number.to_le_bytes()[0])
}

/// The number of a slot, as [`Page::iter`] names it.
pub(crate) fn number_at<K: Number>(no: PageNo, slot: u8) -> K {
    K::of(no << SLOT_BITS | u64::from(slot))
}

impl<V: Clone> Kept<V> {
    fn starting_at(slot: u8) -> Self {
        // What begins with its first slot is about to be filled.
        let capacity = if slot == 0 { SLOTS } else { 0 };
        Self { page: Arc::new(Page::with_capacity(capacity)), is_changed: false }
    }

    fn change(&mut self, no: PageNo, changed: &mut Vec<PageNo>) -> &mut Page<V> {
        if !std::mem::replace(&mut self.is_changed, true) {
            changed.push(no);
        }
        Arc::make_mut(&mut self.page)
    }
}

impl<V> Page<V> {
    /// Numbers of a page.
    pub(crate) const SLOTS: usize = SLOTS;

    fn with_capacity(capacity: usize) -> Self {
        let (values, slots) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        Self { taken: [0; SLOTS / 64], places: [0; SLOTS], values, slots }
    }

    /// By the low 8 bits of their numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &V)> {
        (0..=u8::MAX).filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    fn has(&self, slot: u8) -> bool {
        self.taken[usize::from(slot / 64)] >> (slot % 64) & 1 == 1
    }

    fn get(&self, slot: u8) -> Option<&V> {
        self.has(slot).then(|| &self.values[self.place(slot)])
    }

    fn get_mut(&mut self, slot: u8) -> Option<&mut V> {
        let place = self.place(slot);
        self.has(slot).then(|| &mut self.values[place])
    }

    fn insert(&mut self, slot: u8, value: V) -> Option<V> {
        if let Some(before) = self.get_mut(slot) {
            return Some(std::mem::replace(before, value));
        }
        self.taken[usize::from(slot / 64)] |= 1 << (slot % 64);
        self.note_place(slot, self.values.len());
        self.values.push(value);
        self.slots.push(slot);
        None
    }

    /// The last value takes the place of the removed one.
    fn remove(&mut self, slot: u8) -> Option<V> {
        if !self.has(slot) {
            return None;
        }
        let place = self.place(slot);
        self.taken[usize::from(slot / 64)] &= !(1 << (slot % 64));
        self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            self.note_place(*moved, place);
        }
        let value = self.values.swap_remove(place);
        self.give_back_room();
        Some(value)
    }

    /// A page that lost most of its values must not keep their room.
    fn give_back_room(&mut self) {
        if self.values.len() * 4 < self.values.capacity() {
            self.values.shrink_to(self.values.len() * 2);
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    fn place(&self, slot: u8) -> usize {
        usize::from(self.places[usize::from(slot)])
    }

    fn note_place(&mut self, slot: u8, place: usize) {
        self.places[usize::from(slot)] = u8::try_from(place).expect("a page has 256 slots");
    }
}

impl<V> FromIterator<(u8, V)> for Page<V> {
    fn from_iter<I: IntoIterator<Item = (u8, V)>>(values: I) -> Self {
        let values = values.into_iter();
        let mut page = Self::with_capacity(values.size_hint().0.min(SLOTS));
        values.for_each(|(slot, value)| _ = page.insert(slot, value));
        page
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Seq;

    type Table = Pages<Seq, String>;
    type Frozen = BTreeMap<PageNo, Arc<Page<String>>>;

    fn freeze(table: &mut Table, into: &mut Frozen) {
        for (no, page) in table.freeze() {
            match page {
                Some(page) => _ = into.insert(no, page),
                None => _ = into.remove(&no),
            }
        }
    }

    fn content(table: &Table) -> Vec<(Seq, String)> {
        table.iter().map(|(seq, value)| (seq, value.clone())).collect()
    }

    proptest! {
        /// Promise: it is the table that a B-tree would be; what was frozen stays as it was, and all that was frozen
        /// together is the table.
        #[test]
        fn table_is_what_a_btree_would_be(changes in vec((0u64..700, 0u8..8), 1..600)) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            let (mut frozen, mut at_freeze) = (Frozen::new(), Vec::new());
            for (n, (number, change)) in changes.into_iter().enumerate() {
                let (seq, value) = (Seq(number), n.to_string());
                match change {
                    0..4 => prop_assert_eq!(table.insert(seq, value.clone()), model.insert(seq, value)),
                    4 => {
                        let (changed, expected) = (table.get_mut(seq), model.get_mut(&seq));
                        prop_assert_eq!(&changed, &expected);
                        changed.into_iter().chain(expected).for_each(|of| of.clone_from(&value));
                    }
                    5..7 => prop_assert_eq!(table.remove(seq), model.remove(&seq)),
                    _ => {
                        freeze(&mut table, &mut frozen);
                        at_freeze = content(&table);
                    }
                }
                prop_assert_eq!(table.get(seq), model.get(&seq));
            }
            prop_assert!(table.iter().eq(model.iter().map(|(seq, value)| (*seq, value))));
            for range in [Seq(0)..=Seq(999), Seq(100)..=Seq(300), Seq(255)..=Seq(256), Seq(7)..=Seq(7)] {
                let expected = model.range(range.clone()).map(|(seq, value)| (*seq, value));
                prop_assert!(table.range(range).eq(expected));
            }
            prop_assert_eq!(content(&Table::load(frozen.clone())), at_freeze);
            freeze(&mut table, &mut frozen);
            prop_assert_eq!(content(&Table::load(frozen)), content(&table));
        }
    }

    /// Promise: a page that nobody reads any more is changed in place.
    #[test]
    fn page_is_copied_only_while_somebody_reads_it() {
        let mut table = Table::default();
        table.insert(Seq(1), "a".into());
        let frozen = table.freeze();
        let before = std::ptr::from_ref(table.get(Seq(1)).unwrap());
        drop(frozen);
        table.get_mut(Seq(1)).unwrap().push('b');
        assert_eq!(std::ptr::from_ref(table.get(Seq(1)).unwrap()), before);
        let frozen = table.freeze();
        table.get_mut(Seq(1)).unwrap().push('c');
        assert_eq!(frozen[0].1.as_ref().unwrap().get(1).unwrap(), "ab");
        assert!(table.freeze().len() == 1 && table.freeze().is_empty());
    }
}
