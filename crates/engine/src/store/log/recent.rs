//! The newest records, still in memory: a consumer that keeps up is served without reading a file.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::message::Location;

/// Enough for the records of some tens of milliseconds at full speed, in a pod of 128 MiB.
const MAX_BYTES: usize = 16 << 20;
/// A buffer that one large record made grow is not kept.
const MAX_SPARE_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Recent {
    records: VecDeque<Record>,
    bytes: usize,
    /// Used before: fresh buffers of this size would be mapped and unmapped each time.
    spare: Vec<Vec<u8>>,
}

struct Record {
    segment: u64,
    start: u32,
    bytes: Bytes,
}

impl Recent {
    /// An empty buffer for the next record.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn keep(&mut self, segment: u64, start: u32, record: Vec<u8>) -> Bytes {
        let bytes = Bytes::from(record);
        self.bytes += bytes.len();
        self.records.push_back(Record { segment, start, bytes: bytes.clone() });
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            self.reuse(oldest.bytes);
        }
        bytes
    }

    /// The bytes there, if their record is still kept.
    pub(super) fn get(&self, location: Location) -> Option<Bytes> {
        let behind = self
            .records
            .partition_point(|record| (record.segment, record.start) <= (location.segment, location.offset));
        let record = self.records.get(behind.checked_sub(1)?)?;
        let start = usize::try_from(location.offset - record.start).ok()?;
        let end = start + usize::try_from(location.len).ok()?;
        (record.segment == location.segment && end <= record.bytes.len())
            .then(|| record.bytes.slice(start..end))
    }

    /// Unless somebody still reads a body in it.
    fn reuse(&mut self, bytes: Bytes) {
        if let Ok(bytes) = bytes.try_into_mut() {
            let mut buffer = Vec::from(bytes);
            buffer.clear();
            if buffer.capacity() <= MAX_SPARE_BYTES {
                self.spare.push(buffer);
            }
        }
    }
}
