//! What people do with many messages at once: redrive, purge; and with single ones: cancel.

use super::Engine;
use super::peek::MAX_SCANNED;
use crate::command::{Cancel, Filter, Mode, Refusal, Reply, Selected, Selection};
use crate::message::{MessageId, QueueId, Row, Seq, Stage, State};

impl Engine {
    /// Dead messages get another life.
    pub(super) fn redrive(&mut self, selection: &Selection) -> Result<Reply, Refusal> {
        self.settings(selection.queue)?;
        let dead_only = Filter { states: vec![State::Dead], ..selection.filter.clone() };
        let is_asked_for =
            selection.filter.states.is_empty() || selection.filter.states.contains(&State::Dead);
        if !is_asked_for {
            return Ok(Reply::Redriven(Selected::default()));
        }
        let selection = Selection { filter: dead_only, ..selection.clone() };
        self.select(&selection, Row::is_redrivable, Self::revive).map(Reply::Redriven)
    }

    /// Messages are gone for good, in every state but held.
    pub(super) fn purge(&mut self, selection: &Selection) -> Result<Reply, Refusal> {
        let remove = |engine: &mut Self, seq: Seq| _ = engine.remove(seq);
        self.select(selection, |row| row.hold().is_none(), remove).map(Reply::Purged)
    }

    pub(super) fn cancel(&mut self, cancel: Cancel) -> Result<Reply, Refusal> {
        let Cancel { queue, ids } = cancel;
        self.settings(queue)?;
        Ok(Reply::Cancelled(ids.into_iter().map(|id| self.cancel_one(queue, id)).collect()))
    }

    fn cancel_one(&mut self, queue: QueueId, id: MessageId) -> Result<(), Refusal> {
        let seq = self.find(queue, id).ok_or(Refusal::UnknownMessage)?;
        if self.row(seq).hold().is_some() {
            return Err(Refusal::MessageInFlight);
        }
        if self.is_leaving(seq, self.row(seq)) {
            return Err(Refusal::Moved);
        }
        self.remove(seq);
        Ok(())
    }

    /// One stretch: looks at a bounded number of messages and says where to go on.
    fn select(
        &mut self,
        selection: &Selection,
        may: fn(&Row) -> bool,
        change: impl Fn(&mut Self, Seq),
    ) -> Result<Selected, Refusal> {
        let Selection { queue, filter, after, max_messages, mode } = selection;
        self.settings(*queue)?;
        let candidates: Vec<Seq> = self.candidates(*queue, filter, *after).take(MAX_SCANNED).collect();
        let mut done = Selected::default();
        let mut looked_at = 0;
        for seq in &candidates {
            if done.matched == *max_messages {
                break;
            }
            looked_at += 1;
            let row = self.row(*seq);
            // What leaves is found at its new shard.
            if may(row) && !self.is_leaving(*seq, row) && self.matches(*seq, filter).unwrap_or(false) {
                done.matched += 1;
                if *mode == Mode::Apply {
                    change(self, *seq);
                    done.changed += 1;
                }
            }
        }
        let is_end = done.matched == *max_messages || candidates.len() < MAX_SCANNED;
        let last = candidates[..looked_at].last().map(|seq| seq.0);
        Ok(Selected { next: last.filter(|_| !is_end), ..done })
    }

    pub(super) fn revive(&mut self, seq: Seq) {
        self.messages.change(seq, |row| {
            row.stage = Stage::Ready;
            row.attempts = 0;
            // It killed the message and would kill it again.
            row.expires_at = None;
        });
    }
}
