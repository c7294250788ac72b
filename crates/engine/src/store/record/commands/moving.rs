//! Commands about messages that move between shards.

use super::sends::{read_message, write_message};
use crate::message::{QueueId, Seq};
use crate::moving::{Arrive, Depart, Forget, Import, Place, RememberedId, Source, Traveller};
use crate::store::codec::{
    read_origin, read_placement, read_slot, read_traveller, write_origin, write_placement, write_slot,
    write_traveller,
};
use crate::store::encoding::{Reader, Writer};
use crate::store::record::Payloads;

pub(super) fn write_place(out: &mut Writer, place: &Place) {
    let Place { queue, placement } = place;
    write_placement(out.u32(queue.0), *placement);
}

pub(super) fn read_place(input: &mut Reader<'_>) -> Option<Place> {
    Some(Place { queue: QueueId(input.u32()?), placement: read_placement(input)? })
}

pub(super) fn write_arrive(out: &mut Writer, arrive: &Arrive) {
    let Arrive { queue, placement, source } = arrive;
    write_placement(out.u32(queue.0), *placement);
    let Source { ordinal, salt, first, end, origins } = source;
    out.u32(*ordinal).u32(*salt).u64(first.0).u64(end.0).list(origins, write_origin);
}

pub(super) fn read_arrive(input: &mut Reader<'_>) -> Option<Arrive> {
    Some(Arrive {
        queue: QueueId(input.u32()?),
        placement: read_placement(input)?,
        source: Source {
            ordinal: input.u32()?,
            salt: input.u32()?,
            first: Seq(input.u64()?),
            end: Seq(input.u64()?),
            origins: input.list(usize::MAX, read_origin)?,
        },
    })
}

pub(super) fn write_import(out: &mut Writer, import: &Import) {
    let Import { queue, generation, source, transfer, messages, dedup_ids, waiting, accepts } = import;
    out.u32(queue.0).u64(*generation).u32(*source).u64(*transfer);
    out.list(messages, |out, traveller| {
        write_traveller(out, traveller);
        write_message(out, &traveller.message);
    });
    out.list(dedup_ids, |out, RememberedId { dedup_id, message, until }| {
        _ = out.text(dedup_id).u128(message.as_u128()).time(*until);
    });
    out.option(waiting.as_ref(), |out, waiting| _ = out.list(waiting, |out, slot| write_slot(out, *slot)));
    out.bool(*accepts);
}

pub(super) fn read_import(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<Import> {
    Some(Import {
        queue: QueueId(input.u32()?),
        generation: input.u64()?,
        source: input.u32()?,
        transfer: input.u64()?,
        messages: input.list(usize::MAX, |input| {
            let traveller = read_traveller(input)?;
            Some(Traveller { message: read_message(input, payloads)?, ..traveller })
        })?,
        dedup_ids: input.list(usize::MAX, |input| {
            let (dedup_id, message) = (input.text()?, input.message_id()?);
            Some(RememberedId { dedup_id, message, until: input.time()? })
        })?,
        waiting: input.option(|input| input.list(usize::MAX, read_slot))?,
        accepts: input.bool()?,
    })
}

pub(super) fn write_depart(out: &mut Writer, depart: &Depart) {
    let Depart { queue, max_messages, max_bytes } = depart;
    out.u32(queue.0).len(*max_messages).u64(*max_bytes);
}

pub(super) fn read_depart(input: &mut Reader<'_>) -> Option<Depart> {
    Some(Depart { queue: QueueId(input.u32()?), max_messages: input.len()?, max_bytes: input.u64()? })
}

pub(super) fn write_forget(out: &mut Writer, forget: &Forget) {
    let Forget { queue, target, transfer } = forget;
    out.u32(queue.0).u32(*target).u64(*transfer);
}

pub(super) fn read_forget(input: &mut Reader<'_>) -> Option<Forget> {
    Some(Forget { queue: QueueId(input.u32()?), target: input.u32()?, transfer: input.u64()? })
}
