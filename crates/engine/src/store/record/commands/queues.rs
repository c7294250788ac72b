//! Commands that make, change and remove queues.

use crate::command::{Configure, Delete, Pause};
use crate::message::QueueId;
use crate::store::codec::{decode_settings, encode_settings};
use crate::store::encoding::{Reader, Writer};

pub(super) fn write_configure(out: &mut Writer, configure: &Configure) {
    let Configure { name, generation, settings } = configure;
    out.text(name).u64(*generation);
    encode_settings(out, settings);
}

pub(super) fn read_configure(input: &mut Reader<'_>) -> Option<Configure> {
    Some(Configure { name: input.text()?, generation: input.u64()?, settings: decode_settings(input)? })
}

pub(super) fn write_pause(out: &mut Writer, pause: Pause) {
    let Pause { queue, paused } = pause;
    out.u32(queue.0).bool(paused);
}

pub(super) fn read_pause(input: &mut Reader<'_>) -> Option<Pause> {
    Some(Pause { queue: QueueId(input.u32()?), paused: input.bool()? })
}

pub(super) fn write_delete(out: &mut Writer, delete: &Delete) {
    let Delete { queue, max_messages } = delete;
    out.u32(queue.0).u64(*max_messages);
}

pub(super) fn read_delete(input: &mut Reader<'_>) -> Option<Delete> {
    Some(Delete { queue: QueueId(input.u32()?), max_messages: input.u64()? })
}
