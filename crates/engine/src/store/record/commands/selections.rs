//! Commands for people: about messages that nobody holds.

use crate::command::{Cancel, Filter, Mode, Selection};
use crate::message::{MessageId, QueueId, State};
use crate::store::encoding::{Reader, Writer};

pub(super) fn write_cancel(out: &mut Writer, cancel: &Cancel) {
    let Cancel { queue, ids } = cancel;
    out.u32(queue.0).list(ids, write_id);
}

pub(super) fn read_cancel(input: &mut Reader<'_>) -> Option<Cancel> {
    Some(Cancel { queue: QueueId(input.u32()?), ids: input.list(usize::MAX, Reader::message_id)? })
}

pub(super) fn write_selection(out: &mut Writer, selection: &Selection) {
    let Selection { queue, filter, after, max_messages, mode } = selection;
    out.u32(queue.0);
    write_filter(out, filter);
    out.option(after.as_ref(), |out, cursor| _ = out.u64(*cursor));
    out.u64(*max_messages).u8(*mode as u8);
}

pub(super) fn read_selection(input: &mut Reader<'_>) -> Option<Selection> {
    Some(Selection {
        queue: QueueId(input.u32()?),
        filter: read_filter(input)?,
        after: input.option(Reader::u64)?,
        max_messages: input.u64()?,
        mode: input.one_of([Mode::DryRun, Mode::Apply])?,
    })
}

fn write_filter(out: &mut Writer, filter: &Filter) {
    let Filter {
        states,
        ordering_key,
        fairness_key,
        headers,
        reason_contains,
        min_attempts,
        stored_after,
        stored_before,
        ids,
    } = filter;
    out.list(states, |out, state| _ = out.u8(*state as u8)).text(ordering_key).text(fairness_key);
    out.list(headers, |out, (key, value)| _ = out.text(key).text(value));
    out.text(reason_contains).u32(*min_attempts);
    out.option(stored_after.as_ref(), |out, at| _ = out.time(*at));
    out.option(stored_before.as_ref(), |out, at| _ = out.time(*at));
    out.list(ids, write_id);
}

fn read_filter(input: &mut Reader<'_>) -> Option<Filter> {
    let states = [State::Ready, State::Delayed, State::InFlight, State::Dead];
    Some(Filter {
        states: input.list(usize::MAX, |input| input.one_of(states))?,
        ordering_key: input.text()?,
        fairness_key: input.text()?,
        headers: input.list(usize::MAX, |input| Some((input.text()?, input.text()?)))?,
        reason_contains: input.text()?,
        min_attempts: input.u32()?,
        stored_after: input.option(Reader::time)?,
        stored_before: input.option(Reader::time)?,
        ids: input.list(usize::MAX, Reader::message_id)?,
    })
}

fn write_id(out: &mut Writer, id: &MessageId) {
    out.u128(id.as_u128());
}
