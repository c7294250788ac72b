//! The log: what the engine was told, batch by batch, each durable before it is applied.
//!
//! A record is appended with one write and one sync. Records fill **segments**: files of one length, named by a number that
//! is never used twice. A segment that nothing needs any more becomes a later one, by renaming: overwriting what was
//! written before costs the disk a fraction of growing a file. Bodies stay where they were written, and are read from there.
//!
//! One record at most is written and not yet synced. So behind the last record that can be read lies what a crash left of
//! one record, or what is left of the segment's earlier lives; a later record of this life would mean that one before it
//! is damaged.

mod recent;
mod segments;

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::record::{self, Batch, Blob, Decoded, Position};
use super::worker::Worker;
use super::{Options, StoreError};
use crate::message::{Location, Payload};
use recent::Recent;
use segments::Segments;

pub(super) struct Log {
    segments: Segments,
    /// Behind the last record: what was read of the log, later what was written.
    end: Position,
    recent: Recent,
    writer: Worker<Write>,
    /// The last record that was replayed.
    replayed: Option<Write>,
    /// A record is being written, or writing one failed. How much of that one is on disk is not known until the log is read
    /// anew, so that nothing is appended any more.
    is_writing: bool,
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
    pub(super) fn open(disk: Arc<dyn Disk>, options: Options, from: Position) -> Result<Self, StoreError> {
        let mut segments = Segments::open(disk, options.segment_bytes).map_err(StoreError::Files)?;
        segments.begin(from.segment, u64::from(from.offset)).map_err(StoreError::Files)?;
        let writer =
            Worker::new(options.threads, "log", |write: Write| write.make().map_err(StoreError::Append));
        Ok(Self {
            segments,
            end: from,
            recent: Recent::default(),
            writer: writer?,
            replayed: None,
            is_writing: false,
        })
    }

    /// Reads from there once more. What is stored where is counted anew.
    pub(super) fn rewind(&mut self, from: Position) {
        self.end = from;
        self.segments.forget_stored();
        self.replayed = None;
        self.recent = Recent::default();
    }

    /// The next record. `None`: that was all, and it is durable.
    pub(super) fn replay(&mut self) -> Result<Option<Replayed>, StoreError> {
        if let Some(Found { at, record, next, decoded }) = self.find(self.end)? {
            // A record whose payloads are not all there is what a crash left, unless it was confirmed, as the next one shows.
            if decoded.damaged == 0 || self.find(next)?.is_some() {
                self.end = next;
                let file = self.segments.file(at.segment).map_err(StoreError::ReadLog)?;
                self.replayed = Some(Write { file, offset: at.offset, record });
                let locations = decoded.blobs.iter().map(|blob| location(at, blob)).collect();
                return Ok(Some(Replayed { batch: decoded.batch, locations }));
            }
        }
        self.check_for_later()?;
        self.make_durable()?;
        Ok(None)
    }

    /// The last record may have been written by a process that was killed before its sync, or whose sync failed; then it can
    /// be read until the power is cut, and no later sync would write it. Now its effects will be seen: it is written anew.
    fn make_durable(&mut self) -> Result<(), StoreError> {
        self.replayed.take().map_or(Ok(()), Write::make).map_err(StoreError::Append)
    }

    /// The record that stands there, or begins the next segment because it did not fit.
    fn find(&self, expected: Position) -> Result<Option<Found>, StoreError> {
        for at in [expected, expected.in_next_segment()] {
            let Some(record) = self.read_declared(at.segment, at.offset)? else { continue };
            if let Some(decoded) = record::decode(&at, &record) {
                return Ok(Some(Found { at, next: at.after(&record), record, decoded }));
            }
        }
        Ok(None)
    }

    /// As many bytes as the header there says the record has.
    fn read_declared(&self, segment: u64, offset: u32) -> Result<Option<Bytes>, StoreError> {
        if !self.segments.has_room(segment, offset, record::HEADER_BYTES) {
            return Ok(None);
        }
        let read = |len| self.segments.read(segment, offset, len).map_err(StoreError::ReadLog);
        let Some(len) = record::declared_bytes(&read(stored(record::HEADER_BYTES))?) else { return Ok(None) };
        self.segments.has_room(segment, offset, len as usize).then(|| read(len)).transpose()
    }

    /// A record of this life behind one that cannot be read means that what was confirmed is damaged. It is looked for
    /// everywhere, since the damage may be where the length is.
    fn check_for_later(&self) -> Result<(), StoreError> {
        let Position { segment, offset, lsn, .. } = self.end;
        let rests =
            std::iter::once((segment, offset)).chain(self.segments.behind(segment).map(|later| (later, 0)));
        for (segment, offset) in rests {
            let rest = self.segments.read_rest(segment, offset).map_err(StoreError::ReadLog)?;
            if record::find(segment, offset, &rest).any(|found| found.lsn > lsn) {
                let key = format!("{lsn}, at byte {} of segment {},", self.end.offset, self.end.segment);
                return Err(StoreError::Corrupt { what: "log record", key });
            }
        }
        Ok(())
    }

    /// Begins to write the batch, once the one before is durable. Tells where the payloads of its messages will lie, in order.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<Vec<Location>, StoreError> {
        self.sync()?;
        self.is_writing = true;
        let mut buffer = self.recent.buffer();
        let mut blobs = record::encode(&self.end, batch, &mut buffer);
        if !self.segments.has_room(self.end.segment, self.end.offset, buffer.len()) {
            self.end = self.end.in_next_segment();
            self.segments.begin(self.end.segment, buffer.len() as u64).map_err(StoreError::Append)?;
            blobs = record::encode(&self.end, batch, &mut buffer);
        }
        let at = self.end;
        self.end = at.after(&buffer);
        let record = self.recent.keep(at.segment, at.offset, buffer);
        let file = self.segments.file(at.segment).map_err(StoreError::Append)?;
        self.writer.begin(Write { file, offset: at.offset, record })?;
        Ok(blobs.iter().map(|blob| location(at, blob)).collect())
    }

    /// Returns when everything appended is durable.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.is_writing {
            self.writer.wait()?;
            self.is_writing = false;
        }
        Ok(())
    }

    /// The payload; `None` if what lies there is not it.
    pub(super) fn payload(&self, location: Location) -> io::Result<Option<Payload>> {
        let bytes = match self.recent.get(location) {
            Some(bytes) => bytes,
            None => self.segments.read(location.segment, location.offset, location.len)?,
        };
        Ok(record::decode_payload(&bytes, location.crc))
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
}

fn location(record: Position, blob: &Blob) -> Location {
    let Blob { offset, len, crc } = *blob;
    Location { segment: record.segment, offset: record.offset + offset, len, crc }
}

fn stored(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment is shorter than 4 GiB")
}
