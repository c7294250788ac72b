//! Pages of redb's trees.

use std::ops::Range;

use twox_hash::XxHash3_128;

use super::Table;
use crate::store::encoding::Reader;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// Type, a byte of nothing, and the number of rows.
const LEAF_HEAD: usize = 4;
/// The same with padding.
const BRANCH_HEAD: usize = 8;
/// Of a page, and of a root, in a branch.
const SUM_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
/// The only kind of table that stores use: one value for each key.
const PLAIN_TABLE: u8 = 3;

pub(super) fn checksum(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// A page and what its bytes must sum up to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) page: u64,
    pub(super) checksum: u128,
}

/// Lengths of keys and values that have one length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fixed {
    key: Option<usize>,
    value: Option<usize>,
}

impl Root {
    /// With the number of rows behind it, which redb counts anew when in doubt.
    pub(super) fn read(input: &mut Reader<'_>) -> Option<Self> {
        let root = Self { page: input.u64()?, checksum: u128::from_le_bytes(input.array()?) };
        input.u64()?;
        Some(root)
    }
}

impl Table {
    /// As redb's list of tables has it; `None` for one of a kind that stores never have.
    pub(super) fn read(name: &[u8], definition: &[u8], is_internal: bool) -> Option<Self> {
        let mut input = Reader::over(definition);
        input.u8().filter(|kind| *kind == PLAIN_TABLE)?;
        let (rows, has_root, root) = (input.u64()?, input.u8()?, Root::read(&mut input)?);
        let mut fixed = || {
            let (is_fixed, len) = (input.u8()?, input.len()?);
            Some((is_fixed != 0).then_some(len))
        };
        let fixed = Fixed { key: fixed()?, value: fixed()? };
        let name = String::from_utf8_lossy(name).into_owned();
        Some(Self { name, rows, is_internal, root: (has_root != 0).then_some(root), fixed })
    }
}

pub(super) enum Page {
    Leaf(Leaf),
    Branch(Branch),
}

/// A page of rows, verified.
pub(in crate::store::offline) struct Leaf {
    at: u64,
    bytes: Vec<u8>,
    /// Of each row, key and value.
    rows: Vec<[Range<usize>; 2]>,
}

/// A page that leads to others, verified.
pub(super) struct Branch {
    at: u64,
    bytes: Vec<u8>,
    keys: Vec<Range<usize>>,
}

impl Page {
    pub(super) fn verify(
        at: u64,
        bytes: Vec<u8>,
        expected: u128,
        fixed: Fixed,
    ) -> Result<Self, &'static str> {
        const NONSENSE: &str = "what it says of itself makes no sense";
        const DAMAGED: &str = "its checksum is wrong";
        match bytes.first() {
            Some(&LEAF) => {
                let rows = leaf_rows(&bytes, fixed).ok_or(NONSENSE)?;
                let end = rows.last().map(|[_, value]| value.end).ok_or(NONSENSE)?;
                is_whole(&bytes, end, expected).then_some(Self::Leaf(Leaf { at, bytes, rows })).ok_or(DAMAGED)
            }
            Some(&BRANCH) => {
                let keys = branch_keys(&bytes, fixed.key).ok_or(NONSENSE)?;
                let end = keys.last().map(|key| key.end).ok_or(NONSENSE)?;
                let is_whole = is_whole(&bytes, end, expected);
                is_whole.then_some(Self::Branch(Branch { at, bytes, keys })).ok_or(DAMAGED)
            }
            _ => Err(NONSENSE),
        }
    }
}

fn is_whole(bytes: &[u8], end: usize, expected: u128) -> bool {
    bytes.get(..end).is_some_and(|used| checksum(used) == expected)
}

fn count(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(2..4)?.try_into().ok()?)))
}

/// Keys, then values; before them the ends of all whose length is not fixed.
fn leaf_rows(bytes: &[u8], fixed: Fixed) -> Option<Vec<[Range<usize>; 2]>> {
    let count = count(bytes)?;
    let mut at = LEAF_HEAD;
    let mut tables = [fixed.key, fixed.value].map(|fixed| {
        let ends = (at, fixed);
        at += if fixed.is_none() { count * 4 } else { 0 };
        ends
    });
    let mut ranges = Vec::new();
    for (ends_at, fixed) in &mut tables {
        ranges.push(extents(bytes, count, at, *ends_at, *fixed)?);
        at = ranges.last()?.last().map_or(at, |last: &Range<usize>| last.end);
    }
    let values = ranges.pop()?;
    Some(ranges.pop()?.into_iter().zip(values).map(|(key, value)| [key, value]).collect())
}

/// Children's checksums and numbers come first.
fn branch_keys(bytes: &[u8], fixed: Option<usize>) -> Option<Vec<Range<usize>>> {
    let count = count(bytes)?;
    let ends_at = BRANCH_HEAD + (count + 1) * (SUM_BYTES + NUMBER_BYTES);
    let at = ends_at + if fixed.is_none() { count * 4 } else { 0 };
    extents(bytes, count, at, ends_at, fixed)
}

/// Of so many pieces that lie back to back from `at` on.
fn extents(
    bytes: &[u8],
    count: usize,
    at: usize,
    ends_at: usize,
    fixed: Option<usize>,
) -> Option<Vec<Range<usize>>> {
    let mut start = at;
    let piece = |n: usize| {
        let end = match fixed {
            Some(len) => start.checked_add(len)?,
            None => Reader::over(bytes.get(ends_at + n * 4..)?).len()?,
        };
        let piece = start..end;
        start = end;
        (piece.start <= end && end <= bytes.len()).then_some(piece)
    };
    (0..count).map(piece).collect()
}

impl Leaf {
    pub(in crate::store::offline) fn extent(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }

    /// What of it is summed; the rest is not in use.
    pub(in crate::store::offline) fn used(&self) -> Range<u64> {
        let end = self.rows.last().map_or(0, |[_, value]| value.end);
        self.at..self.at + end as u64
    }

    /// Keys with their values, in order.
    pub(in crate::store::offline) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|[key, value]| (&self.bytes[key.clone()], &self.bytes[value.clone()]))
    }

    /// Where in the file the value of each row lies.
    pub(in crate::store::offline) fn places(&self) -> impl Iterator<Item = Range<u64>> {
        self.rows.iter().map(|[_, value]| self.at + value.start as u64..self.at + value.end as u64)
    }
}

impl Branch {
    pub(super) fn extent(&self) -> Range<u64> {
        let end = self.keys.last().map_or(0, |key| key.end);
        self.at..self.at + end as u64
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key(&self, n: usize) -> Option<&[u8]> {
        self.bytes.get(self.keys.get(n)?.clone())
    }

    pub(super) fn child(&self, n: usize) -> Option<Root> {
        let sums_at = BRANCH_HEAD + n * SUM_BYTES;
        let numbers_at = BRANCH_HEAD + (self.keys.len() + 1) * SUM_BYTES + n * NUMBER_BYTES;
        Some(Root {
            checksum: u128::from_le_bytes(Reader::over(self.bytes.get(sums_at..)?).array()?),
            page: Reader::over(self.bytes.get(numbers_at..)?).u64()?,
        })
    }
}
