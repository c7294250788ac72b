//! Receive: which message is next, and who holds it.

use std::collections::BTreeMap;

use ackwell_engine::command::{HandOver, Handover, Oversized, Receive};
use ackwell_engine::message::{Epoch, KeyId, Priority, QueueId, Seq, State};
use ackwell_engine::{Refusal, Reply, Timestamp};

use super::{Model, Note, Queue, Receipts, Stored, WINDOW_MS};

/// What one turn pays for.
const UNIT_BYTES: u64 = 65_536;

/// One delivery of one message: what a receipt stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// Where.
    pub queue: QueueId,
    /// Which message.
    pub seq: Seq,
    /// Which delivery.
    pub epoch: Epoch,
}

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) epoch: Epoch,
    pub(super) started: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) ack_ms: u64,
    pub(super) consumer: String,
    pub(super) is_handed: bool,
}

/// Whose turn it is: the key after the one that was served last, in the order of the keys, those in debt passed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    served: Option<KeyId>,
    debts: BTreeMap<Option<KeyId>, u64>,
}

impl Model {
    /// Which deliveries; what of them is left at the end of the batch is the answer.
    pub(super) fn receive(&mut self, receive: &Receive) -> Result<Vec<Lease>, Refusal> {
        self.check_open(receive.queue)?;
        let ack_ms = receive.ack_timeout_ms.unwrap_or(self.rules(receive.queue).ack_timeout_ms);
        match self.request(receive.queue, &receive.request_id) {
            None => {}
            Some(Note::Received(_, _, mut held)) => {
                held.retain(|lease| self.held(*lease).is_some());
                held.iter().for_each(|lease| _ = self.prolong(lease.seq, ack_ms));
                return Ok(held);
            }
            Some(_) => return Err(Refusal::RequestIdReused),
        }
        let held = self.take(receive, ack_ms);
        if !receive.request_id.is_empty() && !held.is_empty() {
            self.note(WINDOW_MS, Note::Received(receive.queue, receive.request_id.clone(), held.clone()));
        }
        Ok(held)
    }

    fn take(&mut self, receive: &Receive, ack_ms: u64) -> Vec<Lease> {
        let mut held = Vec::new();
        let mut bytes = 0;
        while held.len() < receive.max_messages as usize && self.grantable(receive.queue) > 0 {
            let Some((seq, turns)) = self.next(receive.queue) else { break };
            self.queue_mut(receive.queue).turns = turns;
            bytes += self.find(seq).bytes();
            let comes_alone = held.is_empty() && receive.oversized == Oversized::Comes;
            if bytes > receive.max_bytes && !comes_alone {
                break;
            }
            held.push(self.hold(seq, receive, ack_ms));
        }
        held
    }

    /// How many a Receive could get.
    pub fn grantable(&self, queue: QueueId) -> u64 {
        let Some(of) = self.queue(queue).filter(|queue| !queue.is_paused && !queue.is_closed) else {
            return 0;
        };
        let room = of.settings.max_in_flight.saturating_sub(self.in_flight(queue));
        room.min(self.eligible(queue).len() as u64)
    }

    pub(super) fn in_flight(&self, queue: QueueId) -> u64 {
        self.of(queue).filter(|message| message.hold.is_some()).count() as u64
    }

    /// Ready, and of its ordering key the first, with none of that key in flight.
    pub(super) fn eligible(&self, queue: QueueId) -> Vec<&Stored> {
        let ready = self.of(queue).filter(|message| message.shown.state == State::Ready);
        ready.filter(|message| self.head(message).is_none_or(|head| head.seq() == message.seq())).collect()
    }

    /// What comes first of the message's ordering key: the one in flight, or else the first that is not Dead.
    pub(super) fn head(&self, message: &Stored) -> Option<&Stored> {
        let key = &message.shown.payload.ordering_key;
        let same_key = || {
            self.of(message.queue).filter(|other| !key.is_empty() && other.shown.payload.ordering_key == *key)
        };
        let held = same_key().find(|other| other.hold.is_some());
        held.or_else(|| same_key().find(|other| other.shown.state != State::Dead))
    }

    /// The message whose turn it is, and the turns once those before it are passed over.
    pub(super) fn next(&self, queue: QueueId) -> Option<(Seq, Turns)> {
        let mut turns = self.queue(queue)?.turns.clone();
        let keys = self.keys_with_work(queue);
        loop {
            let key = *keys.iter().find(|key| **key > turns.served).or_else(|| keys.first())?;
            match turns.debts.get_mut(&key) {
                Some(debt) if *debt > 0 => {
                    *debt -= 1;
                    turns.served = key;
                }
                _ => return Some((self.first_of(queue, key)?, turns)),
            }
        }
    }

    /// Priorities are head starts; among equals the one that was stored first.
    fn first_of(&self, queue: QueueId, key: Option<KeyId>) -> Option<Seq> {
        let of_key = self
            .eligible(queue)
            .into_iter()
            .filter(|message| self.key(&message.shown.payload.fairness_key) == key);
        of_key.map(|message| (self.rank(message), message.seq())).min().map(|(_, seq)| seq)
    }

    pub(super) fn rank(&self, message: &Stored) -> u64 {
        let behind = u64::from(Priority::MAX - message.shown.priority.level());
        message.shown.stored_at.0 + behind * self.rules(message.queue).priority_step_ms
    }

    fn hold(&mut self, seq: Seq, receive: &Receive, ack_ms: u64) -> Lease {
        let epoch = Epoch(self.next_epoch);
        self.next_epoch += 1;
        let (now, is_handed) = (self.now, receive.handover == Handover::AtOnce);
        let key = self.key(&self.find(seq).shown.payload.fairness_key);
        let debt = self.find(seq).bytes() / UNIT_BYTES;
        let Queue { turns, totals, .. } = self.queue_mut(receive.queue);
        totals.delivered += u64::from(is_handed);
        turns.served = key;
        *turns.debts.entry(key).or_default() += debt;
        let consumer = receive.consumer.clone();
        let message = self.find_mut(seq);
        message.hold =
            Some(Hold { epoch, started: now, deadline: now.plus_ms(ack_ms), ack_ms, consumer, is_handed });
        message.shown.state = State::InFlight;
        message.shown.deliveries += u32::from(is_handed);
        self.forget_idle_debts();
        Lease { queue: receive.queue, seq, epoch }
    }

    /// A key that has nothing to hand out owes nothing.
    pub(super) fn forget_idle_debts(&mut self) {
        for index in 0..self.queues.len() {
            let Queue { id, turns, .. } = &self.queues[index];
            if turns.debts.values().any(|debt| *debt > 0) {
                let keys = self.keys_with_work(*id);
                self.queues[index].turns.debts.retain(|key, _| keys.contains(key));
            }
        }
    }

    pub(super) fn hand_over(&mut self, handover: &HandOver, receipts: &Receipts) -> Result<Reply, Refusal> {
        self.check_known(handover.queue)?;
        let one = |receipt| {
            let lease = receipts.get(receipt).copied().filter(|lease| lease.queue == handover.queue);
            let lease = lease.ok_or(Refusal::InvalidReceipt)?;
            self.held(lease).ok_or(Refusal::ReceiptExpired)?;
            let message = self.find_mut(lease.seq);
            let hold = message.hold.as_mut().expect("it is held");
            let is_new = !std::mem::replace(&mut hold.is_handed, true);
            message.shown.deliveries += u32::from(is_new);
            self.queue_mut(lease.queue).totals.delivered += u64::from(is_new);
            Ok(())
        };
        Ok(Reply::HandedOver(handover.receipts.iter().map(one).collect()))
    }
}
