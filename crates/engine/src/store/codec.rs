//! Rows as bytes: little-endian numbers, length-prefixed text, and a CRC32C at the end of every value.
//!
//! `docs/storage-format.md` describes each layout. Decoding never panics: what makes no sense is `None`.

use bytes::Bytes;

use super::{Meta, QueueRecord};
use crate::command::{Sent, Settled};
use crate::memory::{Memorized, MemoryKey, OutcomeKind, Remembered};
use crate::message::{
    Attempt, AttemptOutcome, DeadReason, Epoch, Hold, KeyId, MAX_HISTORY, MessageId, Payload, Priority,
    QueueId, Row, Seq, Stage, State,
};
use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};
use crate::time::Timestamp;

/// Grows when a layout changes.
pub(super) const FORMAT: u8 = 2;

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

pub(super) fn encode_queue(queue: &QueueRecord) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(&queue.name).u64(queue.generation);
    encode_settings(&mut out, &queue.settings);
    out.bool(queue.is_paused).bool(queue.is_closed);
    out.seal()
}

pub(super) fn decode_queue(bytes: &[u8]) -> Option<QueueRecord> {
    let mut input = Reader::open(bytes)?;
    let queue = QueueRecord {
        name: input.text()?,
        generation: input.u64()?,
        settings: decode_settings(&mut input)?,
        is_paused: input.bool()?,
        is_closed: input.bool()?,
    };
    input.end(queue)
}

fn encode_settings(out: &mut Writer, settings: &Settings) {
    let Settings {
        ack_timeout_ms,
        max_processing_ms,
        max_attempts,
        backoff,
        max_messages,
        max_bytes,
        max_message_bytes,
        max_in_flight,
        dead_ms,
        dedup_window_ms,
        expired,
        priority_step_ms,
    } = settings;
    out.u64(*ack_timeout_ms).u64(*max_processing_ms).u32(*max_attempts);
    out.u8(backoff.policy as u8).u64(backoff.min_ms).u64(backoff.max_ms);
    out.u64(*max_messages).u64(*max_bytes).u64(*max_message_bytes).u64(*max_in_flight);
    out.u64(*dead_ms).u64(*dedup_window_ms).u8(*expired as u8);
    out.u64(*priority_step_ms);
}

fn decode_settings(input: &mut Reader<'_>) -> Option<Settings> {
    Some(Settings {
        ack_timeout_ms: input.u64()?,
        max_processing_ms: input.u64()?,
        max_attempts: input.u32()?,
        backoff: Backoff {
            policy: input.one_of([
                BackoffPolicy::Constant,
                BackoffPolicy::Linear,
                BackoffPolicy::Exponential,
            ])?,
            min_ms: input.u64()?,
            max_ms: input.u64()?,
        },
        max_messages: input.u64()?,
        max_bytes: input.u64()?,
        max_message_bytes: input.u64()?,
        max_in_flight: input.u64()?,
        dead_ms: input.u64()?,
        dedup_window_ms: input.u64()?,
        expired: input.one_of([Expired::DeadLetter, Expired::Drop])?,
        priority_step_ms: input.u64()?,
    })
}

pub(super) fn encode_row(row: &Row) -> Vec<u8> {
    let Row { queue, stored_at, stage, attempts, deliveries, history, expires_at, max_attempts, .. } = row;
    let Row { body_bytes, priority, ordering, fairness, .. } = row;
    let mut out = Writer::default();
    out.u32(queue.0).time(*stored_at).u32(*attempts).u32(*deliveries).u64(*body_bytes);
    out.u8(priority.level());
    out.option(ordering.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(fairness.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(expires_at.as_ref(), |out, at| _ = out.time(*at));
    out.option(max_attempts.as_ref(), |out, max| _ = out.u32(*max));
    encode_stage(&mut out, stage);
    out.list(history, encode_attempt);
    out.seal()
}

pub(super) fn decode_row(bytes: &[u8]) -> Option<Row> {
    let mut input = Reader::open(bytes)?;
    // In the order in which they lie there.
    let row = Row {
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
        stage: decode_stage(&mut input)?,
        history: input.list(MAX_HISTORY, decode_attempt)?,
    };
    input.end(row)
}

fn encode_stage(out: &mut Writer, stage: &Stage) {
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

fn decode_stage(input: &mut Reader<'_>) -> Option<Stage> {
    Some(match input.u8()? {
        0 => Stage::Ready,
        1 => Stage::Delayed { until: input.time()? },
        2 => Stage::InFlight(Hold {
            epoch: Epoch(input.u64()?),
            started: input.time()?,
            deadline: input.time()?,
            ack_timeout_ms: input.u64()?,
            consumer: input.text()?,
            is_handed: input.bool()?,
        }),
        3 => Stage::Dead { reason: decode_dead_reason(input)?, since: input.time()?, until: input.time()? },
        _ => return None,
    })
}

fn decode_dead_reason(input: &mut Reader<'_>) -> Option<DeadReason> {
    input.one_of([DeadReason::MaxAttempts, DeadReason::Rejected, DeadReason::Expired, DeadReason::Corrupt])
}

fn encode_attempt(out: &mut Writer, attempt: &Attempt) {
    let Attempt { started, ended, outcome, reason, consumer } = attempt;
    out.time(*started).time(*ended).u8(*outcome as u8).text(reason).text(consumer);
}

fn decode_attempt(input: &mut Reader<'_>) -> Option<Attempt> {
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

pub(super) fn encode_payload(payload: &Payload) -> Vec<u8> {
    let Payload { body, headers, content_type, dedup_id, ordering_key, fairness_key } = payload;
    let mut out = Writer::with_capacity(body.len() + 64);
    out.bytes(body).text(content_type).text(dedup_id).text(ordering_key).text(fairness_key);
    out.list(headers, |out, (key, value)| _ = out.text(key).text(value));
    out.seal()
}

pub(super) fn decode_payload(bytes: &[u8]) -> Option<Payload> {
    let mut input = Reader::open(bytes)?;
    let payload = Payload {
        body: Bytes::copy_from_slice(input.bytes()?),
        content_type: input.text()?,
        dedup_id: input.text()?,
        ordering_key: input.text()?,
        fairness_key: input.text()?,
        headers: input.list(usize::MAX, |input| Some((input.text()?, input.text()?)))?,
    };
    input.end(payload)
}

pub(super) fn encode_memory_key(key: &MemoryKey) -> Vec<u8> {
    let mut out = Writer::default();
    match key {
        MemoryKey::Delivery(queue, epoch) => _ = out.u8(0).u32(queue.0).u64(epoch.0),
        MemoryKey::Request(queue, id) => _ = out.u8(1).u32(queue.0).text(id),
        MemoryKey::Dedup(queue, id) => _ = out.u8(2).u32(queue.0).text(id),
    }
    out.seal()
}

pub(super) fn decode_memory_key(bytes: &[u8]) -> Option<MemoryKey> {
    let mut input = Reader::open(bytes)?;
    let key = match input.u8()? {
        0 => MemoryKey::Delivery(QueueId(input.u32()?), Epoch(input.u64()?)),
        1 => MemoryKey::Request(QueueId(input.u32()?), input.text()?),
        2 => MemoryKey::Dedup(QueueId(input.u32()?), input.text()?),
        _ => return None,
    };
    input.end(key)
}

pub(super) fn encode_memorized(entry: &Memorized) -> Vec<u8> {
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

pub(super) fn decode_memorized(bytes: &[u8]) -> Option<Memorized> {
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

/// What can be decoded is encoded as the same bytes; nothing panics.
#[cfg(fuzzing)]
pub fn fuzz_record(bytes: &[u8]) {
    let mut sealed = Writer(bytes.to_vec()).seal();
    // With a checksum that fits, or the decoders would never see anything.
    let again = |encoded: Option<Vec<u8>>| assert!(encoded.is_none_or(|encoded| encoded == sealed));
    again(decode_meta(&sealed).map(|meta| encode_meta(&meta)));
    again(decode_queue(&sealed).map(|queue| encode_queue(&queue)));
    again(decode_row(&sealed).map(|row| encode_row(&row)));
    again(decode_payload(&sealed).map(|payload| encode_payload(&payload)));
    again(decode_memory_key(&sealed).map(|key| encode_memory_key(&key)));
    again(decode_memorized(&sealed).map(|entry| encode_memorized(&entry)));
    sealed.pop();
    assert!(decode_row(&sealed).is_none());
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    fn time(&mut self, value: Timestamp) -> &mut Self {
        self.u64(value.0)
    }

    fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("everything stored was bounded far below 4 GiB at the edge"))
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.len(value.len()).raw(value)
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    fn option<T>(&mut self, value: Option<&T>, some: impl FnOnce(&mut Self, &T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            some(self, value);
        }
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) -> &mut Self {
        self.len(items.len());
        items.iter().for_each(|item| each(self, item));
        self
    }

    fn seal(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.u32(crc);
        self.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        (crc32c::crc32c(content) == u32::from_le_bytes(*crc)).then_some(Self(content))
    }

    fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        self.one_of([false, true])
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp)
    }

    fn message_id(&mut self) -> Option<MessageId> {
        self.array().map(|bytes| MessageId::from_u128(u128::from_le_bytes(bytes)))
    }

    fn len(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.raw(len)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn one_of<T: Copy, const N: usize>(&mut self, values: [T; N]) -> Option<T> {
        values.get(usize::from(self.u8()?)).copied()
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one says whether it could be read, as everywhere here"
    )]
    fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => some(self).map(Some),
            _ => None,
        }
    }

    fn list<T>(&mut self, max: usize, each: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = self.len().filter(|len| *len <= max)?;
        (0..len).map(|_| each(self)).collect()
    }

    /// The value, if nothing is left behind it.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests;
