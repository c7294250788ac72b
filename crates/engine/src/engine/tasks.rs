//! Tasks: a part at a time, of what was fixed when it began.

use super::Engine;
use super::peek::MAX_SCANNED;
use crate::command::{Filter, Refusal, Reply};
use crate::message::{QueueId, Seq};
use crate::task::{Progress, Record, Task, TaskId, Tasks, Verdict, Work};
use crate::time::Timestamp;

impl Engine {
    /// Looks at a bounded number of messages and answers how far the task is. A call that is repeated goes on where the one
    /// before stopped; one that may be the first only notes what is meant.
    pub(super) fn task(&mut self, now: Timestamp, task: Task) -> Result<Reply, Refusal> {
        let Task { queue, id, order, has_begun, cancel } = task;
        let tasks = &self.queues.get(&queue).ok_or(Refusal::UnknownQueue)?.record.tasks;
        let known = tasks.known.get(&id).cloned();
        if known.is_none() && (has_begun || tasks.has_forgotten(&id)) {
            return Ok(Reply::Task(Progress::FORGOTTEN));
        }
        let (end, counts) = (self.meta.next_seq, self.messages.counts(queue));
        let mut record = known.unwrap_or_else(|| Record::new(order, now, end, &counts));
        if cancel {
            record.is_over = true;
        }
        if has_begun && !record.is_over {
            self.go_on(now, queue, &mut record);
        }
        let progress = record.progress();
        if let Some(tasks) = self.tasks_mut(queue) {
            tasks.keep(id, record);
        }
        Ok(Reply::Task(progress))
    }

    /// How far the task is, if there is a record of it.
    pub fn progress(&self, queue: QueueId, id: &TaskId) -> Option<Progress> {
        Some(self.queues.get(&queue)?.record.tasks.known.get(id)?.progress())
    }

    fn go_on(&mut self, now: Timestamp, queue: QueueId, record: &mut Record) {
        let mut allowance = record.allowance(now);
        let states = record.order.work.states().to_vec();
        let filter = Filter { states, ..Filter::default() };
        let candidates = self.candidates(queue, &filter, Some(record.scanned));
        let end = record.end;
        let candidates: Vec<Seq> = candidates.take_while(|seq| seq.0 < end).take(MAX_SCANNED).collect();
        let mut looked_at = 0;
        for seq in &candidates {
            let row = self.row(*seq);
            // What leaves is at its new shard by then, and the task does not follow it.
            let verdict = if self.is_leaving(*seq, row) { Verdict::Other } else { record.verdict(row) };
            match verdict {
                Verdict::Meant if allowance == 0 => {
                    record.scanned = seq.0 - 1;
                    break;
                }
                Verdict::Meant => {
                    allowance -= 1;
                    record.count();
                    self.work(*seq, &record.order.work);
                }
                Verdict::Corrupt => record.failed += 1,
                Verdict::Other => {}
            }
            record.scanned = seq.0;
            looked_at += 1;
        }
        let is_end = looked_at == candidates.len() && candidates.len() < MAX_SCANNED;
        record.is_over = is_end || record.is_used_up();
    }

    fn work(&mut self, seq: Seq, work: &Work) {
        match work {
            Work::Redrive => self.revive(seq),
            Work::Purge(_) => _ = self.remove(seq),
        }
    }

    fn tasks_mut(&mut self, queue: QueueId) -> Option<&mut Tasks> {
        self.queues.get_mut(&queue).map(|queue| &mut *queue.record.tasks)
    }
}
