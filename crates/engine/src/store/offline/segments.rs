//! The files of the log, and what is in one of them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Offline, OfflineError};
use crate::store::disk::DiskFile;
use crate::store::log::{lift, name_of, number_of};
use crate::store::record::{self, Decoded, HEADER_BYTES, Position};
use crate::store::seal::Cover;

/// A segment that was found to be damaged when a broker opened the store, put aside by this ending of its name.
const DAMAGED: &str = "damaged";
/// The longest record that is believed. A batch is some tens of megabytes at most; what claims more is garbage, and must not fill the
/// memory.
const MAX_RECORD_BYTES: u32 = 256 << 20;
/// Looked through at once for a record behind damage.
const STEP_BYTES: u64 = 8 << 20;

/// A file of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) name: String,
    /// It was put aside: the store uses it no more.
    pub(super) is_aside: bool,
    pub(super) len: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) cover: Cover,
}

/// A record in its place. Only its payloads may be damaged.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) at: Position,
    /// Behind it.
    pub(super) next: Position,
    pub(super) bytes: Bytes,
    pub(super) decoded: Decoded,
}

/// What stands somewhere in a segment.
pub(super) enum Stands {
    Record(Box<Found>),
    /// Nothing that can be read; where the next record is that can.
    Hole(Option<u32>),
}

/// All of them, by number; one that was put aside behind the one in use.
pub(super) fn all(offline: &Offline) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for name in offline.raw.list()? {
        let Some((number, is_aside)) = parse(&name) else { continue };
        let (file, cover) = lift(offline.raw.open(&name)?, number, offline.keys.as_ref())?;
        let len = file.len()?;
        segments.push(Segment { number, name, is_aside, len, file, cover });
    }
    segments.sort_by_key(|segment| (segment.number, segment.is_aside));
    Ok(segments)
}

fn parse(name: &str) -> Option<(u64, bool)> {
    if let Some(number) = number_of(name) {
        return Some((number, false));
    }
    let (stem, ending) = name.split_once('.')?;
    let number = number_of(&format!("{stem}.log")).filter(|number| name_of(*number).starts_with(stem))?;
    ending.starts_with(DAMAGED).then_some((number, true))
}

/// Every record that can be read, whatever is damaged between them; also those that an earlier end of the log left.
pub(super) fn each_record(segment: &Segment, each: &mut dyn FnMut(&Found)) -> io::Result<()> {
    let mut offset = Some(0);
    while let Some(at) = offset {
        offset = match segment.look(at, None)? {
            Stands::Record(found) => {
                each(&found);
                Some(found.next.offset)
            }
            Stands::Hole(next) => next,
        };
    }
    Ok(())
}

impl Segment {
    /// Refuses one that is sealed with a key that is not there.
    pub(super) fn must_open(&self) -> Result<(), OfflineError> {
        match &self.cover {
            Cover::Locked(error) => Err(OfflineError::Key(error.clone())),
            _ => Ok(()),
        }
    }

    /// Records are placed in the first 4 GiB only.
    fn end(&self) -> u64 {
        self.len.min(u64::from(u32::MAX))
    }

    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = BytesMut::zeroed(len);
        self.file.read_at(range.start, &mut bytes)?;
        Ok(bytes.freeze())
    }

    /// What begins at the offset. A record that is passed over must have a number above `behind`.
    pub(super) fn look(&self, offset: u32, behind: Option<u64>) -> io::Result<Stands> {
        match self.record(offset)? {
            Some(found) => Ok(Stands::Record(Box::new(found))),
            None => self.find(offset, behind).map(Stands::Hole),
        }
    }

    /// The first bytes there, as many as a header has, if there are so many.
    pub(super) fn header(&self, offset: u32) -> io::Result<Option<Bytes>> {
        let end = u64::from(offset) + HEADER_BYTES as u64;
        if end > self.end() { Ok(None) } else { self.read(u64::from(offset)..end).map(Some) }
    }

    fn record(&self, offset: u32) -> io::Result<Option<Found>> {
        let header = self.header(offset)?;
        let Some(len) = header.and_then(|header| record::declared_bytes(&header)) else { return Ok(None) };
        let end = u64::from(offset) + u64::from(len);
        if len > MAX_RECORD_BYTES || end > self.end() {
            return Ok(None);
        }
        let bytes = self.read(offset.into()..end)?;
        let Some(at) = record::recognize(self.number, offset, &bytes) else { return Ok(None) };
        let decoded = record::decode(&at, &bytes, &self.cover);
        Ok(decoded.map(|decoded| Found { at, next: at.after(&bytes), bytes, decoded }))
    }

    /// The next record behind the offset.
    fn find(&self, offset: u32, behind: Option<u64>) -> io::Result<Option<u32>> {
        let mut start = u64::from(offset);
        while start + (HEADER_BYTES as u64) < self.end() {
            let end = self.end().min(start + STEP_BYTES);
            // A record that reaches into the next step is read whole where it begins.
            let bytes = self.read(start..end)?;
            for at in record::beginnings(without_zeros(&bytes)) {
                let at = u32::try_from(start + at as u64).map_err(io::Error::other)?;
                let found = if at > offset { self.record(at)? } else { None };
                if found.is_some_and(|found| behind.is_none_or(|behind| found.at.lsn > behind)) {
                    return Ok(Some(at));
                }
            }
            // So that one which begins at the very end of a step is seen in the next.
            start = if end == self.end() { end } else { end - HEADER_BYTES as u64 };
        }
        Ok(None)
    }
}

/// Cut before the blocks of zeros at its end, which is most of a new segment.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut used = bytes;
    while let Some(before) = used.strip_suffix(&ZEROS) {
        used = before;
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what was put aside is found under its number, whatever else its name says; other files are none of the log's.
    #[test]
    fn names_of_segments_are_told_from_others() {
        assert_eq!(parse("000000000000002a.log"), Some((42, false)));
        assert_eq!(parse("000000000000002a.damaged"), Some((42, true)));
        assert_eq!(parse("000000000000002a.damaged-3"), Some((42, true)));
        for other in ["state.redb", "2a.log", "000000000000002a.txt", "lock", "", ".log"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
