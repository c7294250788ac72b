//! What moves between shards, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::row::{decode_attempt, decode_stage, encode_attempt, encode_stage};
use super::{FORMAT, read_payload, write_payload};
use crate::command::NewMessage;
use crate::message::{MAX_HISTORY, Priority, Seq, Stage};
use crate::moving::{Arrival, Departure, Moves, OnTheWay, Origin, Placement, Traveller};
use crate::slots::Slot;
use crate::store::encoding::{Reader, Writer};

pub(in crate::store) fn write_moves(out: &mut Writer, moves: &Moves) {
    let Moves { placement, arrivals, received, origins, departure } = moves;
    write_placement(out, *placement);
    out.list(arrivals, write_arrival);
    out.list(&pairs(received), |out, (salt, transfer)| _ = out.u32(*salt).u64(*transfer));
    out.list(origins, write_origin);
    write_departure(out, departure);
}

pub(in crate::store) fn read_moves(input: &mut Reader<'_>) -> Option<Moves> {
    Some(Moves {
        placement: read_placement(input)?,
        arrivals: input.list(usize::MAX, read_arrival)?,
        received: read_pairs(input)?,
        origins: input.list(usize::MAX, read_origin)?,
        departure: read_departure(input)?,
    })
}

pub(in crate::store) fn write_placement(out: &mut Writer, placement: Placement) {
    let Placement { generation, ordinal, from, to } = placement;
    out.u64(generation).u32(ordinal).u32(from).u32(to);
}

pub(in crate::store) fn read_placement(input: &mut Reader<'_>) -> Option<Placement> {
    Some(Placement { generation: input.u64()?, ordinal: input.u32()?, from: input.u32()?, to: input.u32()? })
}

pub(in crate::store) fn write_origin(out: &mut Writer, origin: &Origin) {
    let Origin { at, places, salt, first } = origin;
    out.u64(at.0).u64(*places).u32(*salt).u64(first.0);
}

pub(in crate::store) fn read_origin(input: &mut Reader<'_>) -> Option<Origin> {
    Some(Origin { at: Seq(input.u64()?), places: input.u64()?, salt: input.u32()?, first: Seq(input.u64()?) })
}

pub(in crate::store) fn write_slot(out: &mut Writer, slot: Slot) {
    out.u32(u32::from(slot.number()));
}

pub(in crate::store) fn read_slot(input: &mut Reader<'_>) -> Option<Slot> {
    Slot::new(u16::try_from(input.u32()?).ok()?)
}

fn write_arrival(out: &mut Writer, arrival: &Arrival) {
    let Arrival { generation, source, salt, first, at, places, accepts, held } = arrival;
    out.u64(*generation).u32(*source).u32(*salt).u64(first.0).u64(at.0).u64(*places).bool(*accepts);
    out.list(held, |out, slot| write_slot(out, *slot));
}

fn read_arrival(input: &mut Reader<'_>) -> Option<Arrival> {
    Some(Arrival {
        generation: input.u64()?,
        source: input.u32()?,
        salt: input.u32()?,
        first: Seq(input.u64()?),
        at: Seq(input.u64()?),
        places: input.u64()?,
        accepts: input.bool()?,
        held: input.list(usize::MAX, read_slot)?,
    })
}

fn write_departure(out: &mut Writer, departure: &Departure) {
    let Departure { since, scanned, end, behind, transfers, on_the_way } = departure;
    let behind: Vec<Seq> = behind.iter().copied().collect();
    out.time(*since).u64(*scanned).u64(*end);
    write_seqs(out, &behind);
    out.list(&pairs(transfers), |out, (target, transfer)| _ = out.u32(*target).u64(*transfer));
    out.option(on_the_way.as_ref(), |out, OnTheWay { target, transfer, seqs }| {
        write_seqs(out.u32(*target).u64(*transfer), seqs);
    });
}

fn read_departure(input: &mut Reader<'_>) -> Option<Departure> {
    Some(Departure {
        since: input.time()?,
        scanned: input.u64()?,
        end: input.u64()?,
        behind: read_sorted(input)?,
        transfers: read_pairs(input)?,
        on_the_way: input.option(|input| {
            let (target, transfer) = (input.u32()?, input.u64()?);
            Some(OnTheWay { target, transfer, seqs: input.list(usize::MAX, read_seq)? })
        })?,
    })
}

fn write_seqs(out: &mut Writer, seqs: &[Seq]) {
    out.list(seqs, |out, seq| _ = out.u64(seq.0));
}

fn read_seq(input: &mut Reader<'_>) -> Option<Seq> {
    input.u64().map(Seq)
}

fn read_sorted(input: &mut Reader<'_>) -> Option<BTreeSet<Seq>> {
    let seqs = input.list(usize::MAX, read_seq)?;
    seqs.is_sorted_by(|one, next| one < next).then(|| seqs.into_iter().collect())
}

fn pairs(map: &BTreeMap<u32, u64>) -> Vec<(u32, u64)> {
    map.iter().map(|(key, value)| (*key, *value)).collect()
}

fn read_pairs(input: &mut Reader<'_>) -> Option<BTreeMap<u32, u64>> {
    let pairs = input.list(usize::MAX, |input| Some((input.u32()?, input.u64()?)))?;
    pairs.is_sorted_by(|(one, _), (next, _)| one < next).then(|| pairs.into_iter().collect())
}

/// All but what [`NewMessage`] has.
pub(in crate::store) fn write_traveller(out: &mut Writer, traveller: &Traveller) {
    let Traveller { place, stored_at, stage, attempts, deliveries, history, expires_at, message: _ } =
        traveller;
    out.u64(place.0).time(*stored_at).u32(*attempts).u32(*deliveries);
    out.option(expires_at.as_ref(), |out, at| _ = out.time(*at));
    encode_stage(out, stage);
    out.list(history, encode_attempt);
}

pub(in crate::store) fn read_traveller(input: &mut Reader<'_>) -> Option<Traveller> {
    Some(Traveller {
        place: Seq(input.u64()?),
        stored_at: input.time()?,
        attempts: input.u32()?,
        deliveries: input.u32()?,
        expires_at: input.option(Reader::time)?,
        stage: decode_stage(input).filter(|stage| !matches!(stage, Stage::InFlight(_)))?,
        history: input.list(MAX_HISTORY, decode_attempt)?,
        message: NewMessage::default(),
    })
}

pub(crate) fn encode_travellers(travellers: &[Traveller]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(FORMAT).list(travellers, |out, traveller| {
        let NewMessage { payload, max_attempts, priority, .. } = &traveller.message;
        write_traveller(out, traveller);
        write_payload(out.u8(priority.level()), payload);
        out.option(max_attempts.as_ref(), |out, max| _ = out.u32(*max));
    });
    out.seal()
}

pub(crate) fn decode_travellers(bytes: &[u8]) -> Option<Vec<Traveller>> {
    let mut input = Reader::open(bytes)?;
    input.u8().filter(|format| *format == FORMAT)?;
    let travellers = input.list(usize::MAX, |input| {
        let traveller = read_traveller(input)?;
        let priority = Priority::new(u32::from(input.u8()?))?;
        let payload = read_payload(input, Bytes::copy_from_slice)?;
        let max_attempts = input.option(Reader::u32)?;
        Some(Traveller {
            message: NewMessage { payload, max_attempts, priority, ..NewMessage::default() },
            ..traveller
        })
    })?;
    input.end(travellers)
}
