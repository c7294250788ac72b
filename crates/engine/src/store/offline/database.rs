//! The file of redb, page by page, without redb.
//!
//! redb opens a file only to write to it, and trusts what it reads. What is wanted here is the opposite: nothing is written, every
//! page is verified before it is believed, and one that is damaged costs its own rows only. Of redb's file format 3
//! (its `docs/design.md`) this knows what that takes: the header, the two commits of which one counts, and trees whose pages
//! hold the checksums of the pages below them. What is not reachable from the commit that counts is not in use, and not looked at.

mod header;
mod page;

use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::store::disk::DiskFile;
use header::Header;
pub(super) use header::{HEADER_BYTES, Suspicion};
pub(super) use page::Leaf;
use page::{Branch, Fixed, Page, Root};

/// A tree of 4 KiB pages over all that fits a file is far lower.
const MAX_DEPTH: usize = 32;

/// A file of redb.
pub(super) struct Database {
    file: Arc<dyn DiskFile>,
    header: Header,
}

/// A table, or redb's own bookkeeping.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) rows: u64,
    /// redb's own.
    pub(super) is_internal: bool,
    root: Option<Root>,
    fixed: Fixed,
}

/// A page that cannot be believed. What is below it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPage {
    /// In the file.
    pub(super) at: Range<u64>,
    pub(super) why: &'static str,
    /// Keys of its rows come behind this one; `None`: it may have the first.
    pub(super) after: Option<Vec<u8>>,
    /// And up to this one; `None`: it may have the last.
    pub(super) up_to: Option<Vec<u8>>,
}

/// What is found on the way through a tree, in the order of the keys.
pub(super) enum Step {
    /// Its extent.
    Branch(Range<u64>),
    Leaf(Leaf),
    Bad(BadPage),
}

impl Database {
    /// `Err` inside: why it is none.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> io::Result<Result<Self, &'static str>> {
        let len = file.len()?;
        let mut bytes = [0; HEADER_BYTES];
        if len < HEADER_BYTES as u64 {
            return Ok(Err("it is shorter than a header"));
        }
        file.read_at(0, &mut bytes)?;
        Ok(Header::read(&bytes, len).map(|header| Self { file, header }))
    }

    /// What of the header does not fit the rest.
    pub(super) fn suspicions(&self) -> &[Suspicion] {
        &self.header.suspicions
    }

    /// The tables. Of those whose definition cannot be read only the damage.
    pub(super) fn tables(&self) -> io::Result<(Vec<Table>, Vec<Step>)> {
        let (mut tables, mut steps) = (Vec::new(), Vec::new());
        for (root, is_internal) in [(self.header.tables, false), (self.header.internal, true)] {
            let list = Table { name: String::new(), rows: 0, is_internal, root, fixed: Fixed::default() };
            for step in self.walk(&list) {
                let step = step?;
                if let Step::Leaf(leaf) = &step {
                    tables
                        .extend(leaf.rows().filter_map(|(key, value)| Table::read(key, value, is_internal)));
                }
                steps.push(step);
            }
        }
        Ok((tables, steps))
    }

    /// Through all pages of a table.
    pub(super) fn walk(&self, table: &Table) -> Walk<'_> {
        let first = table.root.map(|root| Ahead { root, depth: 0, after: None, up_to: None });
        Walk { database: self, fixed: table.fixed, ahead: first.into_iter().collect() }
    }

    /// The value of a key that `order` finds: where it stands to the key it is given. `Err` inside: a page on the way is damaged.
    pub(super) fn get(
        &self,
        table: &Table,
        order: impl Fn(&[u8]) -> Ordering,
    ) -> io::Result<Result<Option<Vec<u8>>, BadPage>> {
        let mut next = table.root.map(|root| Ahead { root, depth: 0, after: None, up_to: None });
        while let Some(ahead) = next.take() {
            match self.read(&ahead, table.fixed)? {
                Err(bad) => return Ok(Err(bad)),
                Ok(Page::Leaf(leaf)) => {
                    let row = leaf.rows().find(|(key, _)| order(key) == Ordering::Equal);
                    return Ok(Ok(row.map(|(_, value)| value.to_vec())));
                }
                Ok(Page::Branch(branch)) => {
                    next = branch.children(&ahead).find(|child| {
                        child.up_to.as_deref().is_none_or(|up_to| order(up_to) != Ordering::Greater)
                    });
                }
            }
        }
        Ok(Ok(None))
    }

    fn read(&self, ahead: &Ahead, fixed: Fixed) -> io::Result<Result<Page, BadPage>> {
        let bad = |at, why| BadPage { at, why, after: ahead.after.clone(), up_to: ahead.up_to.clone() };
        let Some(extent) = self.header.extent(ahead.root.page) else {
            return Ok(Err(bad(0..0, "its place is not in the file")));
        };
        if ahead.depth > MAX_DEPTH {
            return Ok(Err(bad(extent, "it lies too deep")));
        }
        let mut bytes = vec![0; usize::try_from(extent.end - extent.start).map_err(io::Error::other)?];
        self.file.read_at(extent.start, &mut bytes)?;
        Ok(Page::verify(extent.start, bytes, ahead.root.checksum, fixed).map_err(|why| bad(extent, why)))
    }
}

/// A page that is to be read, and what is known of its keys.
#[derive(Clone)]
pub(super) struct Ahead {
    root: Root,
    depth: usize,
    after: Option<Vec<u8>>,
    up_to: Option<Vec<u8>>,
}

/// A way through a tree.
pub(super) struct Walk<'a> {
    database: &'a Database,
    fixed: Fixed,
    /// The next one at the end.
    ahead: Vec<Ahead>,
}

impl Iterator for Walk<'_> {
    type Item = io::Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        let ahead = self.ahead.pop()?;
        let page = match self.database.read(&ahead, self.fixed) {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match page {
            Err(bad) => Step::Bad(bad),
            Ok(Page::Leaf(leaf)) => Step::Leaf(leaf),
            Ok(Page::Branch(branch)) => {
                let at = self.ahead.len();
                self.ahead.extend(branch.children(&ahead));
                self.ahead[at..].reverse();
                Step::Branch(branch.extent())
            }
        }))
    }
}

impl Branch {
    fn children<'a>(&'a self, above: &'a Ahead) -> impl Iterator<Item = Ahead> + 'a {
        (0..=self.keys()).filter_map(move |n| {
            let before = n.checked_sub(1).map_or(above.after.as_deref(), |before| self.key(before));
            let up_to = if n == self.keys() { above.up_to.as_deref() } else { self.key(n) };
            let owned = |key: Option<&[u8]>| key.map(<[u8]>::to_vec);
            Some(Ahead {
                root: self.child(n)?,
                depth: above.depth + 1,
                after: owned(before),
                up_to: owned(up_to),
            })
        })
    }
}

#[cfg(test)]
mod tests;
