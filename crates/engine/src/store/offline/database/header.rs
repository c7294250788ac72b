//! The first bytes of a file of redb: how it is laid out, and which of two commits counts.

use std::ops::Range;

use super::page::{Root, checksum};
use crate::store::encoding::Reader;

const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Read at once: the layout and both commits.
pub(in crate::store::offline) const HEADER_BYTES: usize = COMMITS_AT + 2 * COMMIT_BYTES;
const FLAGS_AT: usize = MAGIC.len();
/// Of the flags: which commit counts.
const SECOND_COUNTS: u8 = 1;
/// The file was not closed.
const NOT_CLOSED: u8 = 2;
const PAGE_BYTES: u64 = 4096;
const COMMITS_AT: usize = 64;
const COMMIT_BYTES: usize = 128;
const COMMIT_SUM_AT: usize = COMMIT_BYTES - 16;
const COMMIT_VERSION: u8 = 3;
/// The largest size of a page is so many times doubled.
const MAX_ORDER: u64 = 20;

/// Something is not as it should be, although what counts can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::offline) struct Suspicion {
    pub(in crate::store::offline) at: Range<u64>,
    pub(in crate::store::offline) what: &'static str,
    /// A crash leaves the same.
    pub(in crate::store::offline) may_be_a_crash: bool,
}

pub(super) struct Header {
    file_len: u64,
    region_header_bytes: u64,
    region_bytes: u64,
    pub(super) tables: Option<Root>,
    pub(super) internal: Option<Root>,
    pub(super) suspicions: Vec<Suspicion>,
}

/// One of the two: what it leads to, if it is whole.
struct Commit {
    is_whole: bool,
    version: u8,
    tables: Option<Root>,
    internal: Option<Root>,
    number: u64,
}

impl Header {
    pub(super) fn read(bytes: &[u8; HEADER_BYTES], file_len: u64) -> Result<Self, &'static str> {
        const SHORT: &str = "its header is cut off";
        if bytes[..MAGIC.len()] != MAGIC {
            return Err("it does not begin as a file of redb");
        }
        let flags = bytes[FLAGS_AT];
        let mut layout = Reader::over(&bytes[FLAGS_AT + 3..COMMITS_AT]);
        let mut pages = || layout.u32().map(u64::from).ok_or(SHORT);
        let (page_bytes, header_pages, data_pages) = (pages()?, pages()?, pages()?);
        let (full_regions, last_pages) = (pages()?, pages()?);
        if page_bytes != PAGE_BYTES || data_pages == 0 || header_pages > 1 << MAX_ORDER {
            return Err("the layout in its header makes no sense");
        }
        let region_bytes = (header_pages + data_pages) * PAGE_BYTES;
        let last_bytes = if last_pages == 0 { 0 } else { (header_pages + last_pages) * PAGE_BYTES };
        let expected_len = (full_regions * region_bytes).saturating_add(PAGE_BYTES + last_bytes);

        let commits = [0, 1].map(|n| COMMITS_AT + n * COMMIT_BYTES).map(|at| Commit::read(&bytes[at..]));
        let [Some(first), Some(second)] = commits else { return Err(SHORT) };
        if first.version != COMMIT_VERSION || second.version != COMMIT_VERSION {
            return Err("a commit in its header has another version");
        }
        let counts = usize::from(flags & SECOND_COUNTS);
        let (current, other) = if counts == 1 { (second, first) } else { (first, second) };
        if !current.is_whole {
            return Err("the commit that counts is damaged");
        }
        let is_closed = flags & NOT_CLOSED == 0;
        let mut suspicions = Vec::new();
        let mut suspect = |at, what| suspicions.push(Suspicion { at, what, may_be_a_crash: !is_closed });
        if expected_len != file_len {
            suspect(0..COMMITS_AT as u64, "its length is not the one in its header");
        }
        let other_at = (COMMITS_AT + (1 - counts) * COMMIT_BYTES) as u64;
        let other_extent = other_at..other_at + COMMIT_BYTES as u64;
        if !other.is_whole {
            suspect(other_extent, "the commit of before, which does not count, is damaged");
        } else if other.number > current.number {
            suspect(other_extent, "the commit that counts is not the newest");
        }
        Ok(Self {
            file_len,
            region_header_bytes: header_pages * PAGE_BYTES,
            region_bytes,
            tables: current.tables,
            internal: current.internal,
            suspicions,
        })
    }

    /// Where a page lies, by its number.
    pub(super) fn extent(&self, page: u64) -> Option<Range<u64>> {
        let order = page >> 59;
        if order > MAX_ORDER {
            return None;
        }
        let (region, index) = ((page >> 20) & 0xf_ffff, page & (0xf_ffff >> order));
        let bytes = PAGE_BYTES << order;
        let start = PAGE_BYTES + region * self.region_bytes + self.region_header_bytes + index * bytes;
        (start + bytes <= self.file_len).then(|| start..start + bytes)
    }
}

impl Commit {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..COMMIT_BYTES)?;
        let (summed, sum) = bytes.split_at(COMMIT_SUM_AT);
        let mut input = Reader::over(summed);
        let (version, has_tables, has_internal) = (input.u8()?, input.u8()?, input.u8()?);
        input.raw(5)?;
        let (tables, internal, _) =
            (Root::read(&mut input)?, Root::read(&mut input)?, Root::read(&mut input)?);
        Some(Self {
            is_whole: checksum(summed).to_le_bytes() == *sum,
            version,
            tables: (has_tables != 0).then_some(tables),
            internal: (has_internal != 0).then_some(internal),
            number: input.u64()?,
        })
    }
}
