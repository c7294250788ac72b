//! Receive: handing messages out.

use std::sync::Arc;

use bytes::Bytes;

use super::{Engine, MAX_SWEPT};
use crate::command::{HandOver, Handover, Oversized, Receive, Refusal, Reply};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Epoch, Hold, Seq, Stage};
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::time::Timestamp;

/// What a reply will consist of, once it is on disk.
type Handed = Vec<(Seq, Epoch)>;

/// What all deliveries of a call have in common.
struct Grant {
    started: Timestamp,
    ack_timeout_ms: u64,
    consumer: Arc<str>,
    is_handed: bool,
}

impl Grant {
    fn new(now: Timestamp, ack_timeout_ms: u64, receive: &Receive) -> Self {
        let is_handed = receive.handover == Handover::AtOnce;
        Self { started: now, ack_timeout_ms, consumer: receive.consumer.as_str().into(), is_handed }
    }

    fn hold(&self, epoch: Epoch) -> Hold {
        let Self { started, ack_timeout_ms, ref consumer, is_handed } = *self;
        let deadline = started.plus_ms(ack_timeout_ms);
        Hold { epoch, started, deadline, ack_timeout_ms, consumer: Arc::clone(consumer), is_handed }
    }
}

impl Engine {
    pub(super) fn receive(&mut self, now: Timestamp, receive: &Receive) -> Result<Handed, Refusal> {
        let ack_timeout_ms =
            receive.ack_timeout_ms.unwrap_or(self.open_settings(receive.queue)?.ack_timeout_ms);
        let key = MemoryKey::Request(receive.queue, receive.request_id.as_str().into());
        match self.recall(&key) {
            None => {}
            Some(Remembered::Received(held)) => return Ok(self.hand_again(now, held, ack_timeout_ms)),
            Some(_) => return Err(Refusal::RequestIdReused),
        }
        let held = self.take_in_turn(now, receive, ack_timeout_ms);
        if !key.is_empty_request() && !held.is_empty() {
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Received(held.clone()));
        }
        Ok(held)
    }

    /// Takes what comes next, until one does not fit.
    fn take_in_turn(&mut self, now: Timestamp, receive: &Receive, ack_timeout_ms: u64) -> Handed {
        let grant = Grant::new(now, ack_timeout_ms, receive);
        let ageing = self.ageing(receive.queue);
        let max_messages = u64::from(receive.max_messages).min(self.grantable(receive.queue));
        let mut held = Handed::new();
        let mut bytes = 0;
        let mut expired = 0;
        while (held.len() as u64) < max_messages && expired < MAX_SWEPT {
            let Some(seq) = self.messages.next(receive.queue, ageing) else { break };
            let row = self.row(seq);
            // A sweep that did not get as far yet must not let an expired message out.
            if row.is_expired(now) {
                expired += 1;
                self.expire(now, seq);
                continue;
            }
            let comes_alone = held.is_empty() && receive.oversized == Oversized::Comes;
            bytes += row.body_bytes;
            if bytes > receive.max_bytes && !comes_alone {
                break;
            }
            held.push((seq, self.hold(seq, &grant)));
        }
        held
    }

    fn hold(&mut self, seq: Seq, grant: &Grant) -> Epoch {
        let epoch = Epoch(self.meta.next_epoch);
        self.meta.next_epoch += 1;
        self.messages.take(seq, |row| {
            row.stage = Stage::InFlight(grant.hold(epoch));
            row.deliveries = row.deliveries.saturating_add(u32::from(grant.is_handed));
        });
        let queue = self.row(seq).queue;
        self.count(queue, |totals| totals.delivered += u64::from(grant.is_handed));
        epoch
    }

    pub(super) fn hand_over(&mut self, handover: HandOver) -> Result<Reply, Refusal> {
        let HandOver { queue, receipts } = handover;
        self.settings(queue)?;
        let handed = |receipt: &Bytes| {
            let receipt = self.open_receipt(queue, receipt)?;
            self.check_held(receipt)?;
            self.note_handed(receipt.seq);
            Ok(())
        };
        Ok(Reply::HandedOver(receipts.iter().map(handed).collect()))
    }

    /// The same report again changes nothing.
    fn note_handed(&mut self, seq: Seq) {
        if self.is_handed(seq) {
            return;
        }
        self.messages.change(seq, |row| {
            let Stage::InFlight(hold) = &mut row.stage else {
                unreachable!("only a held message is handed over")
            };
            hold.is_handed = true;
            row.deliveries = row.deliveries.saturating_add(1);
        });
        let queue = self.row(seq).queue;
        self.count(queue, |totals| totals.delivered += 1);
    }

    /// The same call again: what of it is still held, with its time starting anew.
    fn hand_again(&mut self, now: Timestamp, mut held: Handed, ack_timeout_ms: u64) -> Handed {
        held.retain(|(seq, epoch)| self.is_held(*seq, *epoch));
        held.iter().for_each(|(seq, _)| _ = self.prolong(now, *seq, Some(ack_timeout_ms)));
        held
    }
}
