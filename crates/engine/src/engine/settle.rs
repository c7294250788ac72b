//! Settle and Extend: what a holder may do with its receipt.

use bytes::Bytes;

use super::Engine;
use super::fail::{Failed, Then};
use crate::command::{Extend, Outcome, Refusal, Reply, Settle, Settled};
use crate::memory::OutcomeKind;
use crate::message::{AttemptOutcome, QueueId, Seq, Stage};
use crate::receipt::Receipt;
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::time::Timestamp;

impl Engine {
    pub(super) fn settle(&mut self, now: Timestamp, settle: Settle) -> Result<Reply, Refusal> {
        let Settle { queue, settlements } = settle;
        self.settings(queue)?;
        let settled = |(receipt, outcome): (Bytes, Outcome)| self.settle_one(now, queue, &receipt, &outcome);
        Ok(Reply::Settled(settlements.into_iter().map(settled).collect()))
    }

    pub(super) fn extend(&mut self, now: Timestamp, extend: Extend) -> Result<Reply, Refusal> {
        let Extend { queue, receipts, ack_timeout_ms } = extend;
        self.settings(queue)?;
        let extended = |receipt: &Bytes| {
            let receipt = self.open_receipt(queue, receipt)?;
            self.check_held(receipt)?;
            Ok(self.prolong(now, receipt.seq, ack_timeout_ms))
        };
        Ok(Reply::Extended(receipts.iter().map(extended).collect()))
    }

    /// Moves the deadline of a held message, never past its queue's `max_processing`. What a restart or a change of the
    /// settings left beyond that is not taken away: the holder was promised it.
    pub(super) fn prolong(&mut self, now: Timestamp, seq: Seq, ack_timeout_ms: Option<u64>) -> Timestamp {
        let max_processing_ms =
            self.settings(self.row(seq).queue).map_or(0, |settings| settings.max_processing_ms);
        self.messages.change(seq, |row| {
            let Stage::InFlight(hold) = &mut row.stage else {
                unreachable!("only a held message is prolonged")
            };
            let wanted = now.plus_ms(ack_timeout_ms.unwrap_or(hold.ack_timeout_ms));
            let latest = hold.started.plus_ms(max_processing_ms.max(hold.ack_timeout_ms)).max(hold.deadline);
            hold.deadline = wanted.min(latest);
            hold.deadline
        })
    }

    fn settle_one(
        &mut self,
        now: Timestamp,
        queue: QueueId,
        receipt: &[u8],
        outcome: &Outcome,
    ) -> Result<Settled, Refusal> {
        let receipt = self.open_receipt(queue, receipt)?;
        if let Some((kind, settled)) = self.settled_before(receipt) {
            return if kind == kind_of(outcome) { Ok(settled) } else { Err(Refusal::SettledOtherwise) };
        }
        self.check_held(receipt)?;
        Ok(self.settle_held(now, receipt, outcome))
    }

    pub(super) fn settled_before(&self, receipt: Receipt) -> Option<(OutcomeKind, Settled)> {
        self.memory.settled(receipt.queue, receipt.epoch, self.meta.clock)
    }

    pub(super) fn settle_held(&mut self, now: Timestamp, receipt: Receipt, outcome: &Outcome) -> Settled {
        let settled = self.end_delivery(now, receipt.seq, outcome);
        let until = now.plus_ms(IDEMPOTENCY_WINDOW_MS);
        self.memory.put_settled(receipt.queue, receipt.epoch, until, (kind_of(outcome), settled));
        settled
    }

    fn end_delivery(&mut self, now: Timestamp, seq: Seq, outcome: &Outcome) -> Settled {
        let (outcome, reason, then) = match outcome {
            Outcome::Ack => return self.ack(seq),
            Outcome::Release => {
                self.count(self.row(seq).queue, |totals| totals.released += 1);
                return self.release(now, seq);
            }
            Outcome::Nack { delay_ms, reason } => {
                (AttemptOutcome::Nack, reason, delay_ms.map_or(Then::Backoff, Then::Delay))
            }
            Outcome::Reject { reason } => (AttemptOutcome::Reject, reason, Then::Bury),
            // What the application never had, it cannot have failed at.
            Outcome::Lost { .. } if !self.is_handed(seq) => return self.release(now, seq),
            Outcome::Lost { reason } => (AttemptOutcome::ConsumerLost, reason, Then::Return),
        };
        self.fail(now, seq, Failed { outcome, reason, then })
    }

    fn ack(&mut self, seq: Seq) -> Settled {
        if let Some(row) = self.remove(seq) {
            self.count(row.queue, |totals| totals.acked += 1);
        }
        Settled { state: None, delayed_until: None }
    }

    pub(super) fn open_receipt(&self, queue: QueueId, receipt: &[u8]) -> Result<Receipt, Refusal> {
        self.sealer.open(receipt).filter(|receipt| receipt.queue == queue).ok_or(Refusal::InvalidReceipt)
    }

    pub(super) fn check_held(&self, receipt: Receipt) -> Result<(), Refusal> {
        if self.is_held(receipt.seq, receipt.epoch) { Ok(()) } else { Err(Refusal::ReceiptExpired) }
    }
}

fn kind_of(outcome: &Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Ack => OutcomeKind::Ack,
        Outcome::Nack { .. } => OutcomeKind::Nack,
        Outcome::Release => OutcomeKind::Release,
        Outcome::Reject { .. } => OutcomeKind::Reject,
        Outcome::Lost { .. } => OutcomeKind::Lost,
    }
}
