//! Through the log, from its oldest record to its newest: whole, in its place, and behind the right one.

use std::io;

use super::segments::{Found, Segment, Stands};
use crate::store::encoding::Reader;
use crate::store::record::{self, Position};

/// What is met on the way.
pub(super) enum Met<'a> {
    Record(&'a Segment, Found),
    /// Bytes that were a record, or several: a later one follows, in this segment or another.
    Damaged {
        segment: &'a Segment,
        from: u32,
        to: Option<u32>,
        first: Option<u64>,
        next: Option<u64>,
    },
    /// A record stands behind another one than it was written behind.
    Unchained {
        segment: &'a Segment,
        at: Position,
        expected: u64,
    },
    /// What a crash leaves of a record, or a damaged one: nothing follows that would tell.
    Torn {
        segment: &'a Segment,
        from: u32,
        lsn: Option<u64>,
    },
    /// The file is not there, although the log goes through it.
    Missing(u64),
}

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) segment: u64,
    pub(super) lsn: u64,
    pub(super) chain: u32,
}

/// A way through the files in use; those put aside are passed over.
pub(super) struct Scan<'a, F> {
    meet: F,
    /// The first record that the checkpoint does not have stands here, if there is one. Segments from this one on are needed.
    applied: Option<Position>,
    next: Option<Next>,
    /// Where the segment of before ended, when something lay there that looked like the next record.
    torn: Option<(&'a Segment, u32, Option<u64>)>,
}

impl<'a, F: FnMut(Met<'a>) -> io::Result<()>> Scan<'a, F> {
    pub(super) fn new(applied: Option<Position>, meet: F) -> Self {
        Self { meet, applied, next: None, torn: None }
    }

    /// Returns where the log ends.
    pub(super) fn run(mut self, segments: &'a [Segment]) -> io::Result<Option<Next>> {
        let mut in_use: Vec<&Segment> = segments.iter().filter(|segment| !segment.is_aside).collect();
        in_use.sort_by_key(|segment| segment.number);
        let needed = self.applied.map_or(u64::MAX, |applied| applied.segment);
        let mut before: Option<u64> = None;
        for segment in &in_use {
            let follows = before.map_or(needed, |before| before + 1);
            if before.is_some() && follows < segment.number {
                self.forget()?;
            }
            // Others were free, and are gone by right. A name that damage made up must not become a billion findings.
            let missing = follows.max(needed)..segment.number;
            missing.take(MAX_MISSING).try_for_each(|missing| (self.meet)(Met::Missing(missing)))?;
            self.segment(segment, Some(segment.number) == in_use.last().map(|last| last.number))?;
            before = Some(segment.number);
        }
        if self.applied.is_some() && before.is_none_or(|before| before < needed) {
            (self.meet)(Met::Missing(needed))?;
        }
        self.forget_torn()?;
        Ok(self.next)
    }

    /// Behind segments that are gone nothing is known of what comes.
    fn forget(&mut self) -> io::Result<()> {
        self.next = None;
        self.forget_torn()
    }

    fn forget_torn(&mut self) -> io::Result<()> {
        self.torn.take().map_or(Ok(()), |(segment, from, lsn)| (self.meet)(Met::Torn { segment, from, lsn }))
    }

    fn segment(&mut self, segment: &'a Segment, is_last: bool) -> io::Result<()> {
        let mut offset = 0;
        loop {
            self.note_applied(segment.number, offset);
            // One that stands behind damage has a later number than the one that is lost.
            let behind = self.next.map(|next| next.lsn);
            match segment.look(offset, behind)? {
                Stands::Record(found) if self.is_leftover(&found) => return Ok(()),
                Stands::Record(found) => {
                    self.chain(segment, &found)?;
                    offset = found.next.offset;
                    self.next =
                        Some(Next { segment: segment.number, lsn: found.next.lsn, chain: found.next.chain });
                    (self.meet)(Met::Record(segment, *found))?;
                }
                Stands::Hole(Some(to)) => {
                    self.damaged(segment, offset, to)?;
                    offset = to;
                }
                Stands::Hole(None) => return self.rest(segment, offset, is_last),
            }
        }
    }

    /// Whatever is lost before: what follows the checkpoint is known.
    fn note_applied(&mut self, segment: u64, offset: u32) {
        let applied = self.applied.filter(|applied| (applied.segment, applied.offset) == (segment, offset));
        if let (None, Some(Position { lsn, chain, .. })) = (self.next, applied) {
            self.next = Some(Next { segment, lsn, chain });
        }
    }

    /// What an earlier end of the log left.
    fn is_leftover(&self, found: &Found) -> bool {
        self.next.is_some_and(|next| found.at.lsn < next.lsn)
    }

    fn chain(&mut self, segment: &'a Segment, found: &Found) -> io::Result<()> {
        let torn = self.torn.take();
        let Some(next) = self.next else { return Ok(()) };
        if found.at.lsn == next.lsn && found.at.chain == next.chain {
            // What lay at the end of the segment of before was never confirmed: this came in its place.
            return Ok(());
        }
        match torn {
            Some((before, from, _)) => (self.meet)(Met::Damaged {
                segment: before,
                from,
                to: None,
                first: Some(next.lsn),
                next: Some(found.at.lsn),
            }),
            None => (self.meet)(Met::Unchained { segment, at: found.at, expected: next.lsn }),
        }
    }

    fn damaged(&mut self, segment: &'a Segment, from: u32, to: u32) -> io::Result<()> {
        self.torn = None;
        let first = self.next.take().map(|next| next.lsn);
        let next = match segment.look(to, None)? {
            Stands::Record(found) => Some(found.at.lsn),
            Stands::Hole(_) => None,
        };
        (self.meet)(Met::Damaged { segment, from, to: Some(to), first, next })
    }

    /// No record stands there, nor behind. Is it the end of the segment, or was there one?
    fn rest(&mut self, segment: &'a Segment, offset: u32, is_last: bool) -> io::Result<()> {
        let header = segment.header(offset)?.unwrap_or_default();
        let resembles = resembles(&header, segment.number, offset, self.next);
        // Every segment but the last one begins with a record: it was made for it.
        if resembles || (offset == 0 && !is_last) {
            self.forget_torn()?;
            self.torn = Some((segment, offset, self.next.map(|next| next.lsn)));
        }
        Ok(())
    }
}

/// Reported one by one.
const MAX_MISSING: usize = 1000;

/// Whether this was the header of the record that is expected there.
fn resembles(header: &[u8], segment: u64, offset: u32, next: Option<Next>) -> bool {
    if let Some(Next { lsn, chain, .. }) = next {
        return record::resembles(&Position { segment, offset, lsn, chain }, header);
    }
    // Nothing is known of its past; the number of its segment is not there by chance.
    Reader::over(header.get(16..).unwrap_or_default()).u64() == Some(segment)
}
