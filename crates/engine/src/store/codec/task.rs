//! What a shard keeps of tasks.

use std::collections::BTreeMap;

use crate::message::State;
use crate::store::encoding::{Reader, Writer};
use crate::task::{MAX_TASKS, Order, Record, TaskId, Tasks, Work};

pub(super) fn write_tasks(out: &mut Writer, tasks: &Tasks) {
    let Tasks { known, forgotten } = tasks;
    let known: Vec<(&TaskId, &Record)> = known.iter().collect();
    out.list(&known, |out, (id, record)| {
        write_task_id(out, id);
        write_record(out, record);
    });
    out.option(forgotten.as_ref(), write_task_id);
}

pub(super) fn read_tasks(input: &mut Reader<'_>) -> Option<Tasks> {
    let known = input.list(MAX_TASKS, |input| Some((read_task_id(input)?, read_record(input)?)))?;
    let is_sorted = known.is_sorted_by(|(one, _), (next, _)| one < next);
    let known: BTreeMap<_, _> = is_sorted.then(|| known.into_iter().collect())?;
    Some(Tasks { known, forgotten: input.option(read_task_id)? })
}

pub(in crate::store) fn write_task_id(out: &mut Writer, id: &TaskId) {
    let TaskId { created, uid } = id;
    out.time(*created).text(uid);
}

pub(in crate::store) fn read_task_id(input: &mut Reader<'_>) -> Option<TaskId> {
    Some(TaskId { created: input.time()?, uid: input.text()? })
}

pub(in crate::store) fn write_order(out: &mut Writer, order: &Order) {
    let Order { work, stored_before, max_messages, max_per_second } = order;
    match work {
        Work::Redrive => _ = out.u8(0),
        Work::Purge(states) => _ = out.u8(1).list(states, |out, state| _ = out.u8(*state as u8)),
    }
    out.option(stored_before.as_ref(), |out, at| _ = out.time(*at));
    out.u64(*max_messages).u64(*max_per_second);
}

pub(in crate::store) fn read_order(input: &mut Reader<'_>) -> Option<Order> {
    let states = [State::Ready, State::Delayed, State::InFlight, State::Dead];
    let work = match input.u8()? {
        0 => Work::Redrive,
        1 => Work::Purge(input.list(states.len(), |input| input.one_of(states))?),
        _ => return None,
    };
    Some(Order {
        work,
        stored_before: input.option(Reader::time)?,
        max_messages: input.u64()?,
        max_per_second: input.u64()?,
    })
}

fn write_record(out: &mut Writer, record: &Record) {
    let Record { order, started, end, scanned, total, processed, failed, second, in_second, is_over } =
        record;
    write_order(out, order);
    out.time(*started).u64(*end).u64(*scanned).u64(*total).u64(*processed).u64(*failed);
    out.time(*second).u64(*in_second).bool(*is_over);
}

fn read_record(input: &mut Reader<'_>) -> Option<Record> {
    Some(Record {
        order: read_order(input)?,
        started: input.time()?,
        end: input.u64()?,
        scanned: input.u64()?,
        total: input.u64()?,
        processed: input.u64()?,
        failed: input.u64()?,
        second: input.time()?,
        in_second: input.u64()?,
        is_over: input.bool()?,
    })
}
