//! Send: storing messages.

use super::Engine;
use crate::command::{Available, Batch, NewMessage, Refusal, Reply, Send, Sent};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{MessageId, QueueId, Row, Seq, Stage};
use crate::messages::Counts;
use crate::settings::{IDEMPOTENCY_WINDOW_MS, Settings};
use crate::time::Timestamp;

impl Engine {
    pub(super) fn send(&mut self, now: Timestamp, send: Send) -> Result<Reply, Refusal> {
        let Send { queue, messages, batch, request_id } = send;
        self.settings(queue)?;
        let key = MemoryKey::Request(queue, request_id);
        let earlier = self.remembered_ids(&key)?;
        let verdicts = self.admit(queue, &messages, &earlier, batch)?;
        let results: Vec<Result<Sent, Refusal>> = messages
            .into_iter()
            .zip(verdicts)
            .enumerate()
            .map(|(index, (message, verdict))| {
                verdict.map(|()| self.store_once(now, queue, message, earlier.get(index).copied().flatten()))
            })
            .collect();
        if key != MemoryKey::Request(queue, String::new()) {
            let ids = results.iter().map(|result| result.as_ref().ok().map(|sent| sent.id)).collect();
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Sent(ids));
        }
        Ok(Reply::Sent(results))
    }

    fn remembered_ids(&self, key: &MemoryKey) -> Result<Vec<Option<MessageId>>, Refusal> {
        match self.memory.get(key) {
            None => Ok(Vec::new()),
            Some(Remembered::Sent(ids)) => Ok(ids.clone()),
            Some(_) => Err(Refusal::RequestIdReused),
        }
    }

    /// Which messages may be stored, before any is.
    fn admit(
        &self,
        queue: QueueId,
        messages: &[NewMessage],
        earlier: &[Option<MessageId>],
        batch: Batch,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let settings = self.settings(queue)?;
        let mut counts = self.messages.counts(queue);
        let mut verdicts: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                let is_known = earlier.get(index).is_some_and(Option::is_some)
                    || self.duplicate(queue, message).is_some();
                if is_known { Ok(()) } else { take_room(settings, &mut counts, message.payload.body.len()) }
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
        earlier: Option<MessageId>,
    ) -> Sent {
        if let Some(id) = earlier {
            return Sent { id, duplicate: false };
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
        match self.memory.get(&MemoryKey::Dedup(queue, message.payload.dedup_id.clone())) {
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

/// Takes a message's room in the queue, or says which limit leaves none.
fn take_room(settings: &Settings, counts: &mut Counts, body_bytes: usize) -> Result<(), Refusal> {
    let bytes = body_bytes as u64;
    if bytes > settings.max_message_bytes {
        return Err(Refusal::MessageTooLarge { bytes, max_bytes: settings.max_message_bytes });
    }
    let is_over = |limit: u64, value: u64| limit > 0 && value > limit;
    if is_over(settings.max_messages, counts.messages() + 1) {
        return Err(Refusal::QueueFull { what: "limits.maxMessages is reached" });
    }
    if is_over(settings.max_bytes, counts.bytes + bytes) {
        return Err(Refusal::QueueFull { what: "limits.maxBytes is reached" });
    }
    counts.ready += 1;
    counts.bytes += bytes;
    Ok(())
}
