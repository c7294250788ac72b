//! Summaries of pages of rows.

use crate::dense::Page;
use crate::message::{KeyId, Priority, QueueId, Row, State};
use crate::messages::{Alike, Group, Slots, Stored, Summary};
use crate::store::encoding::{Reader, Writer};

pub(in crate::store) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = Writer::default();
    out.list(&summary.groups, write_group);
    out.list(&summary.stored, |out, Stored { segment, messages, bytes }| {
        out.u64(*segment).u64(*messages).u64(*bytes);
    });
    out.seal()
}

pub(in crate::store) fn decode_summary(bytes: &[u8]) -> Option<Summary> {
    let mut input = Reader::open(bytes)?;
    let groups = input.list(Page::<Row>::SLOTS, read_group)?;
    let stored = input.list(Page::<Row>::SLOTS, |input| {
        Some(Stored { segment: input.u64()?, messages: input.u64()?, bytes: input.u64()? })
    })?;
    input.end(Summary { groups, stored })
}

fn write_group(out: &mut Writer, group: &Group) {
    let Group { alike: Alike { queue, state, priority, ordering, fairness, wake_at }, bytes, slots } = group;
    out.u32(queue.0).u8(*state as u8).u8(priority.level());
    out.option(ordering.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(fairness.as_ref(), |out, key| _ = out.u64(key.0));
    out.option(wake_at.as_ref(), |out, at| _ = out.time(*at));
    out.u64(*bytes);
    let runs: Vec<(u8, u8)> = slots.runs().collect();
    out.list(&runs, |out, (first, last)| _ = out.u8(*first).u8(*last));
}

fn read_group(input: &mut Reader<'_>) -> Option<Group> {
    let alike = Alike {
        queue: QueueId(input.u32()?),
        state: input.one_of([State::Ready, State::Delayed, State::InFlight, State::Dead])?,
        priority: Priority::new(u32::from(input.u8()?))?,
        ordering: input.option(|input| input.u64().map(KeyId))?,
        fairness: input.option(|input| input.u64().map(KeyId))?,
        wake_at: input.option(Reader::time)?,
    };
    let bytes = input.u64()?;
    let runs = input.list(Page::<Row>::SLOTS, |input| Some((input.u8()?, input.u8()?)))?;
    Some(Group { alike, bytes, slots: Slots::of_runs(&runs)? })
}
