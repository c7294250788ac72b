//! Queues: made, changed, paused, deleted.

use super::{Engine, Queue};
use crate::command::{Configure, Delete, Deleted, Pause, Refusal, Reply};
use crate::message::{QueueId, Seq, Stage};
use crate::settings::Settings;
use crate::store::QueueRecord;

impl Engine {
    /// The queue of this name (`namespace/name`).
    pub fn queue(&self, name: &str) -> Option<QueueId> {
        self.queues.iter().find(|(_, queue)| queue.record.name == name).map(|(id, _)| *id)
    }

    /// The rules that it goes by.
    pub fn rules(&self, queue: QueueId) -> Option<&Settings> {
        self.settings(queue).ok()
    }

    /// Whether somebody stopped it from handing messages out.
    pub fn is_paused(&self, queue: QueueId) -> bool {
        self.queues.get(&queue).is_some_and(|queue| queue.record.is_paused)
    }

    pub(super) fn configure(&mut self, configure: Configure) -> Reply {
        let Configure { name, generation, settings } = configure;
        let Some(id) = self.queue(&name) else {
            return Reply::Configured(self.make_queue(name, generation, settings), generation);
        };
        let record = &mut self.queues.get_mut(&id).expect("the id was just found").record;
        if record.is_closed {
            return Reply::Refused(Refusal::QueueDeleted);
        }
        if generation < record.generation {
            return Reply::Configured(id, record.generation);
        }
        let retention_changed = record.settings.dead_ms != settings.dead_ms;
        let changed = QueueRecord { generation, settings, ..record.clone() };
        self.change_queue(id, changed);
        if retention_changed {
            self.retain_dead(id);
        }
        Reply::Configured(id, generation)
    }

    fn make_queue(&mut self, name: String, generation: u64, settings: Settings) -> QueueId {
        // Never used twice, so that the receipts of a deleted queue fit no other.
        let id = QueueId(self.meta.next_queue);
        self.meta.next_queue += 1;
        let record = QueueRecord::new(name, generation, settings);
        self.queues.insert(id, Queue::new(record));
        self.has_new_queue = true;
        id
    }

    pub(super) fn pause(&mut self, pause: Pause) -> Result<Reply, Refusal> {
        self.open_settings(pause.queue)?;
        let record = self.queues[&pause.queue].record.clone();
        self.change_queue(pause.queue, QueueRecord { is_paused: pause.paused, ..record });
        Ok(Reply::Paused)
    }

    pub(super) fn delete(&mut self, delete: Delete) -> Result<Reply, Refusal> {
        let Delete { queue, max_messages } = delete;
        self.settings(queue)?;
        let record = self.queues[&queue].record.clone();
        self.change_queue(queue, QueueRecord { is_closed: true, ..record });
        let max = usize::try_from(max_messages).unwrap_or(usize::MAX);
        let all = self.messages.index(queue).into_iter().flat_map(|index| index.all.iter());
        let removed: Vec<Seq> = all.take(max).collect();
        removed.iter().for_each(|seq| _ = self.remove(*seq));
        let done = self.messages.counts(queue).messages() == 0;
        if done {
            self.forget_queue(queue);
        }
        Ok(Reply::Deleted(Deleted { messages: removed.len() as u64, done }))
    }

    fn forget_queue(&mut self, queue: QueueId) {
        self.queues.remove(&queue);
        self.deleted.push(queue);
        self.messages.forget(queue);
        self.memory.forget(queue);
    }

    fn change_queue(&mut self, id: QueueId, record: QueueRecord) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.record = record;
    }

    /// A changed retention holds for those that are dead already.
    fn retain_dead(&mut self, queue: QueueId) {
        let Some(settings) = self.queues.get(&queue).map(|queue| &queue.record.settings) else { return };
        let dead = self.messages.index(queue).into_iter().flat_map(|index| index.dead.iter());
        let dead: Vec<Seq> = dead.collect();
        for seq in dead {
            self.messages.change(seq, |row| {
                if let Stage::Dead { since, until, .. } = &mut row.stage {
                    *until = settings.dead_until(*since);
                }
            });
        }
    }
}
