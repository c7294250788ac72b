//! What is remembered for a while.

use crate::command::{Sent, Settled};
use crate::memory::{Ended, Memorized, MemoryKey, OutcomeKind, Remembered};
use crate::message::{Epoch, QueueId, Seq, State};
use crate::store::encoding::{Reader, Writer};

pub(in crate::store) fn encode_memory_key(key: &MemoryKey) -> Vec<u8> {
    let mut out = Writer::default();
    match key {
        MemoryKey::Delivery(queue, epoch) => _ = out.u8(0).u32(queue.0).u64(epoch.0),
        MemoryKey::Request(queue, id) => _ = out.u8(1).u32(queue.0).text(id),
        MemoryKey::Dedup(queue, id) => _ = out.u8(2).u32(queue.0).text(id),
    }
    out.seal()
}

pub(in crate::store) fn decode_memory_key(bytes: &[u8]) -> Option<MemoryKey> {
    let mut input = Reader::open(bytes)?;
    let key = match input.u8()? {
        0 => MemoryKey::Delivery(QueueId(input.u32()?), Epoch(input.u64()?)),
        1 => MemoryKey::Request(QueueId(input.u32()?), input.text()?.into()),
        2 => MemoryKey::Dedup(QueueId(input.u32()?), input.text()?.into()),
        _ => return None,
    };
    input.end(key)
}

pub(in crate::store) fn encode_memorized(entry: &Memorized) -> Vec<u8> {
    let mut out = Writer::default();
    out.time(entry.until);
    match &entry.what {
        Remembered::Settled(kind, settled) => encode_settled(out.u8(0).u8(*kind as u8), settled),
        Remembered::Sent(answers) => {
            out.u8(1).list(answers, |out, sent| out.option(sent.as_ref(), encode_sent));
        }
        Remembered::Received(held) => {
            out.u8(2).list(held, |out, (seq, epoch)| _ = out.u64(seq.0).u64(epoch.0));
        }
        Remembered::Stored(id) => _ = out.u8(3).u128(id.as_u128()),
        Remembered::Committed(settled, sent) => {
            out.u8(4);
            out.list(settled, |out, settled| _ = out.list(settled, encode_settled));
            out.list(sent, |out, sent| _ = out.list(sent, encode_sent));
        }
    }
    out.seal()
}

pub(in crate::store) fn decode_memorized(bytes: &[u8]) -> Option<Memorized> {
    let mut input = Reader::open(bytes)?;
    let until = input.time()?;
    let what = match input.u8()? {
        0 => Remembered::Settled(decode_outcome_kind(&mut input)?, decode_settled(&mut input)?),
        1 => Remembered::Sent(input.list(usize::MAX, |input| input.option(decode_sent))?),
        2 => Remembered::Received(
            input.list(usize::MAX, |input| Some((Seq(input.u64()?), Epoch(input.u64()?))))?,
        ),
        3 => Remembered::Stored(input.message_id()?),
        4 => Remembered::Committed(
            input.list(usize::MAX, |input| input.list(usize::MAX, decode_settled))?,
            input.list(usize::MAX, |input| input.list(usize::MAX, decode_sent))?,
        ),
        _ => return None,
    };
    input.end(Memorized { until, what })
}

pub(in crate::store) fn write_ended(out: &mut Writer, ended: &Ended) {
    let Ended { queue, until, kind, settled } = ended;
    encode_settled(out.u32(queue.0).time(*until).u8(*kind as u8), settled);
}

pub(in crate::store) fn read_ended(input: &mut Reader<'_>) -> Option<Ended> {
    Some(Ended {
        queue: QueueId(input.u32()?),
        until: input.time()?,
        kind: decode_outcome_kind(input)?,
        settled: decode_settled(input)?,
    })
}

fn encode_sent(out: &mut Writer, sent: &Sent) {
    out.u128(sent.id.as_u128()).bool(sent.duplicate);
}

fn decode_sent(input: &mut Reader<'_>) -> Option<Sent> {
    Some(Sent { id: input.message_id()?, duplicate: input.bool()? })
}

fn decode_outcome_kind(input: &mut Reader<'_>) -> Option<OutcomeKind> {
    use OutcomeKind::{Ack, Lost, Nack, Reject, Release};
    input.one_of([Ack, Nack, Release, Reject, Lost])
}

fn encode_settled(out: &mut Writer, settled: &Settled) {
    out.option(settled.state.as_ref(), |out, state| _ = out.u8(*state as u8));
    out.option(settled.delayed_until.as_ref(), |out, at| _ = out.time(*at));
}

fn decode_settled(input: &mut Reader<'_>) -> Option<Settled> {
    let states = [State::Ready, State::Delayed, State::InFlight, State::Dead];
    Some(Settled {
        state: input.option(|input| input.one_of(states))?,
        delayed_until: input.option(Reader::time)?,
    })
}
