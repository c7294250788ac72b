//! Commands about who holds what.

use bytes::Bytes;

use crate::command::{Extend, HandOver, Handover, Outcome, Oversized, Receive, Settle};
use crate::message::QueueId;
use crate::store::encoding::{Reader, Writer};

pub(super) fn write_receive(out: &mut Writer, receive: &Receive) {
    let Receive { queue, max_messages, max_bytes, oversized, ack_timeout_ms, consumer, request_id, handover } =
        receive;
    out.u32(queue.0).u32(*max_messages).u64(*max_bytes).u8(*oversized as u8);
    out.option(ack_timeout_ms.as_ref(), |out, ms| _ = out.u64(*ms));
    out.text(consumer).text(request_id).u8(*handover as u8);
}

pub(super) fn read_receive(input: &mut Reader<'_>) -> Option<Receive> {
    Some(Receive {
        queue: QueueId(input.u32()?),
        max_messages: input.u32()?,
        max_bytes: input.u64()?,
        oversized: input.one_of([Oversized::Comes, Oversized::Waits])?,
        ack_timeout_ms: input.option(Reader::u64)?,
        consumer: input.text()?,
        request_id: input.text()?,
        handover: input.one_of([Handover::AtOnce, Handover::Reported])?,
    })
}

pub(super) fn write_hand_over(out: &mut Writer, hand_over: &HandOver) {
    let HandOver { queue, receipts } = hand_over;
    out.u32(queue.0).list(receipts, write_receipt);
}

pub(super) fn read_hand_over(input: &mut Reader<'_>) -> Option<HandOver> {
    Some(HandOver { queue: QueueId(input.u32()?), receipts: input.list(usize::MAX, read_receipt)? })
}

pub(super) fn write_settle(out: &mut Writer, settle: &Settle) {
    let Settle { queue, settlements } = settle;
    out.u32(queue.0).list(settlements, |out, (receipt, outcome)| {
        write_receipt(out, receipt);
        write_outcome(out, outcome);
    });
}

pub(super) fn read_settle(input: &mut Reader<'_>) -> Option<Settle> {
    Some(Settle {
        queue: QueueId(input.u32()?),
        settlements: input.list(usize::MAX, |input| Some((read_receipt(input)?, read_outcome(input)?)))?,
    })
}

fn write_outcome(out: &mut Writer, outcome: &Outcome) {
    match outcome {
        Outcome::Ack => _ = out.u8(0),
        Outcome::Nack { delay_ms, reason } => {
            out.u8(1).option(delay_ms.as_ref(), |out, ms| _ = out.u64(*ms));
            out.text(reason);
        }
        Outcome::Release => _ = out.u8(2),
        Outcome::Reject { reason } => _ = out.u8(3).text(reason),
        Outcome::Lost { reason } => _ = out.u8(4).text(reason),
    }
}

fn read_outcome(input: &mut Reader<'_>) -> Option<Outcome> {
    Some(match input.u8()? {
        0 => Outcome::Ack,
        1 => Outcome::Nack { delay_ms: input.option(Reader::u64)?, reason: input.text()? },
        2 => Outcome::Release,
        3 => Outcome::Reject { reason: input.text()? },
        4 => Outcome::Lost { reason: input.text()? },
        _ => return None,
    })
}

pub(super) fn write_extend(out: &mut Writer, extend: &Extend) {
    let Extend { queue, receipts, ack_timeout_ms } = extend;
    out.u32(queue.0).list(receipts, write_receipt);
    out.option(ack_timeout_ms.as_ref(), |out, ms| _ = out.u64(*ms));
}

pub(super) fn read_extend(input: &mut Reader<'_>) -> Option<Extend> {
    Some(Extend {
        queue: QueueId(input.u32()?),
        receipts: input.list(usize::MAX, read_receipt)?,
        ack_timeout_ms: input.option(Reader::u64)?,
    })
}

/// As the caller gave it: whether it is one, the engine decides.
fn write_receipt(out: &mut Writer, receipt: &Bytes) {
    out.bytes(receipt);
}

fn read_receipt(input: &mut Reader<'_>) -> Option<Bytes> {
    input.bytes().map(Bytes::copy_from_slice)
}
