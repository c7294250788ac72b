//! Payloads read in one go: messages are mostly received in the order in which they were stored, so those behind one that
//! is read are likely wanted next, and one call of the system brings them all.

use std::ops::Range;

use bytes::Bytes;

use super::segments::Segments;
use crate::message::{Location, Payload};
use crate::store::record;

/// A call costs about as much as copying a few kilobytes, so more gains little; and a body that is held keeps all of it.
const WINDOW_BYTES: u32 = 64 << 10;
/// Between the payloads of two records lie the commands of the second.
const MAX_GAP_BYTES: u32 = 4 << 10;

/// What was read last.
#[derive(Default)]
pub(super) struct Ahead {
    segment: u64,
    start: u32,
    bytes: Bytes,
    /// Behind the payload that was asked for last.
    next: u32,
}

impl Ahead {
    /// The payload, if there is nothing wrong with it. If there is, the file may still have it: at the end of the log it was
    /// perhaps not written when it was read ahead, and what cannot be read may be what lies behind it.
    pub(super) fn payload(&mut self, segments: &Segments, location: Location) -> Option<Payload> {
        let cover = segments.cover(location.segment);
        let bytes = self.bytes(segments, location);
        let bytes = bytes.and_then(|bytes| record::lift(cover, location.segment, location.offset, bytes));
        let payload = bytes.and_then(|bytes| record::decode_payload(&bytes, location.crc));
        if payload.is_none() {
            *self = Self::default();
        }
        payload
    }

    fn bytes(&mut self, segments: &Segments, location: Location) -> Option<Bytes> {
        if self.range(location).is_none() {
            let len = if self.is_next(location) { WINDOW_BYTES.max(location.len) } else { location.len };
            self.bytes = segments.read_up_to(location.segment, location.offset, len).ok()?;
            (self.segment, self.start) = (location.segment, location.offset);
        }
        self.next = location.offset.saturating_add(location.len);
        self.range(location).map(|range| self.bytes.slice(range))
    }

    /// Where in the bytes it lies, if all of it does.
    fn range(&self, location: Location) -> Option<Range<usize>> {
        let start = location.offset.checked_sub(self.start)? as usize;
        let end = start + location.len as usize;
        (self.segment == location.segment && end <= self.bytes.len()).then_some(start..end)
    }

    fn is_next(&self, location: Location) -> bool {
        let gap = location.offset.checked_sub(self.next);
        self.segment == location.segment && gap.is_some_and(|gap| gap <= MAX_GAP_BYTES)
    }
}

#[cfg(test)]
mod tests;
