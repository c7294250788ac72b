//! Records around any bytes, with checksums that fit: without these, tests of what lies behind them would never get there.

use super::*;

/// A record with this between its header and its payloads.
pub(super) fn forge(position: &Position, commands: &[u8], payloads: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    write_header(&mut out, position, Timestamp(0));
    out.raw(commands);
    let payloads_at = out.at();
    out.raw(payloads);
    sum_payloads(&mut out, commands, payloads);
    finish(out, &Cover::None, payloads_at)
}

/// As far as the table has entries, and bytes for them.
fn sum_payloads(out: &mut Writer, commands: &[u8], mut payloads: &[u8]) {
    let mut table = Reader::over(commands);
    let count = table.len().unwrap_or(0);
    for entry in 0..count {
        let Some(len) = table.len().filter(|_| table.u32().is_some()) else { return };
        let Some((payload, rest)) = payloads.split_at_checked(len) else { return };
        out.set_u32(HEADER_BYTES + 4 + entry * BLOB_BYTES + 4, crc32c::crc32c(payload));
        payloads = rest;
    }
}

/// Nothing, or a batch that is written as the same bytes.
pub(super) fn assert_batch_or_nothing(position: &Position, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let Some(Decoded { batch, blobs, damaged: 0 }) = decode(position, &bytes, &Cover::None) else { return };
    let mut again = Vec::new();
    assert_eq!(encode(position, &batch, &Cover::None, &mut again), blobs);
    assert_eq!(again, bytes[..again.len()]);
    assert_eq!(recognize(position.segment, position.offset, &bytes), Some(*position));
}

/// Any bytes as they are, and as the two parts of a record whose checksums fit.
#[cfg(fuzzing)]
pub fn fuzz_log(data: &[u8]) {
    let position = Position { segment: 1, offset: 2, lsn: 3, chain: 4 };
    assert_batch_or_nothing(&position, data.to_vec());
    let Some((split, rest)) = data.split_first_chunk() else { return };
    let split = usize::from(u16::from_le_bytes(*split)).min(rest.len());
    assert_batch_or_nothing(&position, forge(&position, &rest[..split], &rest[split..]));
}
