//! Commands that store messages. Of a message, this is what its payload does not hold, and a [`Stub`] of the payload.

use super::deliveries::{read_settle, write_settle};
use crate::command::{Available, Batch, Commit, NewMessage, Outgoing, Send};
use crate::message::{Priority, QueueId};
use crate::store::encoding::{Reader, Writer};
use crate::store::record::{Payloads, Stub};

pub(super) fn write_send(out: &mut Writer, send: &Send) {
    let Send { queue, messages, batch, request_id } = send;
    out.u32(queue.0).list(messages, write_message).u8(*batch as u8).text(request_id);
}

pub(super) fn read_send(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<Send> {
    Some(Send {
        queue: QueueId(input.u32()?),
        messages: input.list(usize::MAX, |input| read_message(input, payloads))?,
        batch: input.one_of([Batch::Each, Batch::Atomic])?,
        request_id: input.text()?,
    })
}

pub(super) fn write_commit(out: &mut Writer, commit: &Commit) {
    let Commit { settle, send, request_id } = commit;
    out.list(settle, write_settle).list(send, write_outgoing).text(request_id);
}

pub(super) fn read_commit(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<Commit> {
    Some(Commit {
        settle: input.list(usize::MAX, read_settle)?,
        send: input.list(usize::MAX, |input| read_outgoing(input, payloads))?,
        request_id: input.text()?,
    })
}

fn write_outgoing(out: &mut Writer, outgoing: &Outgoing) {
    let Outgoing { queue, messages } = outgoing;
    out.u32(queue.0).list(messages, write_message);
}

fn read_outgoing(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<Outgoing> {
    Some(Outgoing {
        queue: QueueId(input.u32()?),
        messages: input.list(usize::MAX, |input| read_message(input, payloads))?,
    })
}

pub(super) fn write_message(out: &mut Writer, message: &NewMessage) {
    let NewMessage { payload, available, ttl_ms, max_attempts, priority, position } = message;
    out.len(payload.body.len()).text(&payload.dedup_id);
    out.text(&payload.ordering_key).text(&payload.fairness_key);
    match available {
        Available::Now => _ = out.u8(0),
        Available::After(ms) => _ = out.u8(1).u64(*ms),
        Available::At(at) => _ = out.u8(2).time(*at),
    }
    out.option(ttl_ms.as_ref(), |out, ms| _ = out.u64(*ms));
    out.option(max_attempts.as_ref(), |out, max| _ = out.u32(*max));
    out.u8(priority.level());
    out.option(position.as_ref(), |out, position| _ = out.u32(*position));
}

pub(super) fn read_message(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<NewMessage> {
    Some(NewMessage {
        payload: payloads.next(&read_stub(input)?)?,
        available: match input.u8()? {
            0 => Available::Now,
            1 => Available::After(input.u64()?),
            2 => Available::At(input.time()?),
            _ => return None,
        },
        ttl_ms: input.option(Reader::u64)?,
        max_attempts: input.option(Reader::u32)?,
        priority: Priority::new(u32::from(input.u8()?))?,
        position: input.option(Reader::u32)?,
    })
}

fn read_stub(input: &mut Reader<'_>) -> Option<Stub> {
    Some(Stub {
        body_bytes: input.len()?,
        dedup_id: input.text()?,
        ordering_key: input.text()?,
        fairness_key: input.text()?,
    })
}
