//! Tasks: what was there when one began, each once, as many as may be.

use ackwell_engine::message::{DeadReason, State};
use ackwell_engine::task::{Order, Progress, Task, TaskState, Work};
use ackwell_engine::{Refusal, Reply, Timestamp};

use super::{Model, Stored};

/// What is known of a task.
#[derive(Clone, Debug)]
pub(super) struct Known {
    order: Order,
    began: Timestamp,
    /// The first place that is not meant, and the last one that had its turn.
    end: u64,
    seen: u64,
    total: u64,
    processed: u64,
    failed: u64,
    /// The second that counts, and how many it had.
    second: (Timestamp, u64),
    is_over: bool,
}

impl Model {
    pub(super) fn task(&mut self, task: &Task) -> Result<Reply, Refusal> {
        self.check_known(task.queue)?;
        let known = self.queue_mut(task.queue).tasks.remove(&task.id);
        if known.is_none() && task.has_begun {
            let nothing = Progress { state: TaskState::Forgotten, total: 0, processed: 0, failed: 0 };
            return Ok(Reply::Task(nothing));
        }
        let mut known = known.unwrap_or_else(|| self.begin(task));
        known.is_over |= task.cancel;
        if task.has_begun && !known.is_over {
            self.go_on(task, &mut known);
        }
        let rate = known.order.max_per_second;
        let state = match (known.is_over, rate > 0 && known.second.1 == rate) {
            (true, _) => TaskState::Over,
            (false, true) => TaskState::Waiting,
            (false, false) => TaskState::Running,
        };
        let Known { total, processed, failed, .. } = known;
        self.queue_mut(task.queue).tasks.insert(task.id.clone(), known);
        Ok(Reply::Task(Progress { state, total, processed, failed }))
    }

    fn begin(&self, task: &Task) -> Known {
        let is_of = |message: &&Stored| is_in_state(&task.order.work, message);
        let all = self.of(task.queue).filter(is_of).count() as u64;
        let Order { max_messages: max, max_per_second, .. } = task.order;
        Known {
            order: task.order.clone(),
            began: self.now,
            end: self.next_seq,
            seen: 0,
            total: if max == 0 { all } else { all.min(max) },
            processed: 0,
            failed: 0,
            second: (self.now, max_per_second),
            is_over: false,
        }
    }

    fn go_on(&mut self, task: &Task, known: &mut Known) {
        if self.now.ms_since(known.second.0) >= 1000 {
            known.second = (self.now, 0);
        }
        let Order { work, stored_before, max_messages, max_per_second } = known.order.clone();
        loop {
            let next = self.of(task.queue).find(|message| {
                let is_meant = is_in_state(&work, message)
                    && stored_before.is_none_or(|before| message.shown.stored_at < before)
                    && (message.shown.state != State::Dead || message.dead_since <= known.began);
                (known.seen + 1..known.end).contains(&message.seq().0) && is_meant
            });
            let Some(message) = next else { break known.is_over = true };
            let seq = message.seq();
            if work == Work::Redrive && message.shown.dead_reason == Some(DeadReason::Corrupt) {
                known.failed += 1;
                known.seen = seq.0;
                continue;
            }
            if max_per_second > 0 && known.second.1 == max_per_second {
                break known.seen = seq.0 - 1;
            }
            known.seen = seq.0;
            known.processed += 1;
            known.second.1 += 1;
            if work == Work::Redrive {
                self.revive(seq);
            } else {
                self.remove(seq);
            }
            if known.processed == max_messages {
                break known.is_over = true;
            }
        }
    }
}

fn is_in_state(work: &Work, message: &Stored) -> bool {
    match work {
        Work::Redrive => message.shown.state == State::Dead,
        Work::Purge(states) => message.hold.is_none() && states.contains(&message.shown.state),
    }
}
