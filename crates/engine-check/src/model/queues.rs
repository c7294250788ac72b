//! Queues: made, changed, paused, deleted.

use std::collections::BTreeMap;

use ackwell_engine::command::{Configure, Delete, Deleted, Pause};
use ackwell_engine::message::{QueueId, Seq};
use ackwell_engine::{Refusal, Reply, Settings, Totals};

use super::{Model, Note, Queue, Turns};

impl Model {
    /// The queue of this name.
    pub fn queue_named(&self, name: &str) -> Option<QueueId> {
        self.queues.iter().find(|queue| queue.name == name).map(|queue| queue.id)
    }

    /// All queues.
    pub fn queue_ids(&self) -> impl Iterator<Item = QueueId> {
        self.queues.iter().map(|queue| queue.id)
    }

    pub(super) fn configure(&mut self, configure: &Configure) -> Reply {
        let Configure { name, generation, settings } = configure.clone();
        let Some(id) = self.queue_named(&name) else { return self.make_queue(name, generation, settings) };
        let queue = self.queue_mut(id);
        if queue.is_closed {
            return Reply::Refused(Refusal::QueueDeleted);
        }
        if generation >= queue.generation {
            (queue.generation, queue.settings) = (generation, settings);
        }
        Reply::Configured(id, queue.generation)
    }

    fn make_queue(&mut self, name: String, generation: u64, settings: Settings) -> Reply {
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        let (totals, turns) = (Totals::default(), Turns::default());
        self.queues.push(Queue {
            id,
            name,
            generation,
            settings,
            is_paused: false,
            is_closed: false,
            totals,
            turns,
            tasks: BTreeMap::new(),
        });
        Reply::Configured(id, generation)
    }

    pub(super) fn pause(&mut self, pause: Pause) -> Result<Reply, Refusal> {
        self.check_open(pause.queue)?;
        self.queue_mut(pause.queue).is_paused = pause.paused;
        Ok(Reply::Paused)
    }

    pub(super) fn delete(&mut self, delete: Delete) -> Result<Reply, Refusal> {
        self.check_known(delete.queue)?;
        self.queue_mut(delete.queue).is_closed = true;
        let all: Vec<Seq> = self.of(delete.queue).map(super::Stored::seq).collect();
        let removed = all.iter().zip(0..delete.max_messages);
        let messages = removed.map(|(seq, _)| self.remove(*seq)).count() as u64;
        let done = messages == all.len() as u64;
        if done {
            self.queues.retain(|queue| queue.id != delete.queue);
            self.notes.retain(|(_, note)| note.queue() != Some(delete.queue));
        }
        Ok(Reply::Deleted(Deleted { messages, done }))
    }

    pub(super) fn check_known(&self, queue: QueueId) -> Result<(), Refusal> {
        self.queue(queue).map(|_| ()).ok_or(Refusal::UnknownQueue)
    }

    pub(super) fn check_open(&self, queue: QueueId) -> Result<(), Refusal> {
        self.check_known(queue)?;
        if self.queue(queue).is_some_and(|queue| queue.is_closed) {
            Err(Refusal::QueueDeleted)
        } else {
            Ok(())
        }
    }
}

impl Note {
    fn queue(&self) -> Option<QueueId> {
        match self {
            Self::Settled(lease, ..) => Some(lease.queue),
            Self::Sent(queue, ..) | Self::Received(queue, ..) | Self::Dedup(queue, ..) => Some(*queue),
            Self::Committed(..) => None,
        }
    }
}
