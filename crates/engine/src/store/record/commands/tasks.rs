//! Parts of tasks.

use crate::message::QueueId;
use crate::store::codec::{read_order, read_task_id, write_order, write_task_id};
use crate::store::encoding::{Reader, Writer};
use crate::task::Task;

pub(super) fn write_task(out: &mut Writer, task: &Task) {
    let Task { queue, id, order, has_begun, cancel } = task;
    out.u32(queue.0);
    write_task_id(out, id);
    write_order(out, order);
    out.bool(*has_begun).bool(*cancel);
}

pub(super) fn read_task(input: &mut Reader<'_>) -> Option<Task> {
    Some(Task {
        queue: QueueId(input.u32()?),
        id: read_task_id(input)?,
        order: read_order(input)?,
        has_begun: input.bool()?,
        cancel: input.bool()?,
    })
}
