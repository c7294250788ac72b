//! The log: what the engine was told, batch by batch, each durable before it is applied.
//!
//! A record is appended with one write and one sync. Records fill **segments**: files of one length, named by a number that
//! is never used twice. A segment that nothing needs any more becomes a later one, by renaming: overwriting what was
//! written before costs the disk a fraction of growing a file. Bodies stay where they were written, and are read from there.
//!
//! One record at most is written and not yet synced; those behind it wait. So behind the last record that can be read lies
//! what a crash left of one record, or what is left of the segment's earlier lives; a later record of this life means that one before it is
//! damaged. Then reading goes on with that later one, and whoever applies the records is told that some are missing.

mod ahead;
mod damage;
mod quarantine;
mod recent;
mod segments;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::record::{self, Batch, Blob, Decoded, Position};
use super::reserve;
use super::seal::Keys;
use super::worker::{Urgency, Worker};
use super::{Options, StoreError};
use crate::message::{Location, Payload};
use ahead::Ahead;
pub use damage::{Harm, LogDamage};
use recent::Recent;
use segments::Segments;
pub(super) use segments::{Source, lift, name_of, number_of};

pub(super) struct Log {
    segments: Segments,
    /// Behind the last record: what was read of the log, later what was written.
    end: Position,
    recent: Recent,
    /// What was read last, which reading a payload changes.
    ahead: RefCell<Ahead>,
    writer: Worker<Write>,
    /// The last record that was replayed.
    replayed: Option<Write>,
    /// The segment in which reading began was not there, or not all of what was known of it.
    cut_short: Option<LogDamage>,
    /// What reading found.
    damage: Vec<LogDamage>,
    /// Reading has left something out.
    has_gap: bool,
}

struct Write {
    file: Arc<dyn DiskFile>,
    offset: u32,
    record: Bytes,
}

impl Write {
    /// Returns when it is durable.
    fn make(self) -> io::Result<()> {
        self.file.write_at(self.offset.into(), &self.record)?;
        self.file.sync()
    }
}

impl Log {
    /// Takes the log up at a position that a checkpoint knows. What follows it must be [replayed](Self::replay) before
    /// anything can be appended.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        keys: Option<Keys>,
        from: Position,
    ) -> Result<Self, StoreError> {
        let mut segments = Segments::open(disk, options.segment_bytes, keys).map_err(StoreError::Files)?;
        let is_cut_short = !segments.has_room(from.segment, 0, from.offset as usize) && from.offset > 0;
        let cut_short = is_cut_short.then_some(LogDamage {
            what: Harm::File { messages: 0 },
            segment: from.segment,
            offset: 0,
        });
        segments.take_up(from.segment, u64::from(from.offset)).map_err(StoreError::Files)?;
        let writer = Worker::new(options.threads, "log", Urgency::High, |write: Write| {
            write.make().map_err(StoreError::Append)
        });
        Ok(Self {
            segments,
            end: from,
            recent: Recent::default(),
            ahead: RefCell::default(),
            writer: writer?,
            replayed: None,
            cut_short,
            damage: Vec::new(),
            has_gap: false,
        })
    }

    /// Reads from there once more. What is stored where is counted anew.
    pub(super) fn rewind(&mut self, from: Position) {
        self.end = from;
        self.segments.forget_stored();
        self.replayed = None;
        self.damage.clear();
        self.has_gap = false;
        self.recent = Recent::default();
        self.ahead = RefCell::default();
    }

    /// The next record. `None`: that was all, and it is durable.
    pub(super) fn replay(&mut self) -> Result<Option<Replayed>, StoreError> {
        loop {
            if let Some(found) = self.find(self.end)?
                && self.is_confirmed(&found)?
            {
                return self.take(found).map(Some);
            }
            let Some(later) = self.later(self.end)? else { break };
            self.skip_to(later);
        }
        self.look_at_tail()?;
        self.make_durable()?;
        Ok(None)
    }

    /// A record whose payloads are not all there is what a crash left, unless it was confirmed, as a later one shows.
    fn is_confirmed(&self, found: &Found) -> Result<bool, StoreError> {
        Ok(found.decoded.damaged == 0
            || self.find(found.next)?.is_some()
            || self.later(found.next)?.is_some())
    }

    fn take(&mut self, found: Found) -> Result<Replayed, StoreError> {
        let Found { at, record, next, decoded } = found;
        self.end = next;
        let file = self.segments.file(at.segment).map_err(StoreError::ReadLog)?;
        self.replayed = Some(Write { file, offset: at.offset, record });
        let locations = decoded.blobs.iter().map(|blob| location(at, blob)).collect();
        Ok(Replayed { batch: decoded.batch, locations, at, is_behind_gap: self.has_gap })
    }

    /// Goes on at a later record, whose past is not known.
    fn skip_to(&mut self, later: Position) {
        let Position { segment, offset, lsn, .. } = self.end;
        let until = (later.segment, later.offset);
        let what = Harm::Records { first_lsn: lsn, last_lsn: later.lsn - 1, until };
        self.damage.push(LogDamage { what, segment, offset });
        self.has_gap = true;
        self.end = later;
    }

    /// What stands where the log ends may be a record all the same.
    fn look_at_tail(&mut self) -> Result<(), StoreError> {
        for at in [self.end, self.end.in_next_segment()] {
            let Some(header) = self.read_header(at.segment, at.offset)? else { continue };
            if record::resembles(&at, &header) {
                let Position { segment, offset, lsn, .. } = at;
                self.damage.push(LogDamage { what: Harm::Tail { lsn }, segment, offset });
            }
        }
        Ok(())
    }

    /// What was found damaged, if all was read.
    pub(super) fn damage(&self) -> Vec<LogDamage> {
        let absent = self.segments.absent().map(|(segment, messages)| LogDamage {
            what: Harm::File { messages },
            segment,
            offset: 0,
        });
        self.cut_short.iter().chain(&self.damage).cloned().chain(absent).collect()
    }

    /// Keeps copies of the segments in which something is damaged, before they may be used again.
    pub(super) fn quarantine(&self, damage: &[LogDamage]) {
        let certain = damage.iter().filter(|damage| damage.is_certain());
        let segments: BTreeSet<u64> = certain.flat_map(LogDamage::segments).collect();
        // Without room for the copies the store must still open; what was found damaged is told all the same.
        _ = quarantine::keep(&self.segments, segments.into_iter());
    }

    /// The last record may have been written by a process that was killed before its sync, or whose sync failed; then it can
    /// be read until the power is cut, and no later sync would write it. Now its effects will be seen: it is written anew.
    fn make_durable(&mut self) -> Result<(), StoreError> {
        self.segments.write_envelope_anew(self.end.segment).map_err(StoreError::Append)?;
        self.replayed.take().map_or(Ok(()), Write::make).map_err(StoreError::Append)
    }

    /// The record that stands there, or begins the next segment because it did not fit.
    fn find(&self, expected: Position) -> Result<Option<Found>, StoreError> {
        for at in [expected, expected.in_next_segment()] {
            let Some(record) = self.read_declared(at.segment, at.offset)? else { continue };
            if let Some(decoded) = record::decode(&at, &record, self.segments.cover(at.segment)) {
                return Ok(Some(Found { at, next: at.after(&record), record, decoded }));
            }
        }
        Ok(None)
    }

    /// As many bytes as the header there says the record has.
    fn read_declared(&self, segment: u64, offset: u32) -> Result<Option<Bytes>, StoreError> {
        let Some(header) = self.read_header(segment, offset)? else { return Ok(None) };
        let Some(len) = record::declared_bytes(&header) else { return Ok(None) };
        let is_there = self.segments.has_room(segment, offset, len as usize);
        is_there.then(|| self.segments.read(segment, offset, len).map_err(StoreError::ReadLog)).transpose()
    }

    /// As many bytes as a header has, if there is room for one.
    fn read_header(&self, segment: u64, offset: u32) -> Result<Option<Bytes>, StoreError> {
        let is_there = self.segments.has_room(segment, offset, record::HEADER_BYTES);
        let read = || self.segments.read(segment, offset, stored(record::HEADER_BYTES));
        is_there.then(|| read().map_err(StoreError::ReadLog)).transpose()
    }

    /// The next record of this life behind that position, wherever it is: the damage may be where a length is, and a file
    /// may be missing.
    fn later(&self, expected: Position) -> Result<Option<Position>, StoreError> {
        let Position { segment, offset, lsn, .. } = expected;
        let here = self.segments.has_room(segment, offset, 0).then_some((segment, offset));
        for (segment, offset) in here.into_iter().chain(self.segments.behind(segment).map(|later| (later, 0)))
        {
            let rest = self.segments.read_rest(segment, offset).map_err(StoreError::ReadLog)?;
            let later = if self.segments.cover(segment).can_be_lifted() {
                record::find(segment, offset, &rest).find(|found| found.lsn > lsn)
            } else {
                // Nothing in it can be opened, but it is seen what was there. The first record may be one that a crash left.
                record::behind_last(segment, offset, &rest, lsn + 1)
            };
            if later.is_some() {
                return Ok(later);
            }
        }
        Ok(None)
    }

    /// Has the batch written, once those before it are durable; not at all if one of these fails: how much of that one is on
    /// disk is not known until the log is read anew. Tells where the payloads of its messages will lie, in order.
    /// [`Full`](StoreError::Full): nothing was begun.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<Vec<Location>, StoreError> {
        let mut buffer = self.recent.buffer();
        let mut blobs = self.encode(batch, &mut buffer);
        if blobs.is_none() {
            let next = self.end.in_next_segment();
            self.segments.begin(next.segment, buffer.len() as u64).map_err(no_segment)?;
            self.end = next;
            blobs = self.encode(batch, &mut buffer);
        }
        let blobs = blobs.expect("the segment was made as long as it takes");
        let at = self.end;
        self.end = at.after(&buffer);
        let record = self.recent.keep(at.segment, at.offset, buffer);
        let file = self.segments.file(at.segment).map_err(StoreError::Append)?;
        self.writer.begin(Write { file, offset: at.offset, record })?;
        Ok(blobs.iter().map(|blob| location(at, blob)).collect())
    }

    /// The record at the end of the log, and where its payloads lie in it. `None`: it does not fit, or cannot be written there.
    fn encode(&self, batch: &Batch, buffer: &mut Vec<u8>) -> Option<Vec<Blob>> {
        let cover = self.segments.cover(self.end.segment);
        let blobs = record::encode(&self.end, batch, cover, buffer);
        let has_room = self.segments.has_room(self.end.segment, self.end.offset, buffer.len());
        (has_room && cover.can_be_lifted()).then_some(blobs)
    }

    /// How many batches were appended since it was opened.
    pub(super) fn appended(&self) -> u64 {
        self.writer.begun()
    }

    /// Returns when so many of the batches that were appended are durable.
    pub(super) fn wait_for(&mut self, batches: u64) -> Result<(), StoreError> {
        self.writer.wait_for(batches)
    }

    /// The payload; `None` if what lies there is not it, or nothing does.
    pub(super) fn payload(&self, location: Location) -> io::Result<Option<Payload>> {
        let cover = self.segments.cover(location.segment);
        let lift = |bytes| record::lift(cover, location.segment, location.offset, bytes);
        if let Some(bytes) = self.recent.get(location) {
            return Ok(lift(bytes).and_then(|bytes| record::parse_payload(&bytes)));
        }
        if !self.segments.has_room(location.segment, location.offset, location.len as usize) {
            return Ok(None);
        }
        if let Some(payload) = self.ahead.borrow_mut().payload(&self.segments, location) {
            return Ok(Some(payload));
        }
        let bytes = self.segments.read(location.segment, location.offset, location.len)?;
        Ok(lift(bytes).and_then(|bytes| record::decode_payload(&bytes, location.crc)))
    }

    /// Read or written since that position. Less than there was where a segment ended before it was full.
    pub(super) fn bytes_since(&self, before: Position) -> u64 {
        let start = if before.segment == self.end.segment { before.offset } else { 0 };
        u64::from(self.end.offset - start)
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    pub(super) fn segments(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// How many segments are sealed with each key.
    pub(super) fn keys_in_use(&self) -> BTreeMap<String, u64> {
        self.segments.keys_in_use()
    }

    /// Of all its files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.bytes()
    }
}

#[cfg(test)]
impl Log {
    /// Changes what lies there, as a failing disk would.
    pub(super) fn overwrite(&mut self, location: Location, change: impl FnOnce(&mut [u8])) {
        let Location { segment, offset, len, .. } = location;
        let mut bytes = self.segments.read(segment, offset, len).unwrap().to_vec();
        change(&mut bytes);
        self.segments.file(segment).unwrap().write_at(offset.into(), &bytes).unwrap();
        self.recent = Recent::default();
        self.ahead = RefCell::default();
    }
}

/// A record in its place.
struct Found {
    at: Position,
    record: Bytes,
    next: Position,
    decoded: Decoded,
}

/// A record that was read, and where the payloads of its messages lie.
pub(crate) struct Replayed {
    pub(crate) batch: Batch,
    pub(crate) locations: Vec<Location>,
    pub(crate) at: Position,
    /// Records before it are missing.
    pub(crate) is_behind_gap: bool,
}

fn location(record: Position, blob: &Blob) -> Location {
    let Blob { offset, len, crc } = *blob;
    Location { segment: record.segment, offset: record.offset + offset, len, crc }
}

fn no_segment(error: io::Error) -> StoreError {
    if reserve::is_full(&error) { StoreError::Full(error) } else { StoreError::Append(error) }
}

fn stored(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment is shorter than 4 GiB")
}
