//! Peek: showing messages without touching them.

use std::collections::BTreeSet;

use super::Engine;
use crate::command::{Cursor, Filter};
use crate::message::{DeadReason, KeyId, Message, Payload, QueueId, Row, Seq, Stage, State};
use crate::store::{StoreError, catching};

/// Rows looked at in one call, so that a filter which matches nothing cannot hold up the queue.
pub(super) const MAX_SCANNED: usize = 20_000;
/// Bodies read in one call: a page of a thousand large ones would not fit the memory of a small pod.
const MAX_PEEKED_BYTES: u64 = 4 << 20;

impl Engine {
    /// At most `limit` messages in stored order behind `after`, and where to go on; `None` at the end.
    pub fn peek(
        &self,
        queue: QueueId,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Message>, Option<Cursor>), StoreError> {
        catching(|| self.peek_behind(queue, filter, after, limit))
    }

    fn peek_behind(
        &self,
        queue: QueueId,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Message>, Option<Cursor>), StoreError> {
        let mut found = Vec::new();
        let mut last = None;
        let mut bytes = 0;
        for (scanned, seq) in self.candidates(queue, filter, after).enumerate() {
            if found.len() == limit || scanned == MAX_SCANNED || bytes >= MAX_PEEKED_BYTES {
                return Ok((found, last));
            }
            last = Some(seq.0);
            if self.row_matches(seq, filter) {
                bytes += self.row(seq).body_bytes;
                found.extend(self.read_message(seq, &filter.headers)?);
            }
        }
        Ok((found, None))
    }

    /// What is worth looking at, in stored order: the named messages, the dead, or all.
    pub(super) fn candidates(
        &self,
        queue: QueueId,
        filter: &Filter,
        after: Option<Cursor>,
    ) -> Box<dyn Iterator<Item = Seq> + '_> {
        let Some(index) = self.messages.index(queue) else { return Box::new(std::iter::empty()) };
        let start = Seq(after.map_or(0, |after| after.saturating_add(1)));
        if filter.ids.is_empty() {
            let seqs = if filter.states == [State::Dead] { &index.dead } else { &index.all };
            return Box::new(seqs.iter_from(start));
        }
        let named: BTreeSet<Seq> = {
            let places = filter.ids.iter().flat_map(|id| self.places(queue, *id));
            places.filter(|seq| index.all.contains(*seq)).collect()
        };
        Box::new(named.into_iter().filter(move |seq| after.is_none_or(|after| seq.0 > after)))
    }

    /// Whether the filter wants the message; its payload is read only when the row alone does not decide.
    pub(super) fn matches(&self, seq: Seq, filter: &Filter) -> Result<bool, StoreError> {
        let is_decided = !self.row_matches(seq, filter) || filter.headers.is_empty();
        Ok(if is_decided {
            self.row_matches(seq, filter)
        } else {
            self.read_message(seq, &filter.headers)?.is_some()
        })
    }

    fn row_matches(&self, seq: Seq, filter: &Filter) -> bool {
        let row = self.row(seq);
        let has_key = |key, wanted: Option<KeyId>| wanted.is_none() || key == wanted;
        row_matches(row, filter)
            && has_key(row.ordering, self.sealer.ordering_key(&filter.ordering_key))
            && has_key(row.fairness, self.sealer.fairness_key(&filter.fairness_key))
            && (filter.ids.is_empty() || filter.ids.contains(&self.id(seq, row)))
    }

    /// The message, if it has the headers.
    fn read_message(&self, seq: Seq, headers: &[(String, String)]) -> Result<Option<Message>, StoreError> {
        let row = self.row(seq);
        let id = self.id(seq, row);
        let message = match self.store.payload(row.location)? {
            Some(payload) => Message::new(id, row, payload),
            None => corrupt_message(Message::new(id, row, Payload::default())),
        };
        let is_wanted = headers.iter().all(|header| message.payload.headers.contains(header));
        Ok(is_wanted.then_some(message))
    }
}

/// Shown without the body that cannot be trusted.
fn corrupt_message(message: Message) -> Message {
    Message { dead_reason: Some(DeadReason::Corrupt), ..message }
}

fn row_matches(row: &Row, filter: &Filter) -> bool {
    let Filter { states, reason_contains, min_attempts, stored_after, stored_before, .. } = filter;
    (states.is_empty() || states.contains(&row.state()))
        && row.attempts >= *min_attempts
        && stored_after.is_none_or(|after| row.stored_at > after)
        && stored_before.is_none_or(|before| row.stored_at < before)
        && (reason_contains.is_empty() || says(row, reason_contains))
}

fn says(row: &Row, text: &str) -> bool {
    let dead_reason = match row.stage {
        Stage::Dead { reason, .. } => reason.as_str(),
        _ => "",
    };
    dead_reason.contains(text) || row.history.first().is_some_and(|attempt| attempt.reason.contains(text))
}
