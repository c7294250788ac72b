//! A record of the log: one batch of commands, with the payloads of the messages it sends.
//!
//! ```text
//! header | checksums of the payloads, commands | payloads, back to back
//! ```
//!
//! The record's checksum covers all but the payloads, which have their own: every byte is summed once, and a payload can be
//! verified alone when it is handed out. It also covers the checksum of the record before, so that the records form a chain:
//! what an earlier life of the log left behind the end has the right place and number by chance, but not the right past.
//!
//! `docs/storage-format.md` describes every byte. What makes no sense is `None`; which error that is, the log decides.

mod commands;
#[cfg(any(test, fuzzing))]
mod forge;
#[cfg(test)]
mod tests;

use std::mem;
use std::ops::Range;
use std::slice;

use bytes::Bytes;

use super::codec::{read_payload, write_payload};
use super::encoding::{Reader, Writer};
use super::seal::Cover;
use crate::command::{Command, NewMessage};
use crate::message::{Epoch, Payload, Seq};
use crate::time::Timestamp;
#[cfg(fuzzing)]
pub use forge::fuzz_log;

/// Begins every record. The last byte grows when the layout changes.
const MAGIC: [u8; 4] = *b"AWL4";
const CHECKSUM_AT: usize = 4;
/// The record's checksum covers what follows it, up to the payloads. The chain is covered as a field instead of being the value
/// that the checksum starts from: a CRC that starts from a value and then reads it forgets it.
const CHECKED_FROM: usize = 8;
const LENGTHS_AT: usize = 40;
/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 48;
/// A payload's length and checksum.
const BLOB_BYTES: usize = 8;

/// What one record says, all at one time.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) now: Timestamp,
    /// The store was opened: deliveries of before are held on for one ack timeout at least.
    pub(crate) resumes: bool,
    /// Messages that were found to be corrupt when that delivery was to hand them out.
    pub(crate) corrupt: Vec<(Seq, Epoch)>,
    pub(crate) commands: Vec<Command>,
}

impl Batch {
    /// Nothing but a time.
    pub(crate) fn at(now: Timestamp) -> Self {
        Self { now, resumes: false, corrupt: Vec::new(), commands: Vec::new() }
    }

    /// Every message that has a payload, in order of appearance.
    pub(crate) fn each_message<'a>(&'a self, each: impl FnMut(&'a NewMessage)) {
        commands::each_message(&self.commands, each);
    }
}

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Number of the segment, never used twice.
    pub(crate) segment: u64,
    /// From the start of the segment.
    pub(crate) offset: u32,
    /// Number of the record, never used twice.
    pub(crate) lsn: u64,
    /// Checksum of the record before.
    pub(crate) chain: u32,
}

impl Position {
    /// Of the first record of a store. Those of another store have another past.
    pub(crate) fn first(receipt_key: &[u8]) -> Self {
        Self { segment: 1, offset: 0, lsn: 1, chain: crc32c::crc32c(receipt_key) }
    }

    /// The start of the next segment.
    pub(crate) fn in_next_segment(&self) -> Self {
        Self { segment: self.segment + 1, offset: 0, ..*self }
    }

    /// Where the next record of this segment stands, behind the whole `record` that stands here.
    pub(crate) fn after(&self, record: &[u8]) -> Self {
        let len = u32::try_from(record.len()).expect("a record is shorter than a segment");
        let checksum = Reader::over(&record[CHECKSUM_AT..]).u32().expect("a record has a header");
        Self { segment: self.segment, offset: self.offset + len, lsn: self.lsn + 1, chain: checksum }
    }
}

/// Where in its record a payload lies, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    /// From the start of the record.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl Blob {
    fn range(&self) -> Range<usize> {
        self.offset as usize..self.offset as usize + self.len as usize
    }

    /// The payload as it was before it was sealed, of the record that stands there. `None`: it is not what was written.
    pub(crate) fn bytes(&self, record: &Bytes, at: &Position, cover: &Cover) -> Option<Bytes> {
        let bytes = lift(cover, at.segment, at.offset + self.offset, record.slice(self.range()))?;
        (crc32c::crc32c(&bytes) == self.crc).then_some(bytes)
    }
}

/// A record that is whole, and the one that was expected.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) batch: Batch,
    /// One per message of all Sends and Commits, in order of appearance.
    pub(crate) blobs: Vec<Blob>,
    /// So many payloads are not what was written; their messages have a [`Stub`] in their place.
    pub(crate) damaged: usize,
}

/// Replaces what is in the buffer by the record, and tells where its payloads lie: one per message of all Sends and Commits,
/// in order of appearance. The caller keeps a batch far below 4 GiB.
pub(crate) fn encode(position: &Position, batch: &Batch, cover: &Cover, buffer: &mut Vec<u8>) -> Vec<Blob> {
    let Batch { now, resumes, corrupt, commands } = batch;
    let mut messages = 0;
    commands::each_message(commands, |_| messages += 1);

    let mut out = Writer::reusing(mem::take(buffer));
    let (before, behind) = cover.room();
    write_header(&mut out, position, *now);
    out.zeros(before).len(messages);
    let table_at = out.at();
    out.zeros(messages * BLOB_BYTES).bool(*resumes);
    out.list(corrupt, |out, (seq, epoch)| _ = out.u64(seq.0).u64(epoch.0));
    out.list(commands, commands::write).zeros(behind);
    let payloads_at = out.at();

    let mut blobs = Vec::with_capacity(messages);
    commands::each_message(commands, |message| {
        let blob = append_payload(&mut out, position, cover, &message.payload);
        let entry_at = table_at + blobs.len() * BLOB_BYTES;
        out.set_u32(entry_at, blob.len).set_u32(entry_at + 4, blob.crc);
        blobs.push(blob);
    });
    *buffer = finish(out, cover, payloads_at);
    blobs
}

/// With zeros where the checksum and the lengths belong.
fn write_header(out: &mut Writer, position: &Position, now: Timestamp) {
    let Position { segment, offset, lsn, chain } = position;
    out.raw(&MAGIC).u32(0).u32(*chain).u32(*offset).u64(*segment).u64(*lsn).time(now).u32(0).u32(0);
}

fn append_payload(out: &mut Writer, position: &Position, cover: &Cover, payload: &Payload) -> Blob {
    let (at, (before, behind)) = (out.at(), cover.room());
    write_payload(out.zeros(before), payload);
    let crc = crc32c::crc32c(out.since(at + before));
    out.zeros(behind);
    let offset = stored(at);
    cover.seal(&place(position.segment, position.offset + offset), out.since_mut(at));
    Blob { offset, len: stored(out.at() - at), crc }
}

/// What a sealed payload is about.
fn place(segment: u64, offset: u32) -> [u8; 12] {
    let mut place = [0; 12];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    place
}

/// The payload that lies there, as it was before it was sealed. `None`: it is not what was sealed there.
pub(crate) fn lift(cover: &Cover, segment: u64, offset: u32, bytes: Bytes) -> Option<Bytes> {
    cover.open(&place(segment, offset), bytes)
}

fn finish(mut out: Writer, cover: &Cover, payloads_at: usize) -> Vec<u8> {
    out.set_u32(LENGTHS_AT, stored(payloads_at - HEADER_BYTES));
    out.set_u32(LENGTHS_AT + 4, stored(out.at() - payloads_at));
    // The checksum is made of what is sealed: who has no key can tell where records are, and whether they are whole.
    let (header, rest) = out.since_mut(CHECKED_FROM).split_at_mut(HEADER_BYTES - CHECKED_FROM);
    cover.seal(header, &mut rest[..payloads_at - HEADER_BYTES]);
    let checksum = crc32c::crc32c(&out.since(CHECKED_FROM)[..payloads_at - CHECKED_FROM]);
    out.set_u32(CHECKSUM_AT, checksum);
    out.finish()
}

fn stored(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the caller keeps a batch far below 4 GiB")
}

/// The record at the start of `bytes`, if it is the one that stands there and every byte of it is intact, but perhaps
/// payloads. The bodies are parts of `bytes`.
pub(crate) fn decode(position: &Position, bytes: &Bytes, cover: &Cover) -> Option<Decoded> {
    let header = Header::read(bytes).filter(|header| header.position == *position)?;
    let len = header.record_bytes().filter(|len| *len as usize <= bytes.len())?;
    let sealed = bytes.slice_ref(header.checked_commands(bytes)?);
    let commands = cover.open(&bytes[CHECKED_FROM..HEADER_BYTES], sealed)?;
    let mut input = Reader::over(&commands);
    let blobs = read_blobs(&mut input, len - header.payloads_bytes, len)?;
    let mut payloads = Payloads { bytes, position, cover, blobs: blobs.iter(), damaged: 0 };
    // In the order in which they lie there.
    let batch = Batch {
        now: header.now,
        resumes: input.bool()?,
        corrupt: input.list(usize::MAX, |input| Some((Seq(input.u64()?), Epoch(input.u64()?))))?,
        commands: input.list(usize::MAX, |input| commands::read(input, &mut payloads))?,
    };
    let damaged = payloads.end()?;
    input.end(Decoded { batch, blobs, damaged })
}

/// Whether what stands there was meant to be that record, though it may not be whole: what is left of other records has at
/// most its magic and its place right.
pub(crate) fn resembles(position: &Position, header: &[u8]) -> bool {
    let Some(found) = Header::read_any(header) else { return false };
    let Position { segment, offset, lsn, chain } = found.position;
    let right = [
        header.starts_with(&MAGIC),
        segment == position.segment,
        offset == position.offset,
        lsn == position.lsn,
        chain == position.chain,
    ];
    right.into_iter().filter(|is_right| *is_right).count() > 2
}

/// How long the record is that begins with this header; any bytes may be asked.
pub(crate) fn declared_bytes(header: &[u8]) -> Option<u32> {
    Header::read(header)?.record_bytes()
}

/// The record that was written at this place of this segment, whatever was written before it: what tells a hole in the log
/// from its end. Its payloads are not looked at.
///
/// A body may hold anything, but not a record that names the place where it happens to lie.
pub(crate) fn recognize(segment: u64, offset: u32, bytes: &[u8]) -> Option<Position> {
    let header = Header::read(bytes)?;
    let is_there = header.position.segment == segment && header.position.offset == offset;
    is_there.then(|| header.checked_commands(bytes))??;
    Some(header.position)
}

/// The records somewhere in `bytes`, which lie at this place of this segment.
pub(crate) fn find(segment: u64, offset: u32, bytes: &[u8]) -> impl Iterator<Item = Position> {
    beginnings(bytes).filter_map(move |at| recognize(segment, offset + stored(at), &bytes[at..]))
}

/// Where the record would stand that follows the last one in `bytes` with this number or a higher one.
pub(crate) fn behind_last(segment: u64, offset: u32, bytes: &[u8], lsn: u64) -> Option<Position> {
    let whole =
        |at: &usize| recognize(segment, offset + stored(*at), &bytes[*at..]).filter(|at| at.lsn >= lsn);
    let (at, position) = beginnings(bytes).filter_map(|at| Some((at, whole(&at)?))).last()?;
    let len = declared_bytes(&bytes[at..])? as usize;
    bytes.get(at..at + len).map(|record| position.after(record))
}

/// Where in `bytes` something begins like a record.
pub(crate) fn beginnings(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

/// A payload whose bytes are those of its [`Blob`]. Its body is a part of `bytes`.
pub(crate) fn decode_payload(bytes: &Bytes, crc: u32) -> Option<Payload> {
    if crc32c::crc32c(bytes) == crc { parse_payload(bytes) } else { None }
}

/// The same of bytes that no disk had in between, so that their checksum need not be computed.
pub(crate) fn parse_payload(bytes: &Bytes) -> Option<Payload> {
    let mut input = Reader::over(bytes);
    let payload = read_payload(&mut input, |body| bytes.slice_ref(body))?;
    input.end(payload)
}

/// Offsets from `at` to `end`, without a gap.
fn read_blobs(input: &mut Reader<'_>, at: u32, end: u32) -> Option<Vec<Blob>> {
    let mut offset = at;
    let blobs = input.list(usize::MAX, |input| {
        let blob = Blob { offset, len: input.u32()?, crc: input.u32()? };
        offset = offset.checked_add(blob.len).filter(|offset| *offset <= end)?;
        Some(blob)
    })?;
    (offset == end).then_some(blobs)
}

/// What a record says of itself.
struct Header {
    checksum: u32,
    position: Position,
    now: Timestamp,
    commands_bytes: u32,
    payloads_bytes: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.starts_with(&MAGIC).then(|| Self::read_any(bytes))?
    }

    /// Whatever it begins with.
    fn read_any(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::over(bytes);
        input.raw(MAGIC.len())?;
        let (checksum, chain, offset) = (input.u32()?, input.u32()?, input.u32()?);
        Some(Self {
            checksum,
            position: Position { segment: input.u64()?, offset, lsn: input.u64()?, chain },
            now: input.time()?,
            commands_bytes: input.u32()?,
            payloads_bytes: input.u32()?,
        })
    }

    fn record_bytes(&self) -> Option<u32> {
        stored(HEADER_BYTES).checked_add(self.commands_bytes)?.checked_add(self.payloads_bytes)
    }

    fn checked_commands<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = HEADER_BYTES.checked_add(self.commands_bytes as usize)?;
        let checked = bytes.get(CHECKED_FROM..end)?;
        (crc32c::crc32c(checked) == self.checksum).then(|| &checked[HEADER_BYTES - CHECKED_FROM..])
    }
}

/// What is decided by of a payload, kept with the commands too: a damaged body must not change what was decided.
struct Stub {
    body_bytes: usize,
    dedup_id: String,
    ordering_key: String,
    fairness_key: String,
}

impl Stub {
    fn is_of(&self, payload: &Payload) -> bool {
        let Payload { body, dedup_id, ordering_key, fairness_key, headers: _, content_type: _ } = payload;
        self.body_bytes == body.len()
            && self.dedup_id == *dedup_id
            && self.ordering_key == *ordering_key
            && self.fairness_key == *fairness_key
    }

    /// As long as the one that is lost.
    fn payload(&self) -> Payload {
        Payload {
            body: vec![0; self.body_bytes].into(),
            dedup_id: self.dedup_id.clone(),
            ordering_key: self.ordering_key.clone(),
            fairness_key: self.fairness_key.clone(),
            ..Payload::default()
        }
    }
}

/// The payloads of a record that is being read, in the order of their messages.
struct Payloads<'a> {
    bytes: &'a Bytes,
    position: &'a Position,
    cover: &'a Cover,
    blobs: slice::Iter<'a, Blob>,
    damaged: usize,
}

impl Payloads<'_> {
    fn next(&mut self, stub: &Stub) -> Option<Payload> {
        let blob = self.blobs.next().filter(|blob| stub.body_bytes <= blob.len as usize)?;
        let Some(bytes) = blob.bytes(self.bytes, self.position, self.cover) else {
            self.damaged += 1;
            return Some(stub.payload());
        };
        parse_payload(&bytes).filter(|payload| stub.is_of(payload))
    }

    /// Every payload belongs to a message. How many are damaged.
    fn end(self) -> Option<usize> {
        self.blobs.as_slice().is_empty().then_some(self.damaged)
    }
}
