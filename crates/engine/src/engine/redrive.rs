//! Redrive: Dead messages get another life.

use super::Engine;
use super::peek::MAX_SCANNED;
use crate::command::{Redrive, RedriveMode, Redriven, Refusal, Reply};
use crate::message::{Row, Seq, Stage};

impl Engine {
    /// One stretch: scans a bounded number of dead messages and says where to go on.
    pub(super) fn redrive(&mut self, redrive: Redrive) -> Result<Reply, Refusal> {
        self.settings(redrive.queue)?;
        let mut done = Redriven::default();
        for seq in self.dead_behind(&redrive) {
            if done.matched == redrive.max_messages {
                return Ok(Reply::Redriven(Redriven { next: None, ..done }));
            }
            done.next = Some(seq.0);
            // A message that cannot be read is not redriven: it would only die again.
            if let Ok(Some(_)) = self.matching(seq, &redrive.filter) {
                done.matched += 1;
                done.redriven += self.revive(seq, redrive.mode);
            }
        }
        let is_end = done
            .next
            .is_none_or(|next| self.dead_behind(&Redrive { after: Some(next), ..redrive }).is_empty());
        Ok(Reply::Redriven(Redriven { next: done.next.filter(|_| !is_end), ..done }))
    }

    fn dead_behind(&self, redrive: &Redrive) -> Vec<Seq> {
        let start = redrive.after.map_or(Seq(0), |after| Seq(after.saturating_add(1)));
        let Some(index) = self.messages.index(redrive.queue) else { return Vec::new() };
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
