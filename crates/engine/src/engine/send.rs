//! Send: storing messages.

use std::collections::BTreeSet;

use super::Engine;
use crate::command::{Available, Batch, NewMessage, Refusal, Reply, Send, Sent};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{MessageId, Payload, QueueId, Row, Seq, Stage};
use crate::messages::Counts;
use crate::settings::{IDEMPOTENCY_WINDOW_MS, Settings};
use crate::time::Timestamp;

impl Engine {
    pub(super) fn send(&mut self, now: Timestamp, send: Send) -> Result<Reply, Refusal> {
        let Send { queue, messages, batch, request_id } = send;
        self.settings(queue)?;
        let key = MemoryKey::Request(queue, request_id);
        let earlier = self.answered_before(&key)?;
        let verdicts = self.admit(queue, &messages, &earlier, batch)?;
        let results: Vec<Result<Sent, Refusal>> = messages
            .into_iter()
            .zip(verdicts)
            .enumerate()
            .map(|(index, (message, verdict))| {
                verdict.map(|()| self.store_once(now, queue, message, earlier.get(index).cloned().flatten()))
            })
            .collect();
        // A refused call changed nothing, so that there is nothing to remember.
        if key != MemoryKey::Request(queue, String::new()) && results.iter().any(Result::is_ok) {
            let answers = results.iter().map(|result| result.as_ref().ok().cloned()).collect();
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Sent(answers));
        }
        Ok(Reply::Sent(results))
    }

    fn answered_before(&self, key: &MemoryKey) -> Result<Vec<Option<Sent>>, Refusal> {
        match self.recall(key) {
            None => Ok(Vec::new()),
            Some(Remembered::Sent(answers)) => Ok(answers.clone()),
            Some(_) => Err(Refusal::RequestIdReused),
        }
    }

    /// Which messages may be stored, before any is.
    fn admit(
        &self,
        queue: QueueId,
        messages: &[NewMessage],
        earlier: &[Option<Sent>],
        batch: Batch,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let mut room = Room::of(self.settings(queue)?, self.messages.counts(queue), self.memory.dedup_room());
        let mut verdicts: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                let is_known = earlier.get(index).is_some_and(Option::is_some)
                    || self.duplicate(queue, message).is_some();
                if is_known { Ok(()) } else { room.take(&message.payload) }
            })
            .collect();
        if batch == Batch::Atomic && verdicts.iter().any(Result::is_err) {
            verdicts
                .iter_mut()
                .filter(|verdict| verdict.is_ok())
                .for_each(|verdict| *verdict = Err(Refusal::BatchRefused));
        }
        Ok(verdicts)
    }

    fn store_once(
        &mut self,
        now: Timestamp,
        queue: QueueId,
        message: NewMessage,
        earlier: Option<Sent>,
    ) -> Sent {
        if let Some(sent) = earlier {
            return sent;
        }
        if let Some(id) = self.duplicate(queue, &message) {
            return Sent { id, duplicate: true };
        }
        Sent { id: self.store_new(now, queue, message), duplicate: false }
    }

    fn store_new(&mut self, now: Timestamp, queue: QueueId, message: NewMessage) -> MessageId {
        let seq = Seq(self.meta.next_seq);
        self.meta.next_seq += 1;
        let id = MessageId::new(now, self.meta.salt, seq);
        let window_ms = self.settings(queue).map_or(0, |settings| settings.dedup_window_ms);
        if !message.payload.dedup_id.is_empty() && window_ms > 0 {
            let key = MemoryKey::Dedup(queue, message.payload.dedup_id.clone());
            self.memory.put(key, now.plus_ms(window_ms), Remembered::Stored(id));
        }
        self.messages.put(seq, new_row(now, queue, &message));
        self.payloads.push((seq, message.payload));
        if let Some(totals) = self.totals(queue) {
            totals.sent += 1;
        }
        id
    }

    fn duplicate(&self, queue: QueueId, message: &NewMessage) -> Option<MessageId> {
        if message.payload.dedup_id.is_empty() {
            return None;
        }
        match self.recall(&MemoryKey::Dedup(queue, message.payload.dedup_id.clone())) {
            Some(Remembered::Stored(id)) => Some(*id),
            _ => None,
        }
    }
}

fn new_row(now: Timestamp, queue: QueueId, message: &NewMessage) -> Row {
    let available = match message.available {
        Available::Now => now,
        Available::After(ms) => now.plus_ms(ms),
        Available::At(at) => at,
    };
    Row {
        queue,
        stored_at: now,
        stage: if available > now { Stage::Delayed { until: available } } else { Stage::Ready },
        attempts: 0,
        deliveries: 0,
        history: Vec::new(),
        expires_at: message.ttl_ms.map(|ttl_ms| now.plus_ms(ttl_ms)),
        max_attempts: message.max_attempts,
        body_bytes: message.payload.body.len() as u64,
    }
}

/// What a queue still has room for, while a batch is looked through.
pub(super) struct Room<'a> {
    settings: &'a Settings,
    counts: Counts,
    dedup_ids_left: usize,
    dedup_ids: BTreeSet<&'a str>,
}

impl<'a> Room<'a> {
    pub(super) fn of(settings: &'a Settings, counts: Counts, dedup_ids_left: usize) -> Self {
        Self { settings, counts, dedup_ids_left, dedup_ids: BTreeSet::new() }
    }

    /// Takes a message's room in the queue, or says which limit leaves none.
    pub(super) fn take(&mut self, payload: &'a Payload) -> Result<(), Refusal> {
        let (settings, bytes) = (self.settings, payload.body.len() as u64);
        let is_remembered = settings.dedup_window_ms > 0 && !payload.dedup_id.is_empty();
        if is_remembered && self.dedup_ids.contains(payload.dedup_id.as_str()) {
            return Ok(());
        }
        if bytes > settings.max_message_bytes {
            return Err(Refusal::MessageTooLarge { bytes, max_bytes: settings.max_message_bytes });
        }
        if is_over(settings.max_messages, self.counts.messages() + 1) {
            return Err(Refusal::QueueFull { what: "limits.maxMessages is reached" });
        }
        if is_over(settings.max_bytes, self.counts.bytes + bytes) {
            return Err(Refusal::QueueFull { what: "limits.maxBytes is reached" });
        }
        if is_remembered && self.dedup_ids.len() >= self.dedup_ids_left {
            return Err(Refusal::QueueFull {
                what: "too many dedup ids are remembered (retention.dedupWindowSeconds)",
            });
        }
        self.counts.ready += 1;
        self.counts.bytes += bytes;
        self.dedup_ids.extend(is_remembered.then_some(payload.dedup_id.as_str()));
        Ok(())
    }
}

/// Zero is no limit.
fn is_over(limit: u64, value: u64) -> bool {
    limit > 0 && value > limit
}
