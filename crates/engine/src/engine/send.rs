//! Send: storing messages.

use std::collections::BTreeSet;

use super::Engine;
use super::placement::AtHome;
use crate::command::{Available, Batch, NewMessage, Refusal, Reply, Send, Sent};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Location, MessageId, Payload, QueueId, Row, Seq, Stage};
use crate::messages::Counts;
use crate::settings::{IDEMPOTENCY_WINDOW_MS, MAX_DELAY_MS, Settings};
use crate::time::Timestamp;

/// An item of a Send.
pub(super) enum Wanted {
    New(NewMessage, Location),
    /// An earlier call has stored it.
    Known(Sent),
}

impl Engine {
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        send: Send,
        locations: Vec<Location>,
    ) -> Result<Reply, Refusal> {
        let mut room = self.room(send.queue)?;
        self.send_into(now, send, locations, &mut room).map(Reply::Sent)
    }

    /// Stores what there is room for.
    pub(super) fn send_into(
        &mut self,
        now: Timestamp,
        send: Send,
        locations: Vec<Location>,
        room: &mut Room,
    ) -> Result<Vec<Result<Sent, Refusal>>, Refusal> {
        let Send { queue, messages, batch, request_id } = send;
        self.open_settings(queue)?;
        if let AtHome::All { request_leaves } = &mut room.at_home {
            *request_leaves = self.moves(queue).is_some_and(|moves| moves.request_leaves(&request_id));
        }
        let key = MemoryKey::Request(queue, request_id.into());
        let mut answers = self.answered_before(&key)?;
        let positions = positions(&messages);
        let mut wanted = wanted(&answers, messages, locations);
        self.admit(now, queue, &mut wanted, room);
        if batch == Batch::Atomic && wanted.iter().any(Result::is_err) {
            wanted.iter_mut().filter(|item| item.is_ok()).for_each(|item| *item = Err(Refusal::BatchRefused));
        }
        let store = |item: Result<Wanted, Refusal>| Ok(self.store_once(now, queue, item?));
        let results: Vec<Result<Sent, Refusal>> = wanted.into_iter().map(store).collect();
        // A refused call changed nothing, so that there is nothing to remember.
        if !key.is_empty_request() && results.iter().any(Result::is_ok) {
            note_answers(&mut answers, positions, &results);
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Sent(answers));
        }
        Ok(results)
    }

    fn answered_before(&self, key: &MemoryKey) -> Result<Vec<Option<Sent>>, Refusal> {
        match self.recall(key) {
            None => Ok(Vec::new()),
            Some(Remembered::Sent(answers)) => Ok(answers),
            Some(_) => Err(Refusal::RequestIdReused),
        }
    }

    /// What the queue has room for now.
    pub(super) fn room(&self, queue: QueueId) -> Result<Room, Refusal> {
        let settings = self.open_settings(queue)?.clone();
        let at_home = AtHome::All { request_leaves: false };
        Ok(Room::of(settings, self.messages.counts(queue), self.memory.dedup_room(queue), at_home))
    }

    /// Refuses what may not be stored, before anything is.
    pub(super) fn admit(
        &self,
        now: Timestamp,
        queue: QueueId,
        wanted: &mut [Result<Wanted, Refusal>],
        room: &mut Room,
    ) {
        let at_home = room.at_home;
        for item in wanted {
            let Ok(Wanted::New(message, _)) = item else { continue };
            let is_duplicate = self.duplicate(queue, message).is_some();
            let home = |()| {
                let is_at_home = is_duplicate || self.is_at_home(queue, &message.payload, at_home);
                if is_at_home { Ok(()) } else { Err(Refusal::Moved) }
            };
            let room = |()| if is_duplicate { Ok(()) } else { room.take(&message.payload) };
            if let Err(refusal) = check(now, message).and_then(home).and_then(room) {
                *item = Err(refusal);
            }
        }
    }

    pub(super) fn store_once(&mut self, now: Timestamp, queue: QueueId, wanted: Wanted) -> Sent {
        let (message, location) = match wanted {
            Wanted::Known(sent) => return sent,
            Wanted::New(message, location) => (message, location),
        };
        if let Some(id) = self.duplicate(queue, &message) {
            return Sent { id, duplicate: true };
        }
        Sent { id: self.store_new(now, queue, &message, location), duplicate: false }
    }

    fn store_new(
        &mut self,
        now: Timestamp,
        queue: QueueId,
        message: &NewMessage,
        location: Location,
    ) -> MessageId {
        let seq = Seq(self.meta.next_seq);
        self.meta.next_seq += 1;
        let id = MessageId::new(now, self.meta.salt, seq);
        let window_ms = self.settings(queue).map_or(0, |settings| settings.dedup_window_ms);
        if !message.payload.dedup_id.is_empty() && window_ms > 0 {
            let key = MemoryKey::Dedup(queue, message.payload.dedup_id.as_str().into());
            self.memory.put(key, now.plus_ms(window_ms), Remembered::Stored(id));
        }
        self.messages.put(seq, self.new_row(now, queue, message, location));
        self.store.stored(seq, location);
        self.count(queue, |totals| totals.sent += 1);
        id
    }

    fn duplicate(&self, queue: QueueId, message: &NewMessage) -> Option<MessageId> {
        if message.payload.dedup_id.is_empty() {
            return None;
        }
        self.memory.stored(queue, &message.payload.dedup_id, self.meta.clock)
    }

    fn new_row(&self, now: Timestamp, queue: QueueId, message: &NewMessage, location: Location) -> Row {
        let available = available_at(now, message.available);
        let NewMessage { payload, ttl_ms, max_attempts, priority, available: _, position: _ } = message;
        Row {
            queue,
            stored_at: now,
            stage: if available > now { Stage::Delayed { until: available } } else { Stage::Ready },
            attempts: 0,
            deliveries: 0,
            history: Vec::new(),
            expires_at: ttl_ms.map(|ttl_ms| now.plus_ms(ttl_ms)),
            max_attempts: *max_attempts,
            body_bytes: payload.body.len() as u64,
            priority: *priority,
            ordering: self.sealer.ordering_key(&payload.ordering_key),
            fairness: self.sealer.fairness_key(&payload.fairness_key),
            location,
        }
    }
}

/// Where each message stands in the whole that its call may be a part of.
fn positions(messages: &[NewMessage]) -> Vec<usize> {
    let position =
        |(index, message): (usize, &NewMessage)| message.position.map_or(index, |position| position as usize);
    messages.iter().enumerate().map(position).collect()
}

/// The messages, those that an earlier call has stored as their answers.
fn wanted(
    answers: &[Option<Sent>],
    messages: Vec<NewMessage>,
    locations: Vec<Location>,
) -> Vec<Result<Wanted, Refusal>> {
    let positions = positions(&messages);
    let items = positions.into_iter().zip(messages).zip(locations);
    let wanted = items.map(|((position, message), location)| {
        let earlier = answers.get(position).cloned().flatten();
        Ok(earlier.map_or_else(|| Wanted::New(message, location), Wanted::Known))
    });
    wanted.collect()
}

/// Of a whole that came in parts, all parts are remembered.
fn note_answers(answers: &mut Vec<Option<Sent>>, positions: Vec<usize>, results: &[Result<Sent, Refusal>]) {
    for (position, result) in positions.into_iter().zip(results) {
        answers.resize(answers.len().max(position + 1), None);
        if let Ok(sent) = result {
            answers[position] = Some(sent.clone());
        }
    }
}

fn available_at(now: Timestamp, available: Available) -> Timestamp {
    match available {
        Available::Now => now,
        Available::After(ms) => now.plus_ms(ms),
        Available::At(at) => at,
    }
}

/// Whether the fields are in their ranges.
fn check(now: Timestamp, message: &NewMessage) -> Result<(), Refusal> {
    if available_at(now, message.available).ms_since(now) > MAX_DELAY_MS {
        return Err(Refusal::InvalidMessage { field: "delay or deliver_at", rule: "is over 365 days ahead" });
    }
    if message.ttl_ms == Some(0) {
        return Err(Refusal::InvalidMessage { field: "ttl", rule: "must be at least 1 ms" });
    }
    if message.max_attempts == Some(0) {
        let rule = "must be at least 1; leave it out for the queue's own";
        return Err(Refusal::InvalidMessage { field: "max_attempts", rule });
    }
    Ok(())
}

/// What a queue still has room for, while a batch is looked through.
pub(super) struct Room {
    at_home: AtHome,
    settings: Settings,
    counts: Counts,
    dedup_ids_left: usize,
    dedup_ids: BTreeSet<String>,
}

impl Room {
    pub(super) fn of(settings: Settings, counts: Counts, dedup_ids_left: usize, at_home: AtHome) -> Self {
        Self { at_home, settings, counts, dedup_ids_left, dedup_ids: BTreeSet::new() }
    }

    /// What goes with something that is settled here may be stored here.
    pub(super) fn with_settlements(self) -> Self {
        Self { at_home: AtHome::WithKeys, ..self }
    }

    /// For everything.
    pub(super) fn boundless() -> Self {
        let settings = Settings {
            max_messages: 0,
            max_bytes: 0,
            max_message_bytes: u64::MAX,
            dedup_window_ms: 0,
            ..Settings::default()
        };
        Self::of(settings, Counts::default(), 0, AtHome::None)
    }

    /// A message of the queue goes in the same step.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.counts.in_flight -= 1;
        self.counts.bytes -= bytes;
    }

    /// Takes a message's room in the queue, or says which limit leaves none.
    pub(super) fn take(&mut self, payload: &Payload) -> Result<(), Refusal> {
        let (settings, bytes) = (&self.settings, payload.body.len() as u64);
        let is_remembered = settings.dedup_window_ms > 0 && !payload.dedup_id.is_empty();
        if is_remembered && self.dedup_ids.contains(&payload.dedup_id) {
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
        self.dedup_ids.extend(is_remembered.then(|| payload.dedup_id.clone()));
        Ok(())
    }
}

/// Zero is no limit.
fn is_over(limit: u64, value: u64) -> bool {
    limit > 0 && value > limit
}
