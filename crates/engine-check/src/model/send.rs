//! Send and Commit: storing messages, alone or with settlements.

use std::collections::BTreeSet;

use ackwell_engine::command::{Available, Batch, Commit, Committed, NewMessage, Send, Sent, Settle, Settled};
use ackwell_engine::message::{Message, MessageId, QueueId, Seq, State};
use ackwell_engine::settings::MAX_DELAY_MS;
use ackwell_engine::{Refusal, Reply, Timestamp};

use super::{Lease, Model, Note, Receipts, Stored, WINDOW_MS};

type Results<T> = Vec<Result<T, Refusal>>;

impl Model {
    pub(super) fn send(&mut self, send: &Send) -> Result<Reply, Refusal> {
        let Send { queue, messages, batch, request_id } = send;
        self.check_open(*queue)?;
        let mut answers = self.sent_before(*queue, request_id)?;
        let mut earlier = answers.clone().into_iter();
        let before = self.bookmark();
        let one = |message: &NewMessage| match earlier.next().flatten() {
            Some(known) => Ok(known),
            None => self.send_one(*queue, message, &[]),
        };
        let mut results: Results<Sent> = messages.iter().map(one).collect();
        if *batch == Batch::Atomic && results.iter().any(Result::is_err) {
            self.go_back(before);
            results = refused(results, &Refusal::BatchRefused);
        }
        if !request_id.is_empty() && results.iter().any(Result::is_ok) {
            // By position: a shorter call forgets nothing of a longer one.
            answers.resize(answers.len().max(results.len()), None);
            let stored = answers.iter_mut().zip(&results).filter(|(_, result)| result.is_ok());
            stored.for_each(|(answer, result)| *answer = result.clone().ok());
            self.note(WINDOW_MS, Note::Sent(*queue, request_id.clone(), answers));
        }
        Ok(Reply::Sent(results))
    }

    fn sent_before(&self, queue: QueueId, request: &str) -> Result<Vec<Option<Sent>>, Refusal> {
        match self.request(queue, request) {
            None => Ok(Vec::new()),
            Some(Note::Sent(_, _, sent)) => Ok(sent),
            Some(_) => Err(Refusal::RequestIdReused),
        }
    }

    /// Sends and Receives share the request ids of their queue.
    pub(super) fn request(&self, queue: QueueId, request: &str) -> Option<Note> {
        self.noted(|note| match note {
            Note::Sent(of, id, _) | Note::Received(of, id, _) if *of == queue && id == request => {
                Some(note.clone())
            }
            _ => None,
        })
    }

    /// `leaving`: acked in the same step, so that their room is free.
    fn send_one(&mut self, queue: QueueId, new: &NewMessage, leaving: &[Lease]) -> Result<Sent, Refusal> {
        check(self.now, new)?;
        let dedup_id = &new.payload.dedup_id;
        let original = self.noted(|note| match note {
            Note::Dedup(of, id, sent) if *of == queue && id == dedup_id => Some(sent.clone()),
            _ => None,
        });
        if let Some(original) = original {
            return Ok(Sent { duplicate: true, ..original });
        }
        self.check_room(queue, new.payload.body.len() as u64, leaving)?;
        let sent =
            Sent { id: MessageId::new(self.now, self.entropy.salt, Seq(self.next_seq)), duplicate: false };
        self.next_seq += 1;
        let window_ms = self.rules(queue).dedup_window_ms;
        if !dedup_id.is_empty() && window_ms > 0 {
            self.note(window_ms, Note::Dedup(queue, dedup_id.clone(), sent.clone()));
        }
        self.messages.push(self.stored(queue, new, sent.id));
        self.queue_mut(queue).totals.sent += 1;
        Ok(sent)
    }

    fn check_room(&self, queue: QueueId, bytes: u64, leaving: &[Lease]) -> Result<(), Refusal> {
        let rules = self.rules(queue);
        let stays = |message: &&Stored| message.lease().is_none_or(|lease| !leaving.contains(&lease));
        let count = self.of(queue).filter(stays).count() as u64;
        let stored: u64 = self.of(queue).filter(stays).map(Stored::bytes).sum();
        if bytes > rules.max_message_bytes {
            return Err(Refusal::MessageTooLarge { bytes, max_bytes: rules.max_message_bytes });
        }
        if rules.max_messages > 0 && count >= rules.max_messages {
            return Err(Refusal::QueueFull { what: "limits.maxMessages is reached" });
        }
        if rules.max_bytes > 0 && stored + bytes > rules.max_bytes {
            return Err(Refusal::QueueFull { what: "limits.maxBytes is reached" });
        }
        Ok(())
    }

    fn stored(&self, queue: QueueId, new: &NewMessage, id: MessageId) -> Stored {
        let available = available_at(self.now, new.available);
        let is_later = available > self.now;
        let shown = Message {
            id,
            stored_at: self.now,
            state: if is_later { State::Delayed } else { State::Ready },
            attempts: 0,
            deliveries: 0,
            history: Vec::new(),
            dead_reason: None,
            delayed_until: is_later.then_some(available),
            expires_at: new.ttl_ms.map(|ttl_ms| self.now.plus_ms(ttl_ms)),
            max_attempts: new.max_attempts,
            priority: new.priority,
            payload: new.payload.clone(),
        };
        Stored { queue, shown, hold: None, dead_since: self.now }
    }

    pub(super) fn commit(&mut self, commit: &Commit, receipts: &Receipts) -> Result<Reply, Refusal> {
        let Commit { settle, send, request_id } = commit;
        let known = self.noted(|note| match note {
            Note::Committed(id, committed) if id == request_id => Some(committed.clone()),
            _ => None,
        });
        if let Some(known) = known {
            return Ok(Reply::Committed(known));
        }
        settle.iter().try_for_each(|settle| self.check_known(settle.queue))?;
        send.iter().try_for_each(|send| self.check_open(send.queue))?;
        let mut seen = BTreeSet::new();
        let look = |settle: &Settle| {
            let receipts = settle.settlements.iter().map(|(receipt, _)| receipts.get(receipt));
            receipts.map(|lease| self.look_at(settle.queue, lease.copied(), &mut seen)).collect()
        };
        let ends: Vec<Results<Lease>> = settle.iter().map(look).collect();
        let leaving = acked(settle, &ends);
        let before = self.bookmark();
        let mut sent: Vec<Results<Sent>> = Vec::new();
        for outgoing in send {
            let one = |message| self.send_one(outgoing.queue, message, &leaving);
            sent.push(outgoing.messages.iter().map(one).collect());
        }
        if ends.iter().flatten().any(Result::is_err) || sent.iter().flatten().any(Result::is_err) {
            self.go_back(before);
            return Ok(Reply::Committed(Committed { settled: all_refused(ends), sent: all_refused(sent) }));
        }
        let settled = settle.iter().zip(ends).map(|(settle, ends)| self.end_all(settle, ends)).collect();
        let committed = Committed { settled, sent };
        if !request_id.is_empty() {
            self.note(WINDOW_MS, Note::Committed(request_id.clone(), committed.clone()));
        }
        Ok(Reply::Committed(committed))
    }

    fn look_at(
        &self,
        queue: QueueId,
        lease: Option<Lease>,
        seen: &mut BTreeSet<Lease>,
    ) -> Result<Lease, Refusal> {
        let lease = lease.filter(|lease| lease.queue == queue).ok_or(Refusal::InvalidReceipt)?;
        if self.settled_before(lease).is_some() {
            return Err(Refusal::AlreadySettled);
        }
        self.held(lease).ok_or(Refusal::ReceiptExpired)?;
        if seen.insert(lease) { Ok(lease) } else { Err(Refusal::AlreadySettled) }
    }

    fn end_all(&mut self, settle: &Settle, ends: Results<Lease>) -> Results<Settled> {
        let pairs = ends.into_iter().zip(&settle.settlements);
        pairs.map(|(lease, (_, outcome))| Ok(self.end(lease?, outcome))).collect()
    }

    /// Storing only appends, so that going back is cutting off.
    fn bookmark(&self) -> (usize, usize, u64, Vec<(QueueId, u64)>) {
        let sent = self.queues.iter().map(|queue| (queue.id, queue.totals.sent)).collect();
        (self.messages.len(), self.notes.len(), self.next_seq, sent)
    }

    fn go_back(&mut self, (messages, notes, next_seq, sent): (usize, usize, u64, Vec<(QueueId, u64)>)) {
        self.messages.truncate(messages);
        self.notes.truncate(notes);
        self.next_seq = next_seq;
        sent.into_iter().for_each(|(queue, sent)| self.queue_mut(queue).totals.sent = sent);
    }
}

fn acked(settle: &[Settle], ends: &[Results<Lease>]) -> Vec<Lease> {
    let settlements = settle.iter().flat_map(|settle| &settle.settlements);
    let acks = settlements.zip(ends.iter().flatten());
    let acks = acks.filter(|((_, outcome), _)| *outcome == ackwell_engine::command::Outcome::Ack);
    acks.filter_map(|(_, lease)| lease.clone().ok()).collect()
}

fn check(now: Timestamp, new: &NewMessage) -> Result<(), Refusal> {
    let (field, rule) = if available_at(now, new.available).ms_since(now) > MAX_DELAY_MS {
        ("delay or deliver_at", "is over 365 days ahead")
    } else if new.ttl_ms == Some(0) {
        ("ttl", "must be at least 1 ms")
    } else if new.max_attempts == Some(0) {
        ("max_attempts", "must be at least 1; leave it out for the queue's own")
    } else {
        return Ok(());
    };
    Err(Refusal::InvalidMessage { field, rule })
}

fn available_at(now: Timestamp, available: Available) -> Timestamp {
    match available {
        Available::Now => now,
        Available::After(ms) => now.plus_ms(ms),
        Available::At(at) => at,
    }
}

fn refused<T, R>(results: Results<T>, others: &Refusal) -> Results<R> {
    results.into_iter().map(|result| Err(result.err().unwrap_or_else(|| others.clone()))).collect()
}

fn all_refused<T, R>(results: Vec<Results<T>>) -> Vec<Results<R>> {
    results.into_iter().map(|results| refused(results, &Refusal::CommitRefused)).collect()
}
