//! Rows of messages.

use crate::message::{
    Attempt, AttemptOutcome, DeadReason, Epoch, Hold, KeyId, Location, MAX_HISTORY, Priority, QueueId, Row,
    Stage,
};
use crate::store::encoding::{Reader, Writer};

pub(in crate::store) fn write_row(out: &mut Writer, row: &Row) {
    let Row { queue, stored_at, stage, attempts, deliveries, history, expires_at, max_attempts, .. } = row;
    let Row { body_bytes, priority, ordering, fairness, location, .. } = row;
    out.u32(queue.0).time(*stored_at).u32(*attempts).u32(*deliveries).u64(*body_bytes);
    out.u8(priority.level());
    out.option(ordering.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(fairness.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(expires_at.as_ref(), |out, at| _ = out.time(*at));
    out.option(max_attempts.as_ref(), |out, max| _ = out.u32(*max));
    encode_location(out, *location);
    encode_stage(out, stage);
    out.list(history, encode_attempt);
}

pub(in crate::store) fn read_row(input: &mut Reader<'_>) -> Option<Row> {
    // In the order in which they lie there.
    Some(Row {
        queue: QueueId(input.u32()?),
        stored_at: input.time()?,
        attempts: input.u32()?,
        deliveries: input.u32()?,
        body_bytes: input.u64()?,
        priority: Priority::new(u32::from(input.u8()?))?,
        ordering: input.option(|input| input.u64().map(KeyId))?,
        fairness: input.option(|input| input.u64().map(KeyId))?,
        expires_at: input.option(Reader::time)?,
        max_attempts: input.option(Reader::u32)?,
        location: decode_location(input)?,
        stage: decode_stage(input)?,
        history: input.list(MAX_HISTORY, decode_attempt)?,
    })
}

fn encode_location(out: &mut Writer, location: Location) {
    let Location { segment, offset, len, crc } = location;
    out.u64(segment).u32(offset).u32(len).u32(crc);
}

fn decode_location(input: &mut Reader<'_>) -> Option<Location> {
    Some(Location { segment: input.u64()?, offset: input.u32()?, len: input.u32()?, crc: input.u32()? })
}

pub(super) fn encode_stage(out: &mut Writer, stage: &Stage) {
    match stage {
        Stage::Ready => _ = out.u8(0),
        Stage::Delayed { until } => _ = out.u8(1).time(*until),
        Stage::InFlight(Hold { epoch, started, deadline, ack_timeout_ms, consumer, is_handed }) => {
            out.u8(2).u64(epoch.0).time(*started).time(*deadline).u64(*ack_timeout_ms).text(consumer);
            out.bool(*is_handed);
        }
        Stage::Dead { reason, since, until } => _ = out.u8(3).u8(*reason as u8).time(*since).time(*until),
    }
}

pub(super) fn decode_stage(input: &mut Reader<'_>) -> Option<Stage> {
    Some(match input.u8()? {
        0 => Stage::Ready,
        1 => Stage::Delayed { until: input.time()? },
        2 => Stage::InFlight(Hold {
            epoch: Epoch(input.u64()?),
            started: input.time()?,
            deadline: input.time()?,
            ack_timeout_ms: input.u64()?,
            consumer: input.text()?.into(),
            is_handed: input.bool()?,
        }),
        3 => Stage::Dead { reason: decode_dead_reason(input)?, since: input.time()?, until: input.time()? },
        _ => return None,
    })
}

fn decode_dead_reason(input: &mut Reader<'_>) -> Option<DeadReason> {
    input.one_of([DeadReason::MaxAttempts, DeadReason::Rejected, DeadReason::Expired, DeadReason::Corrupt])
}

pub(super) fn encode_attempt(out: &mut Writer, attempt: &Attempt) {
    let Attempt { started, ended, outcome, reason, consumer } = attempt;
    out.time(*started).time(*ended).u8(*outcome as u8).text(reason).text(consumer);
}

pub(super) fn decode_attempt(input: &mut Reader<'_>) -> Option<Attempt> {
    let outcomes = [
        AttemptOutcome::Nack,
        AttemptOutcome::AckTimeout,
        AttemptOutcome::ConsumerLost,
        AttemptOutcome::Reject,
    ];
    Some(Attempt {
        started: input.time()?,
        ended: input.time()?,
        outcome: input.one_of(outcomes)?,
        reason: input.text()?,
        consumer: input.text()?,
    })
}
