//! Rows as bytes: little-endian numbers, length-prefixed text, and a CRC32C at the end of every value.
//!
//! `docs/storage-format.md` describes each layout. Decoding never panics: what makes no sense is `None`.

mod memory;
mod moving;
mod payload;
mod row;
mod settings;
mod summary;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::encoding::{Reader, Writer};
use super::record::Position;
use super::{Meta, QueueRecord, QueueState};
use crate::dense::Page;
use crate::message::KeyId;
use crate::messages::Turns;
pub(super) use memory::{
    decode_memorized, decode_memory_key, encode_memorized, encode_memory_key, read_ended, write_ended,
};
pub(crate) use moving::{decode_travellers, encode_travellers};
pub(super) use moving::{
    read_moves, read_origin, read_placement, read_slot, read_traveller, write_moves, write_origin,
    write_placement, write_slot, write_traveller,
};
pub(super) use payload::{read_payload, write_payload};
pub(super) use row::{read_row, write_row};
pub(super) use settings::{decode_settings, encode_settings};
pub(super) use summary::{decode_summary, encode_summary};
pub(super) use task::{read_order, read_task_id, write_order, write_task_id};
use task::{read_tasks, write_tasks};

/// Grows when a layout changes.
pub(super) const FORMAT: u8 = 7;

pub(super) fn encode_meta(meta: &Meta) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(FORMAT)
        .raw(&meta.receipt_key)
        .u32(meta.salt)
        .u64(meta.next_seq)
        .u64(meta.next_epoch)
        .u32(meta.next_queue)
        .time(meta.clock);
    out.seal()
}

/// The format that a META row says it has; its first byte keeps that meaning for ever.
pub(super) fn format_of(meta: &[u8]) -> Option<u8> {
    Reader::open(meta)?.u8()
}

pub(super) fn decode_meta(bytes: &[u8]) -> Option<Meta> {
    let mut input = Reader::open(bytes)?;
    input.u8().filter(|format| *format == FORMAT)?;
    let meta = Meta {
        receipt_key: input.raw(16)?.try_into().ok()?,
        salt: input.u32()?,
        next_seq: input.u64()?,
        next_epoch: input.u64()?,
        next_queue: input.u32()?,
        clock: input.time()?,
    };
    input.end(meta)
}

/// Neighbours, each with the low 8 bits of its number.
pub(super) fn encode_page<V>(page: &Page<V>, write: impl Fn(&mut Writer, &V)) -> Vec<u8> {
    let values: Vec<(u8, &V)> = page.iter().collect();
    let mut out = Writer::default();
    out.list(&values, |out, (slot, value)| write(out.u8(*slot), value));
    out.seal()
}

pub(super) fn decode_page<V>(
    bytes: &[u8],
    read: impl Fn(&mut Reader<'_>) -> Option<V>,
) -> Option<Arc<Page<V>>> {
    let mut input = Reader::open(bytes)?;
    let values = input.list(Page::<V>::SLOTS, |input| Some((input.u8()?, read(input)?)))?;
    let is_sorted = values.is_sorted_by(|(one, _), (next, _)| one < next);
    input.end(Arc::new(values.into_iter().collect())).filter(|_| is_sorted)
}

pub(super) fn encode_position(position: &Position) -> Vec<u8> {
    let Position { segment, offset, lsn, chain } = position;
    let mut out = Writer::default();
    out.u64(*segment).u32(*offset).u64(*lsn).u32(*chain);
    out.seal()
}

pub(super) fn decode_position(bytes: &[u8]) -> Option<Position> {
    let mut input = Reader::open(bytes)?;
    let position =
        Position { segment: input.u64()?, offset: input.u32()?, lsn: input.u64()?, chain: input.u32()? };
    input.end(position)
}

pub(super) fn encode_queue(queue: &QueueState) -> Vec<u8> {
    let QueueState { record, turns } = queue;
    let mut out = Writer::default();
    out.text(&record.name).u64(record.generation);
    encode_settings(&mut out, &record.settings);
    out.bool(record.is_paused).bool(record.is_closed);
    write_moves(&mut out, &record.moves);
    write_tasks(&mut out, &record.tasks);
    encode_key(&mut out, turns.served);
    out.list(&turns.debts, |out, (key, debt)| {
        encode_key(out, *key);
        out.u64(*debt);
    });
    out.seal()
}

pub(super) fn decode_queue(bytes: &[u8]) -> Option<QueueState> {
    let mut input = Reader::open(bytes)?;
    let record = QueueRecord {
        name: input.text()?,
        generation: input.u64()?,
        settings: decode_settings(&mut input)?,
        is_paused: input.bool()?,
        is_closed: input.bool()?,
        moves: read_moves(&mut input)?.into(),
        tasks: read_tasks(&mut input)?.into(),
    };
    let turns = Turns {
        served: decode_key(&mut input)?,
        debts: input.list(usize::MAX, |input| Some((decode_key(input)?, input.u64()?)))?,
    };
    input.end(QueueState { record, turns })
}

fn encode_key(out: &mut Writer, key: Option<KeyId>) {
    out.option(key.as_ref(), |out, key| _ = out.u64(key.0));
}

#[expect(clippy::option_option, reason = "the outer one says whether it could be read, as everywhere here")]
fn decode_key(input: &mut Reader<'_>) -> Option<Option<KeyId>> {
    input.option(|input| input.u64().map(KeyId))
}

/// What can be decoded is encoded as the same bytes; nothing panics.
#[cfg(fuzzing)]
pub fn fuzz_record(bytes: &[u8]) {
    let mut sealed = Writer(bytes.to_vec()).seal();
    // With a checksum that fits, or the decoders would never see anything.
    let again = |encoded: Option<Vec<u8>>| assert!(encoded.is_none_or(|encoded| encoded == sealed));
    again(decode_meta(&sealed).map(|meta| encode_meta(&meta)));
    again(decode_queue(&sealed).map(|queue| encode_queue(&queue)));
    again(decode_page(&sealed, read_row).map(|page| encode_page(&page, write_row)));
    again(decode_page(&sealed, read_ended).map(|page| encode_page(&page, write_ended)));
    again(decode_summary(&sealed).map(|summary| encode_summary(&summary)));
    again(decode_memory_key(&sealed).map(|key| encode_memory_key(&key)));
    again(decode_memorized(&sealed).map(|entry| encode_memorized(&entry)));
    sealed.pop();
    assert!(decode_page(&sealed, read_row).is_none());
}
