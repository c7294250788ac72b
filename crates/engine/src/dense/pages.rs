//! A table of values by number, in pages of 256 neighbours.
//!
//! [`Pages::freeze`] gives away the pages that changed since the last time, without copying them: a page is copied when it
//! changes while somebody still reads it. Of what was given away and is kept elsewhere, [`Pages::let_go`] keeps only the
//! pages in use: the others are fetched when they are needed again.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Number;

/// Numbers the pages.
pub(crate) type PageNo = u64;

/// Fetches a page that was let go, as it was frozen last.
pub(crate) type Fetch<V> = Arc<dyn Fn(PageNo) -> Arc<Page<V>> + Send + Sync>;

const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
/// Pages looked at by one call of [`Pages::let_go`]: giving back the memory of each takes microseconds, and somebody waits.
const LOOKED_AT: usize = 64;

/// Values by number.
pub(crate) struct Pages<K, V> {
    /// None of them is empty.
    kept: BTreeMap<PageNo, Kept<V>>,
    /// Pages that changed since the last freeze; some perhaps twice.
    changed: Vec<PageNo>,
    /// How often pages were frozen.
    freezes: u64,
    absent: Absent<V>,
    keys: PhantomData<K>,
}

/// What brings pages back, and notes which are there.
struct Absent<V> {
    /// Pages in memory, in the order in which they are let go; some perhaps gone.
    present: RefCell<VecDeque<PageNo>>,
    fetch: Option<Fetch<V>>,
}

struct Kept<V> {
    /// Nothing: it was let go.
    page: OnceCell<Arc<Page<V>>>,
    /// It is in [`Pages::changed`].
    is_changed: bool,
    /// The freeze that gave it away last.
    frozen: u64,
    /// Since it was last looked at to be let go.
    is_used: Cell<bool>,
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
        Self {
            kept: BTreeMap::new(),
            changed: Vec::new(),
            freezes: 0,
            absent: Absent { present: RefCell::default(), fetch: None },
            keys: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for Pages<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("pages", &self.kept.len()).finish_non_exhaustive()
    }
}

impl<K: Number, V: Clone> Pages<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let (no, slot) = split(key);
        self.kept.get(&no)?.page(no, &self.absent).get(slot)
    }

    /// The value, to be changed.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (no, slot) = split(key);
        let kept = self.kept.get_mut(&no).filter(|kept| kept.page(no, &self.absent).has(slot))?;
        kept.change(no, &mut self.changed).get_mut(slot)
    }

    /// Returns the value of before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (no, slot) = split(key);
        let kept = self.kept.entry(no).or_insert_with(|| {
            self.absent.present.get_mut().push_back(no);
            Kept::starting_at(slot)
        });
        kept.page(no, &self.absent);
        kept.change(no, &mut self.changed).insert(slot, value)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let (no, slot) = split(key);
        let kept = self.kept.get_mut(&no).filter(|kept| kept.page(no, &self.absent).has(slot))?;
        let page = kept.change(no, &mut self.changed);
        let value = page.remove(slot);
        if page.values.is_empty() {
            self.kept.remove(&no);
        }
        value
    }

    /// What `pick` makes of each of those in the range, in order. Pages that are not in memory do not stay there.
    pub(crate) fn scan<R>(
        &self,
        keys: RangeInclusive<K>,
        pick: impl Fn(K, &V) -> Option<R>,
    ) -> impl Iterator<Item = R> {
        let pages = self.kept.range(split(*keys.start()).0..=split(*keys.end()).0);
        pages.flat_map(move |(no, kept)| {
            let page = kept.page.get().cloned().unwrap_or_else(|| self.absent.fetch(*no));
            let values = page.iter().map(|(slot, value)| (number_at(*no, slot), value));
            let picked =
                values.filter(|(key, _)| keys.contains(key)).filter_map(|(key, value)| pick(key, value));
            picked.collect::<Vec<R>>()
        })
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.scan(K::of(0)..=K::of(u64::MAX), |key, value| Some((key, value.clone())))
    }

    /// The pages that changed since the last time; `None` for those that are empty now.
    pub(crate) fn freeze(&mut self) -> Vec<(PageNo, Option<Arc<Page<V>>>)> {
        self.freezes += 1;
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let frozen = changed.into_iter().map(|no| {
            let kept = self.kept.get_mut(&no);
            let page = kept.and_then(|kept| {
                kept.is_changed = false;
                kept.frozen = self.freezes;
                kept.page.get().map(Arc::clone)
            });
            (no, page)
        });
        frozen.collect()
    }

    /// How many pages the next freeze will give away, at most.
    pub(crate) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Lets pages go until at most `max` are in memory, those first that were not used for long. Only pages that were
    /// given away by the first `stored` freezes can be fetched again.
    pub(crate) fn let_go(&mut self, max: usize, stored: u64) {
        let present = self.absent.present.get_mut();
        for _ in 0..LOOKED_AT.min(present.len().saturating_sub(max)) {
            let Some(no) = present.pop_front() else { return };
            match self.kept.get_mut(&no) {
                Some(kept) if kept.is_changed || kept.frozen > stored || kept.is_used.take() => {
                    present.push_back(no);
                }
                Some(kept) => _ = kept.page.take(),
                None => {}
            }
        }
    }

    /// What [`Pages::freeze`] gave away once.
    pub(crate) fn load(pages: impl IntoIterator<Item = (PageNo, Arc<Page<V>>)>) -> Self {
        let pages = pages.into_iter().filter(|(_, page)| !page.values.is_empty());
        let kept: BTreeMap<_, _> = pages.map(|(no, page)| (no, Kept::new(OnceCell::from(page)))).collect();
        let present = RefCell::new(kept.keys().copied().collect());
        Self { absent: Absent { present, fetch: None }, kept, ..Self::default() }
    }

    /// The same, none of it in memory yet.
    pub(crate) fn stored(pages: impl IntoIterator<Item = PageNo>, fetch: Fetch<V>) -> Self {
        let kept = pages.into_iter().map(|no| (no, Kept::new(OnceCell::new()))).collect();
        let absent = Absent { present: RefCell::default(), fetch: Some(fetch) };
        Self { kept, absent, ..Self::default() }
    }
}

fn split<K: Number>(key: K) -> (PageNo, u8) {
    let number = key.number();
    (number >> SLOT_BITS, number.to_le_bytes()[0])
}

/// The page that has the number.
pub(crate) fn page_of<K: Number>(key: K) -> PageNo {
    split(key).0
}

/// The number of a slot, as [`Page::iter`] names it.
pub(crate) fn number_at<K: Number>(no: PageNo, slot: u8) -> K {
    K::of(no << SLOT_BITS | u64::from(slot))
}

impl<V> Kept<V> {
    fn new(page: OnceCell<Arc<Page<V>>>) -> Self {
        Self { page, is_changed: false, frozen: 0, is_used: Cell::new(false) }
    }

    fn starting_at(slot: u8) -> Self {
        // What begins with its first slot is about to be filled.
        let capacity = if slot == 0 { SLOTS } else { 0 };
        Self::new(OnceCell::from(Arc::new(Page::with_capacity(capacity))))
    }

    fn page(&self, no: PageNo, absent: &Absent<V>) -> &Page<V> {
        self.is_used.set(true);
        self.page.get_or_init(|| {
            absent.present.borrow_mut().push_back(no);
            absent.fetch(no)
        })
    }
}

impl<V: Clone> Kept<V> {
    /// The page, which is in memory, to be changed.
    fn change(&mut self, no: PageNo, changed: &mut Vec<PageNo>) -> &mut Page<V> {
        if !std::mem::replace(&mut self.is_changed, true) {
            changed.push(no);
        }
        Arc::make_mut(self.page.get_mut().expect("it was brought before it is changed"))
    }
}

impl<V> Absent<V> {
    fn fetch(&self, no: PageNo) -> Arc<Page<V>> {
        self.fetch.as_ref().expect("pages are let go only where they can be fetched")(no)
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
    use std::sync::Mutex;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Seq;

    type Table = Pages<Seq, String>;
    type Frozen = BTreeMap<PageNo, Arc<Page<String>>>;

    /// A table, what its freezes are kept in, and what they lead to.
    struct Rig {
        table: Table,
        kept: Arc<Mutex<Frozen>>,
        freezes: u64,
    }

    impl Rig {
        fn new() -> Self {
            let kept = Arc::<Mutex<Frozen>>::default();
            let table = Table::stored([], fetch(&kept));
            Self { table, kept, freezes: 0 }
        }

        fn freeze(&mut self) {
            self.freezes += 1;
            let mut kept = self.kept.lock().unwrap();
            for (no, page) in self.table.freeze() {
                match page {
                    Some(page) => _ = kept.insert(no, page),
                    None => _ = kept.remove(&no),
                }
            }
        }

        /// What somebody finds who has only what was frozen.
        fn stored(&self) -> Table {
            let pages: Vec<PageNo> = self.kept.lock().unwrap().keys().copied().collect();
            Table::stored(pages, fetch(&self.kept))
        }
    }

    fn fetch(kept: &Arc<Mutex<Frozen>>) -> Fetch<String> {
        let kept = Arc::clone(kept);
        Arc::new(move |no| Arc::clone(&kept.lock().unwrap()[&no]))
    }

    fn content(table: &Table) -> Vec<(Seq, String)> {
        table.iter().collect()
    }

    proptest! {
        /// Promise: it is the table that a B-tree would be, also of pages that were let go; what was frozen stays as it
        /// was, and all that was frozen together is the table.
        #[test]
        fn table_is_what_a_btree_would_be(changes in vec((0u64..700, 0u8..10), 1..600)) {
            let (mut rig, mut model) = (Rig::new(), BTreeMap::new());
            let mut at_freeze = Vec::new();
            for (n, (number, change)) in changes.into_iter().enumerate() {
                let (seq, value) = (Seq(number), n.to_string());
                match change {
                    0..4 => prop_assert_eq!(rig.table.insert(seq, value.clone()), model.insert(seq, value)),
                    4 => {
                        let (changed, expected) = (rig.table.get_mut(seq), model.get_mut(&seq));
                        prop_assert_eq!(&changed, &expected);
                        changed.into_iter().chain(expected).for_each(|of| of.clone_from(&value));
                    }
                    5..7 => prop_assert_eq!(rig.table.remove(seq), model.remove(&seq)),
                    7 => {
                        rig.freeze();
                        at_freeze = content(&rig.table);
                    }
                    _ => rig.table.let_go(usize::from(change - 8), rig.freezes),
                }
                prop_assert_eq!(rig.table.get(seq), model.get(&seq));
            }
            prop_assert_eq!(content(&rig.table), model.clone().into_iter().collect::<Vec<_>>());
            for range in [Seq(0)..=Seq(999), Seq(100)..=Seq(300), Seq(255)..=Seq(256), Seq(7)..=Seq(7)] {
                let expected = model.range(range.clone()).map(|(seq, value)| (*seq, value.clone()));
                prop_assert!(rig.table.scan(range, |seq, value| Some((seq, value.clone()))).eq(expected));
            }
            prop_assert_eq!(content(&rig.stored()), at_freeze);
            rig.freeze();
            prop_assert_eq!(content(&rig.stored()), content(&rig.table));
        }
    }

    /// Promise: of what can be fetched again no more is in memory than is allowed, and what cannot be stays.
    #[test]
    fn pages_are_let_go_once_they_are_stored() {
        let mut rig = Rig::new();
        let present = |table: &Table| table.kept.values().filter(|kept| kept.page.get().is_some()).count();
        (0..10 * 256).for_each(|number| _ = rig.table.insert(Seq(number), "a".into()));
        rig.freeze();
        rig.table.insert(Seq(0), "b".into());
        // Several times, since those that were used are passed over once.
        let let_go = |table: &mut Table, max, stored| (0..4).for_each(|_| table.let_go(max, stored));
        let_go(&mut rig.table, 3, 0);
        assert_eq!(present(&rig.table), 10, "no freeze is stored");
        let_go(&mut rig.table, 3, 1);
        assert_eq!(present(&rig.table), 3);
        assert_eq!(rig.table.get(Seq(0)).unwrap(), "b");
        assert!((1..10 * 256).all(|number| rig.table.get(Seq(number)).unwrap() == "a"));
        assert_eq!(present(&rig.table), 10);
        let_go(&mut rig.table, 0, 1);
        assert_eq!(present(&rig.table), 1, "one has changed since");
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
