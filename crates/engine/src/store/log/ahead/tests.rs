use std::sync::Arc;

use super::*;
use crate::store::codec::write_payload;
use crate::store::disk::DiskFile;
use crate::store::encoding::Writer;
use crate::store::tests::MemoryDisk;

const SEGMENT: u64 = 1;

/// One segment with room for some payloads, one behind the other.
struct Rig {
    segments: Segments,
    file: Arc<dyn DiskFile>,
    ahead: Ahead,
}

impl Rig {
    fn new() -> Self {
        let mut segments = Segments::open(Arc::<MemoryDisk>::default(), 4096, None).unwrap();
        segments.begin(SEGMENT, 4096).unwrap();
        let file = segments.file(SEGMENT).unwrap();
        Self { segments, file, ahead: Ahead::default() }
    }

    fn write(&self, no: u32) {
        self.file.write_at(at(no).offset.into(), &bytes(no)).unwrap();
    }

    fn read(&mut self, no: u32) -> Option<Payload> {
        self.ahead.payload(&self.segments, at(no))
    }
}

fn payload(no: u32) -> Payload {
    Payload { body: Bytes::from(format!("body {no}")), ..Payload::default() }
}

fn bytes(no: u32) -> Vec<u8> {
    let mut out = Writer::default();
    write_payload(&mut out, &payload(no));
    out.0
}

fn at(no: u32) -> Location {
    let bytes = bytes(no);
    let len = u32::try_from(bytes.len()).unwrap();
    Location { segment: SEGMENT, offset: no * len, len, crc: crc32c::crc32c(&bytes) }
}

/// The second payload brings those behind it: they are there although the file has changed meanwhile.
#[test]
fn payloads_in_order_are_read_in_one_go() {
    let mut rig = Rig::new();
    (0..4).for_each(|no| rig.write(no));
    assert_eq!((rig.read(0), rig.read(1)), (Some(payload(0)), Some(payload(1))));
    rig.file.write_at(0, &[0; 4096]).unwrap();
    assert_eq!((rig.read(2), rig.read(3)), (Some(payload(2)), Some(payload(3))));
}

/// One payload here, one there: nothing else is read.
#[test]
fn payloads_out_of_order_are_read_alone() {
    let mut rig = Rig::new();
    (0..4).for_each(|no| rig.write(no));
    assert_eq!((rig.read(3), rig.read(1)), (Some(payload(3)), Some(payload(1))));
    assert_eq!(rig.ahead.bytes.len(), bytes(1).len());
}

/// Promise: a message is not called damaged because it was read ahead before it was written.
#[test]
fn what_was_not_written_yet_is_read_anew() {
    let mut rig = Rig::new();
    (0..2).for_each(|no| rig.write(no));
    assert_eq!((rig.read(0), rig.read(1)), (Some(payload(0)), Some(payload(1))));
    rig.write(2);
    assert_eq!(rig.read(2), None);
    assert_eq!(rig.read(2), Some(payload(2)));
}
