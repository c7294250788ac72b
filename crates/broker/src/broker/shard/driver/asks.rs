//! Handing out by itself: whom to ask for, and when it is no use any more.

use std::collections::HashMap;

use ackwell_engine::Command;
use ackwell_engine::command::{Commit, Delivery};
use ackwell_engine::message::QueueId;

use super::{Driver, Then};

/// What the last step asked a queue for.
pub(super) struct Asked {
    /// What it could hand out before.
    grantable: u64,
    has_handed: bool,
}

/// Asks in vain after which nobody is asked until a job comes: the first time by turns, then everybody.
const ASKS_IN_VAIN: u8 = 2;

impl Driver {
    /// Asks for those who wait, behind the batch's own commands: what they store or give back can be handed out at once.
    ///
    /// Of a queue that is being asked already nothing is known until that is answered: neither what it has left, nor what
    /// those asked for have room for.
    pub(super) fn add_asks(&mut self, arriving: &HashMap<QueueId, u64>) -> HashMap<QueueId, Asked> {
        let mut asked = HashMap::new();
        if !self.is_granting || self.engine.is_none() {
            return asked;
        }
        for queue in self.demands.queues() {
            if self.under_way.has_asked(queue) {
                continue;
            }
            let grantable = self.grantable(queue);
            let available = if self.in_vain.contains_key(&queue) {
                u64::MAX
            } else {
                let arriving = arriving.get(&queue).copied().unwrap_or(0);
                grantable + self.under_way.arriving(queue) + arriving
            };
            let asks = self.demands.ask(queue, available);
            if !asks.is_empty() {
                asked.insert(queue, Asked { grantable, has_handed: false });
            }
            self.batch.extend(
                asks.into_iter().map(|(receive, asker)| (Command::Receive(receive), Then::Hand(asker))),
            );
        }
        asked
    }

    fn grantable(&self, queue: QueueId) -> u64 {
        self.engine.as_ref().map_or(0, |engine| engine.grantable(queue))
    }

    /// Whether a waiting demand can be served without any new job.
    pub(super) fn has_more_to_hand(&self) -> bool {
        let may_be_asked =
            |queue: &QueueId| self.in_vain.get(queue).is_none_or(|times| *times < ASKS_IN_VAIN);
        self.is_granting
            && self.demands.queues().into_iter().any(|queue| {
                may_be_asked(&queue) && self.grantable(queue) > 0 && self.demands.has_room(queue)
            })
    }

    /// Those asked may have wanted less than there was, or something else. What was handed out, or found to be corrupt or
    /// expired, makes the next ask worth while.
    pub(super) fn judge_asks(&mut self) {
        for (queue, Asked { grantable, has_handed }) in std::mem::take(&mut self.asked) {
            if has_handed || self.grantable(queue) != grantable {
                self.in_vain.remove(&queue);
            } else {
                *self.in_vain.entry(queue).or_default() += 1;
            }
        }
    }

    pub(super) fn note_handed(&mut self, queue: QueueId, deliveries: &[Delivery]) {
        if let Some(asked) = self.asked.get_mut(&queue) {
            asked.has_handed |= !deliveries.is_empty();
        }
    }
}

/// How many messages the batch may make available, by queue.
pub(super) fn arriving(batch: &[(Command, Then)]) -> HashMap<QueueId, u64> {
    let mut arriving = HashMap::new();
    for (command, _) in batch {
        let (queue, count) = match command {
            Command::Send(send) => (send.queue, send.messages.len()),
            Command::Settle(settle) => (settle.queue, settle.settlements.len()),
            Command::Commit(commit) => {
                arriving_by_commit(commit, &mut arriving);
                continue;
            }
            // Others get their chance with it, whether or not it is eligible at once.
            Command::Redrive(selection) | Command::Purge(selection) => (selection.queue, 1),
            Command::Cancel(cancel) => (cancel.queue, cancel.ids.len()),
            Command::Pause(pause) => (pause.queue, 1),
            // Slots that are let go of may have had any number wait.
            Command::Import(import) => (import.queue, import.messages.len().max(1)),
            Command::Place(place) => (place.queue, 1),
            Command::Task(task) => (task.queue, 1),
            Command::Configure(_)
            | Command::Delete(_)
            | Command::Receive(_)
            | Command::HandOver(_)
            | Command::Extend(_)
            | Command::Arrive(_)
            | Command::Depart(_)
            | Command::Forget(_) => continue,
        };
        *arriving.entry(queue).or_default() += count as u64;
    }
    arriving
}

fn arriving_by_commit(commit: &Commit, arriving: &mut HashMap<QueueId, u64>) {
    for settle in &commit.settle {
        *arriving.entry(settle.queue).or_default() += settle.settlements.len() as u64;
    }
    for outgoing in &commit.send {
        *arriving.entry(outgoing.queue).or_default() += outgoing.messages.len() as u64;
    }
}
