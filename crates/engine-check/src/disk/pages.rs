//! What one file holds: what it shows, and what of that may not be on the medium yet.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use super::survival::{Judge, Tick};
use crate::dice::Dice;

/// As the page cache of the operating system has them.
pub(super) const PAGE: usize = 4096;
/// `None` is zeros that take no room. Shared by the versions of a file, and by the disks that come of one.
type Page = Option<Arc<[u8]>>;
static ZEROS: [u8; PAGE] = [0; PAGE];
static ZERO_PAGE: LazyLock<Arc<[u8]>> = LazyLock::new(|| Arc::from(ZEROS));

/// The pages of a file, and how they became what they are since the last sync.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    len: u64,
    shown: Vec<Page>,
    /// How many of them take room.
    allocated: u64,
    /// Since the last sync, oldest first.
    unsynced: Vec<Overwritten>,
    /// Lengths since the last sync, each with the tick of the next one.
    lens: Vec<(Tick, u64)>,
    /// What the medium has where a failed sync gave up: the operating system takes these pages for clean, so that no later
    /// sync writes them.
    given_up: BTreeMap<usize, Page>,
}

#[derive(Clone, Debug)]
struct Overwritten {
    at: Tick,
    index: usize,
    before: Page,
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut done = 0;
        for (index, range) in parts(offset, buffer.len()) {
            let length = range.len();
            buffer[done..done + length].copy_from_slice(&bytes(&self.shown[index])[range]);
            done += length;
        }
        Ok(())
    }

    /// Writes what there is room for; says how many bytes that was.
    pub(super) fn write_at(&mut self, tick: &mut Tick, offset: u64, data: &[u8], mut room: u64) -> usize {
        let mut done = 0;
        for (index, range) in parts(offset, data.len()) {
            if self.shown.get(index).is_none_or(Option::is_none) {
                let Some(left) = room.checked_sub(1) else { break };
                room = left;
            }
            let end = done + range.len();
            self.lengthen(tick, offset + end as u64);
            self.put(tick, index, Some(overwritten(&self.shown[index], range, &data[done..end])));
            done = end;
        }
        done
    }

    pub(super) fn set_len(&mut self, tick: &mut Tick, len: u64) {
        self.lengthen(tick, len);
        if len == self.len {
            return;
        }
        let pages = page_count(len);
        (pages..self.shown.len()).for_each(|index| self.put(tick, index, None));
        if let Some(last) = self.shown.get(pages.wrapping_sub(1)).filter(|_| within(len) > 0) {
            let tail = within(len)..PAGE;
            let cut = last.as_ref().map(|_| overwritten(last, tail.clone(), &ZEROS[tail]));
            self.put(tick, pages - 1, cut);
        }
        self.shown.truncate(pages);
        self.become_long(tick, len);
    }

    /// Takes room for all of the file up to there, which becomes that long; as far as there is room. `false`: there is not.
    pub(super) fn allocate(&mut self, tick: &mut Tick, len: u64, mut room: u64) -> bool {
        for index in 0..page_count(len) {
            if self.shown.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let Some(left) = room.checked_sub(1) else { return false };
            room = left;
            self.lengthen(tick, len.min((index as u64 + 1) * PAGE as u64));
            self.put(tick, index, Some(Arc::clone(&ZERO_PAGE)));
        }
        self.lengthen(tick, len);
        true
    }

    /// All of it reaches the medium.
    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.lens.clear();
    }

    /// Some of it reaches the medium, and the rest never will.
    pub(super) fn fail_sync(&mut self, dice: &mut Dice) {
        for Overwritten { index, before, .. } in std::mem::take(&mut self.unsynced).into_iter().rev() {
            // Going backwards the oldest one stays, if any: that is what the medium has.
            if self.given_up.contains_key(&index) || dice.one_in(2) {
                self.given_up.insert(index, before);
            }
        }
    }

    /// The medium turns a bit over.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let (index, at) = (page_index(offset), within(offset));
        let flipped = bytes(&self.shown[index])[at] ^ (1 << bit);
        self.allocated += u64::from(self.shown[index].is_none());
        self.shown[index] = Some(overwritten(&self.shown[index], at..at + 1, &[flipped]));
    }

    /// When the first change was made that may be lost.
    pub(super) fn oldest_unsynced(&self) -> Option<Tick> {
        let page = self.unsynced.first().map(|overwritten| overwritten.at);
        page.into_iter().chain(self.lens.first().map(|(at, _)| *at)).min()
    }

    /// What is left after a power cut.
    pub(super) fn survive(&self, judge: &mut Judge) -> Self {
        let len = self.surviving_len(judge);
        let mut shown = self.shown.clone();
        shown.resize(page_count(len), None);
        let lost = self.given_up.iter().map(|(index, page)| (*index, page.clone()));
        let chosen =
            self.histories().into_iter().map(|(index, history)| (index, self.choose(&history, index, judge)));
        for (index, page) in lost.chain(chosen).collect::<Vec<_>>() {
            if let Some(place) = shown.get_mut(index) {
                *place = page;
            }
        }
        let mut left = Self { len: shown.len() as u64 * PAGE as u64, shown, ..Self::default() };
        left.set_len(&mut 0, len);
        left.sync();
        left.allocated = left.shown.iter().flatten().count() as u64;
        left
    }

    fn surviving_len(&self, judge: &mut Judge) -> u64 {
        let ticks: Vec<Tick> = self.lens.iter().map(|(at, _)| *at).collect();
        self.lens.get(judge.kept(&ticks)).map_or(self.len, |(_, before)| *before)
    }

    /// The changes of each page that may be lost, oldest first.
    fn histories(&self) -> BTreeMap<usize, Vec<&Overwritten>> {
        let mut histories: BTreeMap<usize, Vec<&Overwritten>> = BTreeMap::new();
        for overwritten in &self.unsynced {
            histories.entry(overwritten.index).or_default().push(overwritten);
        }
        histories
    }

    /// Each sector of the page as some version of it was.
    fn choose(&self, history: &[&Overwritten], index: usize, judge: &mut Judge) -> Page {
        let ticks: Vec<Tick> = history.iter().map(|overwritten| overwritten.at).collect();
        let after = self.shown.get(index).unwrap_or(&None);
        let sector = judge.sector_bytes();
        let mut page = after.clone();
        for start in (0..PAGE).step_by(sector) {
            let version = history.get(judge.kept(&ticks)).map_or(after, |next| &next.before);
            if sector == PAGE {
                page.clone_from(version);
            } else if bytes(version)[start..start + sector] != bytes(&page)[start..start + sector] {
                page =
                    Some(overwritten(&page, start..start + sector, &bytes(version)[start..start + sector]));
            }
        }
        page
    }

    fn lengthen(&mut self, tick: &mut Tick, len: u64) {
        if len > self.len {
            self.shown.resize(page_count(len), None);
            self.become_long(tick, len);
        }
    }

    fn become_long(&mut self, tick: &mut Tick, len: u64) {
        self.lens.push((*tick, self.len));
        *tick += 1;
        self.len = len;
    }

    fn put(&mut self, tick: &mut Tick, index: usize, page: Page) {
        if page.is_none() && self.shown[index].is_none() && !self.given_up.contains_key(&index) {
            return;
        }
        self.allocated += u64::from(page.is_some());
        let shown = std::mem::replace(&mut self.shown[index], page);
        self.allocated -= u64::from(shown.is_some());
        let before = self.given_up.remove(&index).unwrap_or(shown);
        self.unsynced.push(Overwritten { at: *tick, index, before });
        *tick += 1;
    }
}

fn bytes(page: &Page) -> &[u8] {
    page.as_deref().unwrap_or(&ZEROS)
}

fn overwritten(page: &Page, range: Range<usize>, data: &[u8]) -> Arc<[u8]> {
    if data.len() == PAGE {
        return Arc::from(data);
    }
    let mut new: Arc<[u8]> = Arc::from(bytes(page));
    Arc::get_mut(&mut new).expect("nobody else has it yet")[range].copy_from_slice(data);
    new
}

/// The pages that so many bytes touch, and what of each.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (first, start) = (page_index(offset), within(offset));
    let end = start + length;
    let pages = 0..end.div_ceil(PAGE);
    pages
        .map(move |page| {
            (first + page, start.max(page * PAGE) - page * PAGE..end.min((page + 1) * PAGE) - page * PAGE)
        })
        .filter(|(_, range)| !range.is_empty())
}

fn page_index(offset: u64) -> usize {
    usize::try_from(offset / PAGE as u64).expect("files of tests fit into memory")
}

fn page_count(len: u64) -> usize {
    page_index(len.next_multiple_of(PAGE as u64))
}

fn within(offset: u64) -> usize {
    usize::try_from(offset % PAGE as u64).expect("it is less than a page")
}
