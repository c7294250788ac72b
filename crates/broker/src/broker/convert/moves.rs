//! What shards tell each other.

use ackwell_engine::message::{QueueId, Seq};
use ackwell_engine::moving::{
    Arrive, Import, MAX_PLACES, Origin, Placement, RememberedId, Source, Traveller,
};
use ackwell_engine::slots::Slot;
use ackwell_engine::{Timestamp, moving};
use ackwell_proto::{Failure, v1};

/// More shards than a queue has.
const MAX_SHARDS: u32 = 1024;
/// More stretches than a store has that moved for years.
const MAX_ORIGINS: usize = 1000;
/// Dedup ids of one call, about 200 bytes each.
pub(crate) const MAX_DEDUP_IDS: usize = 10_000;

/// The placement of one shard.
pub(crate) fn placement(placement: v1::Placement, ordinal: u32) -> Result<Placement, Failure> {
    let v1::Placement { generation, from, to } = placement;
    if !(1..=MAX_SHARDS).contains(&from) || !(1..=MAX_SHARDS).contains(&to) || generation == 0 {
        let message = format!("placement: from and to must be 1 to {MAX_SHARDS}, and its generation above 0");
        return Err(Failure::invalid(message));
    }
    Ok(Placement { generation, ordinal, from, to })
}

pub(crate) fn placement_to(placement: Placement) -> v1::Placement {
    let Placement { generation, from, to, ordinal: _ } = placement;
    v1::Placement { generation, from, to }
}

pub(crate) fn arrive(queue: QueueId, ordinal: u32, request: v1::ArriveRequest) -> Result<Arrive, Failure> {
    let v1::ArriveRequest { queue: _, placement: told, source, salt, first, end, origins } = request;
    let placement = placement(told.ok_or_else(|| Failure::invalid("placement is missing"))?, ordinal)?;
    let is_odd = |at: u64, places: u64| at > MAX_PLACES || places > MAX_PLACES;
    let odd_origin = origins.iter().any(|origin| is_odd(origin.at.max(origin.first), origin.places));
    if first > end || is_odd(first, end) || origins.len() > MAX_ORIGINS || odd_origin {
        return Err(Failure::invalid("places: the first must not be behind the end, and all below 2^49"));
    }
    let origins = origins.into_iter().map(|origin| Origin {
        at: Seq(origin.at),
        places: origin.places,
        salt: origin.salt,
        first: Seq(origin.first),
    });
    let source =
        Source { ordinal: source, salt, first: Seq(first), end: Seq(end), origins: origins.collect() };
    Ok(Arrive { queue, placement, source })
}

pub(crate) fn arrive_to(queue: String, leaving: &moving::Leaving) -> v1::ArriveRequest {
    let Source { ordinal, salt, first, end, origins } = leaving.source.clone();
    let origins = origins.into_iter().map(|origin| v1::Origin {
        at: origin.at.0,
        places: origin.places,
        salt: origin.salt,
        first: origin.first.0,
    });
    v1::ArriveRequest {
        queue,
        placement: Some(placement_to(leaving.placement)),
        source: ordinal,
        salt,
        first: first.0,
        end: end.0,
        origins: origins.collect(),
    }
}

pub(crate) fn import(queue: QueueId, request: v1::ImportRequest) -> Result<Import, Failure> {
    let v1::ImportRequest { queue: _, generation, source, transfer, messages, dedup_ids, waiting, accepts } =
        request;
    if dedup_ids.len() > MAX_DEDUP_IDS {
        return Err(Failure::invalid(format!("{} dedup_ids; at most {MAX_DEDUP_IDS}", dedup_ids.len())));
    }
    Ok(Import {
        queue,
        generation,
        source,
        transfer,
        messages: if messages.is_empty() { Vec::new() } else { travellers(&messages)? },
        dedup_ids: dedup_ids.into_iter().map(remembered_id).collect::<Result<_, _>>()?,
        waiting: waiting.map(slots).transpose()?,
        accepts,
    })
}

fn travellers(messages: &[u8]) -> Result<Vec<Traveller>, Failure> {
    Traveller::decode(messages).ok_or_else(|| {
        Failure::invalid(
            "messages cannot be read: both shards must run the same version; finish the rollout first",
        )
    })
}

pub(crate) fn remembered_id(known: v1::RememberedId) -> Result<RememberedId, Failure> {
    let v1::RememberedId { dedup_id, message, until } = known;
    let message = message.parse().map_err(|error| Failure::invalid(format!("dedup_ids: {error}")))?;
    Ok(RememberedId { dedup_id, message, until: Timestamp(until) })
}

pub(crate) fn remembered_id_to(known: RememberedId) -> v1::RememberedId {
    let RememberedId { dedup_id, message, until } = known;
    v1::RememberedId { dedup_id, message: message.to_string(), until: until.0 }
}

fn slots(slots: v1::Slots) -> Result<Vec<Slot>, Failure> {
    let slot = |number: u32| u16::try_from(number).ok().and_then(Slot::new);
    let parsed: Option<Vec<Slot>> = slots.slots.into_iter().map(slot).collect();
    parsed.ok_or_else(|| Failure::invalid("waiting: a slot is below 4096"))
}

pub(crate) fn slots_to(slots: &[Slot]) -> v1::Slots {
    v1::Slots { slots: slots.iter().map(|slot| u32::from(slot.number())).collect() }
}
