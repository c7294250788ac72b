//! Commands in a record, without the payloads of their messages.

mod deliveries;
mod moving;
mod queues;
mod selections;
mod sends;
mod tasks;

use super::Payloads;
use crate::command::{Command, NewMessage};
use crate::moving::Traveller;
use crate::store::encoding::{Reader, Writer};

pub(super) fn write(out: &mut Writer, command: &Command) {
    match command {
        Command::Configure(configure) => queues::write_configure(out.u8(0), configure),
        Command::Pause(pause) => queues::write_pause(out.u8(1), *pause),
        Command::Delete(delete) => queues::write_delete(out.u8(2), delete),
        Command::Send(send) => sends::write_send(out.u8(3), send),
        Command::Receive(receive) => deliveries::write_receive(out.u8(4), receive),
        Command::HandOver(hand_over) => deliveries::write_hand_over(out.u8(5), hand_over),
        Command::Settle(settle) => deliveries::write_settle(out.u8(6), settle),
        Command::Extend(extend) => deliveries::write_extend(out.u8(7), extend),
        Command::Commit(commit) => sends::write_commit(out.u8(8), commit),
        Command::Cancel(cancel) => selections::write_cancel(out.u8(9), cancel),
        Command::Redrive(selection) => selections::write_selection(out.u8(10), selection),
        Command::Purge(selection) => selections::write_selection(out.u8(11), selection),
        Command::Place(place) => moving::write_place(out.u8(12), place),
        Command::Arrive(arrive) => moving::write_arrive(out.u8(13), arrive),
        Command::Import(import) => moving::write_import(out.u8(14), import),
        Command::Depart(depart) => moving::write_depart(out.u8(15), depart),
        Command::Forget(forget) => moving::write_forget(out.u8(16), forget),
        Command::Task(task) => tasks::write_task(out.u8(17), task),
    }
}

pub(super) fn read(input: &mut Reader<'_>, payloads: &mut Payloads<'_>) -> Option<Command> {
    Some(match input.u8()? {
        0 => Command::Configure(queues::read_configure(input)?),
        1 => Command::Pause(queues::read_pause(input)?),
        2 => Command::Delete(queues::read_delete(input)?),
        3 => Command::Send(sends::read_send(input, payloads)?),
        4 => Command::Receive(deliveries::read_receive(input)?),
        5 => Command::HandOver(deliveries::read_hand_over(input)?),
        6 => Command::Settle(deliveries::read_settle(input)?),
        7 => Command::Extend(deliveries::read_extend(input)?),
        8 => Command::Commit(sends::read_commit(input, payloads)?),
        9 => Command::Cancel(selections::read_cancel(input)?),
        10 => Command::Redrive(selections::read_selection(input)?),
        11 => Command::Purge(selections::read_selection(input)?),
        12 => Command::Place(moving::read_place(input)?),
        13 => Command::Arrive(moving::read_arrive(input)?),
        14 => Command::Import(moving::read_import(input, payloads)?),
        15 => Command::Depart(moving::read_depart(input)?),
        16 => Command::Forget(moving::read_forget(input)?),
        17 => Command::Task(tasks::read_task(input)?),
        _ => return None,
    })
}

/// Every message that has a payload, in order of appearance.
pub(super) fn each_message<'a>(commands: &'a [Command], mut each: impl FnMut(&'a NewMessage)) {
    for command in commands {
        match command {
            Command::Send(send) => send.messages.iter().for_each(&mut each),
            Command::Commit(commit) => {
                commit.send.iter().flat_map(|outgoing| &outgoing.messages).for_each(&mut each);
            }
            Command::Import(import) => import.messages.iter().map(Traveller::message).for_each(&mut each),
            Command::Configure(_)
            | Command::Pause(_)
            | Command::Delete(_)
            | Command::Receive(_)
            | Command::HandOver(_)
            | Command::Settle(_)
            | Command::Extend(_)
            | Command::Cancel(_)
            | Command::Redrive(_)
            | Command::Purge(_)
            | Command::Place(_)
            | Command::Arrive(_)
            | Command::Depart(_)
            | Command::Forget(_)
            | Command::Task(_) => {}
        }
    }
}
