//! Redrive: Dead messages get another life.

use super::Engine;
use super::peek::MAX_SCANNED;
use crate::command::{Cursor, Redrive, RedriveMode, Redriven, Refusal, Reply};
use crate::message::{DeadReason, QueueId, Row, Seq, Stage};

impl Engine {
    /// One stretch: scans a bounded number of dead messages and says where to go on.
    pub(super) fn redrive(&mut self, redrive: &Redrive) -> Result<Reply, Refusal> {
        self.settings(redrive.queue)?;
        let mut done = Redriven::default();
        let mut last = redrive.after;
        for seq in self.dead_behind(redrive.queue, redrive.after) {
            if done.matched == redrive.max_messages {
                break;
            }
            last = Some(seq.0);
            if self.is_redrivable(seq) && self.matches(seq, &redrive.filter).unwrap_or(false) {
                done.matched += 1;
                done.redriven += self.revive(seq, redrive.mode);
            }
        }
        let is_end = done.matched == redrive.max_messages || self.dead_behind(redrive.queue, last).is_empty();
        Ok(Reply::Redriven(Redriven { next: last.filter(|_| !is_end), ..done }))
    }

    /// A message that cannot be read would only die again.
    fn is_redrivable(&self, seq: Seq) -> bool {
        !matches!(self.row(seq).stage, Stage::Dead { reason: DeadReason::Corrupt, .. })
    }

    fn dead_behind(&self, queue: QueueId, after: Option<Cursor>) -> Vec<Seq> {
        let start = after.map_or(Seq(0), |after| Seq(after.saturating_add(1)));
        let Some(index) = self.messages.index(queue) else { return Vec::new() };
        index.dead.range(start..).take(MAX_SCANNED).copied().collect()
    }

    fn revive(&mut self, seq: Seq, mode: RedriveMode) -> u64 {
        if mode == RedriveMode::DryRun {
            return 0;
        }
        let row = self.row(seq).clone();
        // The ttl that killed it would kill it again.
        self.messages.put(seq, Row { stage: Stage::Ready, attempts: 0, expires_at: None, ..row });
        1
    }
}
