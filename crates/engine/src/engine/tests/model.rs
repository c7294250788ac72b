//! A queue that is obviously right: one list, looked through from the start for every question.

use super::super::fail::jitter;
use crate::command::{Refusal, Settled};
use crate::message::{DeadReason, QueueId, State};
use crate::settings::{Expired, Settings};
use crate::time::Timestamp;

const WINDOW_MS: u64 = 120_000;

/// Replies, reduced to what can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Configured,
    /// Seq and whether it is a duplicate.
    Sent(Vec<Result<(u64, bool), Refusal>>),
    Received(Vec<Handed>),
    Settled(Vec<Result<Settled, Refusal>>),
    Extended(Vec<Result<Timestamp, Refusal>>),
    /// Matched, redriven.
    Redriven(u64, u64),
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) seq: u64,
    pub(super) epoch: u64,
    pub(super) deadline: Timestamp,
    pub(super) attempts: u32,
    pub(super) deliveries: u32,
}

/// A message as peek shows it, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) seq: u64,
    pub(super) state: State,
    pub(super) attempts: u32,
    pub(super) deliveries: u32,
    pub(super) failures: usize,
    pub(super) dead_reason: Option<DeadReason>,
    pub(super) delayed_until: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) bytes: u64,
    pub(super) delay_ms: u64,
    pub(super) ttl_ms: Option<u64>,
    pub(super) max_attempts: Option<u32>,
    pub(super) dedup_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Ack,
    Nack(Option<u64>),
    Release,
    Reject,
    Lost,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    seq: u64,
    queue: QueueId,
    stored_at: Timestamp,
    bytes: u64,
    state: State,
    /// Delayed or Dead: until when. In flight: the deadline.
    until: Timestamp,
    epoch: u64,
    started: Timestamp,
    ack_ms: u64,
    since: Timestamp,
    dead_reason: Option<DeadReason>,
    attempts: u32,
    deliveries: u32,
    failures: usize,
    expires_at: Option<Timestamp>,
    max_attempts: Option<u32>,
}

#[derive(Clone, Debug)]
enum Note {
    Settled(u64, End, Settled),
    Sent(QueueId, String, Vec<Option<(u64, bool)>>),
    Received(QueueId, String, Vec<(u64, u64)>),
    Dedup(QueueId, String, u64),
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Timestamp,
    settings: Vec<Settings>,
    messages: Vec<Message>,
    notes: Vec<(Timestamp, Note)>,
    seqs: u64,
    epochs: u64,
    /// Epochs that timed out in this batch.
    pub(super) expired: Vec<u64>,
}

impl Model {
    pub(super) fn new(now: Timestamp, settings: Vec<Settings>) -> Self {
        Self { now, settings, ..Self::default() }
    }

    /// A batch begins: first comes what is due.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.expired.clear();
        self.notes.retain(|(until, _)| *until > self.now);
        while let Some((at, seq)) = self.due() {
            if at > self.now {
                return;
            }
            match self.find(seq).state {
                State::Ready | State::Delayed => self.come_back(seq, State::Ready, self.now),
                State::InFlight => {
                    self.expired.push(self.find(seq).epoch);
                    self.fail(seq, End::Nack(None));
                }
                State::Dead => self.messages.retain(|message| message.seq != seq),
            }
        }
    }

    pub(super) fn restart(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        for message in self.messages.iter_mut().filter(|message| message.state == State::InFlight) {
            message.until = message.until.max(now.plus_ms(message.ack_ms));
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Timestamp> {
        self.due().map(|(at, _)| at)
    }

    fn due(&self) -> Option<(Timestamp, u64)> {
        self.messages.iter().filter_map(|message| Some((message.wakes_at()?, message.seq))).min()
    }

    pub(super) fn configure(&mut self, queue: QueueId, settings: Settings) -> Answer {
        let changed = self.rules(queue).dead_ms != settings.dead_ms;
        for message in self.messages.iter_mut().filter(|message| message.queue == queue) {
            if changed && message.state == State::Dead {
                message.until = kept_until(message.since, &settings);
            }
        }
        self.settings[queue.0 as usize - 1] = settings;
        Answer::Configured
    }

    pub(super) fn send(&mut self, queue: QueueId, items: &[Item], atomic: bool, request: &str) -> Answer {
        let earlier = match self.request(queue, request) {
            None => Vec::new(),
            Some(Note::Sent(_, _, earlier)) => earlier,
            Some(_) => return Answer::Refused(Refusal::RequestIdReused),
        };
        let before = (self.messages.clone(), self.notes.clone(), self.seqs);
        let mut results = Vec::new();
        for (index, item) in items.iter().enumerate() {
            results.push(match earlier.get(index) {
                Some(Some(sent)) => Ok(*sent),
                _ => self.send_one(queue, item),
            });
        }
        if atomic && results.iter().any(Result::is_err) {
            (self.messages, self.notes, self.seqs) = before;
            let refused = |result: Result<_, _>| Err(result.err().unwrap_or(Refusal::BatchRefused));
            return Answer::Sent(results.into_iter().map(refused).collect());
        }
        if !request.is_empty() && results.iter().any(Result::is_ok) {
            let sent = results.iter().map(|result| result.as_ref().ok().copied()).collect();
            self.note(WINDOW_MS, Note::Sent(queue, request.into(), sent));
        }
        Answer::Sent(results)
    }

    fn send_one(&mut self, queue: QueueId, item: &Item) -> Result<(u64, bool), Refusal> {
        let known = self.notes.iter().find_map(|(_, note)| match note {
            Note::Dedup(of, id, seq) if *of == queue && *id == item.dedup_id => Some(*seq),
            _ => None,
        });
        if let Some(seq) = known {
            return Ok((seq, true));
        }
        let rules = self.rules(queue).clone();
        if item.bytes > rules.max_message_bytes {
            return Err(Refusal::MessageTooLarge { bytes: item.bytes, max_bytes: rules.max_message_bytes });
        }
        let (count, bytes) =
            self.of(queue).fold((0, 0), |(n, bytes), message| (n + 1, bytes + message.bytes));
        if rules.max_messages > 0 && count + 1 > rules.max_messages {
            return Err(Refusal::QueueFull { what: "limits.maxMessages is reached" });
        }
        if rules.max_bytes > 0 && bytes + item.bytes > rules.max_bytes {
            return Err(Refusal::QueueFull { what: "limits.maxBytes is reached" });
        }
        self.seqs += 1;
        if !item.dedup_id.is_empty() && rules.dedup_window_ms > 0 {
            self.note(rules.dedup_window_ms, Note::Dedup(queue, item.dedup_id.clone(), self.seqs));
        }
        self.messages.push(self.stored(queue, item));
        Ok((self.seqs, false))
    }

    fn stored(&self, queue: QueueId, item: &Item) -> Message {
        Message {
            seq: self.seqs,
            queue,
            stored_at: self.now,
            bytes: item.bytes,
            state: if item.delay_ms > 0 { State::Delayed } else { State::Ready },
            until: self.now.plus_ms(item.delay_ms),
            epoch: 0,
            started: self.now,
            ack_ms: 0,
            since: self.now,
            dead_reason: None,
            attempts: 0,
            deliveries: 0,
            failures: 0,
            expires_at: item.ttl_ms.map(|ttl_ms| self.now.plus_ms(ttl_ms)),
            max_attempts: item.max_attempts,
        }
    }

    /// Which deliveries; [`Model::shown_deliveries`] says what of them is left at the end of the batch.
    pub(super) fn receive(
        &mut self,
        queue: QueueId,
        (max, max_bytes): (u64, u64),
        ack_ms: Option<u64>,
        request: &str,
    ) -> Result<Vec<(u64, u64)>, Refusal> {
        let ack_ms = ack_ms.unwrap_or(self.rules(queue).ack_timeout_ms);
        match self.request(queue, request) {
            Some(Note::Received(_, _, held)) => {
                let held: Vec<_> = held.into_iter().filter(|(seq, epoch)| self.holds(*seq, *epoch)).collect();
                held.iter().for_each(|(seq, _)| _ = self.prolong(*seq, ack_ms));
                return Ok(held);
            }
            Some(_) => return Err(Refusal::RequestIdReused),
            None => {}
        }
        let mut held = Vec::new();
        let mut bytes = 0;
        while let Some(seq) = self.next_ready(queue) {
            bytes += self.find(seq).bytes;
            let is_full = self.of(queue).filter(|message| message.state == State::InFlight).count() as u64
                >= self.rules(queue).max_in_flight;
            if held.len() as u64 == max || is_full || (!held.is_empty() && bytes > max_bytes) {
                break;
            }
            held.push((seq, self.hold(seq, ack_ms)));
        }
        if !request.is_empty() && !held.is_empty() {
            self.note(WINDOW_MS, Note::Received(queue, request.into(), held.clone()));
        }
        Ok(held)
    }

    fn next_ready(&self, queue: QueueId) -> Option<u64> {
        self.of(queue).filter(|message| message.state == State::Ready).map(|message| message.seq).min()
    }

    fn hold(&mut self, seq: u64, ack_ms: u64) -> u64 {
        self.epochs += 1;
        let (epoch, now) = (self.epochs, self.now);
        let message = self.find_mut(seq);
        message.state = State::InFlight;
        (message.epoch, message.started, message.ack_ms) = (epoch, now, ack_ms);
        message.until = now.plus_ms(ack_ms);
        message.deliveries += 1;
        epoch
    }

    pub(super) fn shown_deliveries(&self, held: &[(u64, u64)]) -> Answer {
        let held = held.iter().filter(|(seq, epoch)| self.holds(*seq, *epoch));
        Answer::Received(held.map(|(seq, epoch)| self.handed(*seq, *epoch)).collect())
    }

    fn handed(&self, seq: u64, epoch: u64) -> Handed {
        let message = self.find(seq);
        let (deadline, attempts, deliveries) = (message.until, message.attempts, message.deliveries);
        Handed { seq, epoch, deadline, attempts, deliveries }
    }

    pub(super) fn settle(&mut self, seq: u64, epoch: u64, end: End) -> Result<Settled, Refusal> {
        for (_, note) in &self.notes {
            if let Note::Settled(of, earlier, settled) = note
                && *of == epoch
            {
                let same = std::mem::discriminant(earlier) == std::mem::discriminant(&end);
                return if same { Ok(*settled) } else { Err(Refusal::SettledOtherwise) };
            }
        }
        if !self.holds(seq, epoch) {
            return Err(Refusal::ReceiptExpired);
        }
        match end {
            End::Ack => self.messages.retain(|message| message.seq != seq),
            End::Release => self.come_back(seq, State::Ready, self.now),
            _ => self.fail(seq, end),
        }
        let left = self.messages.iter().find(|message| message.seq == seq);
        let settled = Settled {
            state: left.map(|message| message.state),
            delayed_until: left.and_then(Message::delayed_until),
        };
        self.note(WINDOW_MS, Note::Settled(epoch, end, settled));
        Ok(settled)
    }

    pub(super) fn extend(&mut self, seq: u64, epoch: u64, ms: Option<u64>) -> Result<Timestamp, Refusal> {
        if !self.holds(seq, epoch) {
            return Err(Refusal::ReceiptExpired);
        }
        let ms = ms.unwrap_or(self.find(seq).ack_ms);
        Ok(self.prolong(seq, ms))
    }

    fn prolong(&mut self, seq: u64, ms: u64) -> Timestamp {
        let wanted = self.now.plus_ms(ms);
        let longest_ms = self.rules(self.find(seq).queue).max_processing_ms.max(self.find(seq).ack_ms);
        let message = self.find_mut(seq);
        let latest = message.started.plus_ms(longest_ms).max(message.until);
        message.until = wanted.min(latest);
        message.until
    }

    pub(super) fn redrive(&mut self, queue: QueueId, max: u64, is_dry: bool) -> Answer {
        let (mut matched, mut redriven) = (0, 0);
        for message in &mut self.messages {
            if message.queue == queue && message.state == State::Dead && matched < max {
                matched += 1;
                if !is_dry {
                    redriven += 1;
                    (message.state, message.attempts, message.expires_at) = (State::Ready, 0, None);
                }
            }
        }
        Answer::Redriven(matched, redriven)
    }

    fn fail(&mut self, seq: u64, end: End) {
        let rules = self.rules(self.find(seq).queue).clone();
        let now = self.now;
        let message = self.find_mut(seq);
        message.attempts += 1;
        message.failures = (message.failures + 1).min(16);
        let is_last = message.attempts >= message.max_attempts.unwrap_or(u32::MAX).min(rules.max_attempts);
        let attempts = message.attempts;
        match end {
            End::Reject => self.die(seq, DeadReason::Rejected),
            _ if is_last => self.die(seq, DeadReason::MaxAttempts),
            End::Nack(None) => {
                let wait = rules.backoff.delay_ms(attempts, jitter(crate::message::Seq(seq), attempts));
                self.come_back(seq, State::Delayed, now.plus_ms(wait));
            }
            End::Nack(Some(0)) | End::Lost | End::Ack | End::Release => {
                self.come_back(seq, State::Ready, now);
            }
            End::Nack(Some(ms)) => self.come_back(seq, State::Delayed, now.plus_ms(ms)),
        }
    }

    fn come_back(&mut self, seq: u64, state: State, until: Timestamp) {
        let now = self.now;
        let message = self.find_mut(seq);
        (message.state, message.until) = (state, until);
        let queue = message.queue;
        if message.expires_at.is_some_and(|expires_at| expires_at <= now) {
            match self.rules(queue).expired {
                Expired::DeadLetter => self.die(seq, DeadReason::Expired),
                Expired::Drop => self.messages.retain(|message| message.seq != seq),
            }
        }
    }

    fn die(&mut self, seq: u64, reason: DeadReason) {
        let until = kept_until(self.now, self.rules(self.find(seq).queue));
        let now = self.now;
        let message = self.find_mut(seq);
        (message.state, message.until, message.since) = (State::Dead, until, now);
        message.dead_reason = Some(reason);
    }

    pub(super) fn shown(&self, queue: QueueId) -> Vec<Shown> {
        self.of(queue).map(Message::shown).collect()
    }

    pub(super) fn bytes(&self, queue: QueueId) -> u64 {
        self.of(queue).map(|message| message.bytes).sum()
    }

    pub(super) fn oldest_ready(&self, queue: QueueId) -> Option<Timestamp> {
        self.next_ready(queue).map(|seq| self.find(seq).stored_at)
    }

    fn holds(&self, seq: u64, epoch: u64) -> bool {
        let is_it = |message: &Message| message.seq == seq && message.epoch == epoch;
        self.messages.iter().any(|message| message.state == State::InFlight && is_it(message))
    }

    fn request(&self, queue: QueueId, request: &str) -> Option<Note> {
        let is_it = |note: &Note| match note {
            Note::Sent(of, id, _) | Note::Received(of, id, _) => *of == queue && id == request,
            _ => false,
        };
        self.notes.iter().rev().find(|(_, note)| is_it(note)).map(|(_, note)| note.clone())
    }

    fn note(&mut self, ms: u64, note: Note) {
        self.notes.push((self.now.plus_ms(ms), note));
    }

    fn of(&self, queue: QueueId) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.queue == queue)
    }

    fn rules(&self, queue: QueueId) -> &Settings {
        &self.settings[queue.0 as usize - 1]
    }

    fn find(&self, seq: u64) -> &Message {
        self.messages.iter().find(|message| message.seq == seq).expect("it exists")
    }

    fn find_mut(&mut self, seq: u64) -> &mut Message {
        self.messages.iter_mut().find(|message| message.seq == seq).expect("it exists")
    }
}

impl Message {
    fn wakes_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Ready => self.expires_at,
            State::Delayed => Some(self.until.min(self.expires_at.unwrap_or(self.until))),
            State::InFlight => Some(self.until),
            State::Dead => Some(self.until).filter(|until| *until != Timestamp::NEVER),
        }
    }

    fn delayed_until(&self) -> Option<Timestamp> {
        (self.state == State::Delayed).then_some(self.until)
    }

    fn shown(&self) -> Shown {
        Shown {
            seq: self.seq,
            state: self.state,
            attempts: self.attempts,
            deliveries: self.deliveries,
            failures: self.failures,
            dead_reason: self.dead_reason.filter(|_| self.state == State::Dead),
            delayed_until: self.delayed_until(),
            expires_at: self.expires_at,
        }
    }
}

fn kept_until(since: Timestamp, settings: &Settings) -> Timestamp {
    if settings.dead_ms == 0 { Timestamp::NEVER } else { since.plus_ms(settings.dead_ms) }
}
