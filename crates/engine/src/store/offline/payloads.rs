//! Bodies, read in about the order in which they were stored.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::segments::Segment;
use crate::message::{Location, Payload};
use crate::store::record::{decode_payload, lift};
use crate::store::tables::FILE;

/// Read at once: neighbours are asked for one after the other.
const WINDOW_BYTES: u64 = 1 << 20;

pub(super) struct Payloads<'a> {
    checkpoint: Option<&'a Checkpoint>,
    segments: BTreeMap<u64, &'a Segment>,
    /// Where it begins.
    window: (u64, u64),
    bytes: Bytes,
}

/// What lies where a payload should.
pub(super) enum Lies {
    Whole(Payload),
    /// Something else.
    Damaged(Bytes),
    /// Nothing: why.
    Missing(&'static str),
}

impl<'a> Payloads<'a> {
    pub(super) fn new(checkpoint: Option<&'a Checkpoint>, segments: &'a [Segment]) -> Self {
        // A segment that is in use comes before its copy that was put aside; that one is better than nothing.
        let by_number = segments.iter().rev().map(|segment| (segment.number, segment)).collect();
        Self { checkpoint, segments: by_number, window: (0, 0), bytes: Bytes::new() }
    }

    pub(super) fn read(&mut self, location: Location) -> io::Result<Lies> {
        let moved = self.checkpoint.filter(|checkpoint| checkpoint.has_moved(location.segment));
        let bytes = match moved {
            Some(checkpoint) => match checkpoint.payload(location)? {
                Some(bytes) => Bytes::from(bytes),
                None => {
                    return Ok(Lies::Missing(
                        "it is not among the payloads in state.redb, nor in its segment",
                    ));
                }
            },
            None => match self.segment(location)? {
                Ok(bytes) => self.lift(location, bytes),
                Err(why) => return Ok(Lies::Missing(why)),
            },
        };
        let payload = decode_payload(&bytes, location.crc);
        Ok(payload.map_or(Lies::Damaged(bytes), Lies::Whole))
    }

    /// As it was before it was sealed; nothing of what cannot be opened.
    fn lift(&self, location: Location, bytes: Bytes) -> Bytes {
        let segment = self.segments.get(&location.segment);
        let lifted =
            segment.and_then(|segment| lift(&segment.cover, location.segment, location.offset, bytes));
        lifted.unwrap_or_default()
    }

    /// The file where it lies.
    pub(super) fn file(&self, location: Location) -> String {
        if self.checkpoint.is_some_and(|checkpoint| checkpoint.has_moved(location.segment)) {
            return FILE.to_owned();
        }
        let name = self.segments.get(&location.segment).map(|segment| segment.name.clone());
        name.unwrap_or_else(|| crate::store::log::name_of(location.segment))
    }

    fn segment(&mut self, location: Location) -> io::Result<Result<Bytes, &'static str>> {
        let Location { segment: number, offset, len, .. } = location;
        let (start, len) = (u64::from(offset), u64::from(len));
        let Some(segment) = self.segments.get(&number) else { return Ok(Err("its segment is not there")) };
        if start + len > segment.len {
            return Ok(Err("its segment ends before it"));
        }
        let (in_window, window_at) = self.window;
        let window_end = window_at + self.bytes.len() as u64;
        if number != in_window || start < window_at || start + len > window_end {
            let end = segment.len.min(start + len.max(WINDOW_BYTES));
            self.bytes = segment.read(start..end)?;
            self.window = (number, start);
        }
        let from = usize::try_from(start - self.window.1).map_err(io::Error::other)?;
        Ok(Ok(self.bytes.slice(from..from + usize::try_from(len).map_err(io::Error::other)?)))
    }
}
