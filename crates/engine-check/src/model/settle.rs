//! Settle and Extend: what a holder may do.

use ackwell_engine::command::{Extend, Outcome, Settle, Settled};
use ackwell_engine::message::{Attempt, AttemptOutcome, DeadReason, MAX_HISTORY, Seq};
use ackwell_engine::{Refusal, Reply, Timestamp};

use super::arithmetic::backoff_ms;
use super::{Lease, Model, Note, Receipts, WINDOW_MS};

/// How a delivery fails.
pub(super) enum Failure<'a> {
    TimedOut,
    Nacked(Option<u64>, &'a str),
    Rejected(&'a str),
    Lost(&'a str),
}

impl Model {
    pub(super) fn settle(&mut self, settle: &Settle, receipts: &Receipts) -> Result<Reply, Refusal> {
        self.check_known(settle.queue)?;
        let one = |(receipt, outcome)| {
            let lease = receipts.get(receipt).copied().filter(|lease| lease.queue == settle.queue);
            self.settle_one(lease.ok_or(Refusal::InvalidReceipt)?, outcome)
        };
        Ok(Reply::Settled(
            settle.settlements.iter().map(|(receipt, outcome)| (receipt, outcome)).map(one).collect(),
        ))
    }

    fn settle_one(&mut self, lease: Lease, outcome: &Outcome) -> Result<Settled, Refusal> {
        match self.settled_before(lease) {
            Some((kind, settled)) if kind == kind_of(outcome) => Ok(settled),
            Some(_) => Err(Refusal::SettledOtherwise),
            None if self.held(lease).is_none() => Err(Refusal::ReceiptExpired),
            None => Ok(self.end(lease, outcome)),
        }
    }

    pub(super) fn settled_before(&self, lease: Lease) -> Option<(&'static str, Settled)> {
        self.noted(|note| match note {
            Note::Settled(of, kind, settled) if *of == lease => Some((*kind, *settled)),
            _ => None,
        })
    }

    /// Ends a delivery that holds its message.
    pub(super) fn end(&mut self, lease: Lease, outcome: &Outcome) -> Settled {
        let seq = lease.seq;
        match outcome {
            Outcome::Ack => {
                self.queue_mut(lease.queue).totals.acked += 1;
                self.remove(seq);
            }
            Outcome::Release => {
                self.queue_mut(lease.queue).totals.released += 1;
                self.come_back(seq, self.now);
            }
            Outcome::Nack { delay_ms, reason } => self.fail(seq, &Failure::Nacked(*delay_ms, reason)),
            Outcome::Reject { reason } => self.fail(seq, &Failure::Rejected(reason)),
            Outcome::Lost { reason } => self.fail(seq, &Failure::Lost(reason)),
        }
        let left = self.messages.iter().find(|message| message.seq() == seq).map(|message| &message.shown);
        let settled = Settled {
            state: left.map(|left| left.state),
            delayed_until: left.and_then(|left| left.delayed_until),
        };
        self.note(WINDOW_MS, Note::Settled(lease, kind_of(outcome), settled));
        settled
    }

    pub(super) fn fail(&mut self, seq: Seq, failure: &Failure<'_>) {
        let message = self.find(seq);
        let hold = message.hold.clone().expect("only a held message fails");
        // Nobody is blamed for what the application never had.
        if !hold.is_handed && matches!(failure, Failure::TimedOut | Failure::Lost(_)) {
            return self.come_back(seq, self.now);
        }
        let (queue, now) = (message.queue, self.now);
        let rules = self.rules(queue).clone();
        let (outcome, reason) = failure.told();
        self.queue_mut(queue).totals.add_failure(outcome);
        let message = self.find_mut(seq);
        let attempt = Attempt { started: hold.started, ended: now, outcome, reason, consumer: hold.consumer };
        message.shown.history.insert(0, attempt);
        message.shown.history.truncate(MAX_HISTORY);
        message.shown.attempts += 1;
        let attempts = message.shown.attempts;
        let limit = message.shown.max_attempts.unwrap_or(rules.max_attempts).min(rules.max_attempts);
        match failure {
            Failure::Rejected(_) => self.die(seq, DeadReason::Rejected),
            _ if attempts >= limit => self.die(seq, DeadReason::MaxAttempts),
            Failure::Lost(_) => self.come_back(seq, now),
            Failure::Nacked(Some(delay_ms), _) => self.come_back(seq, now.plus_ms(*delay_ms)),
            Failure::Nacked(None, _) | Failure::TimedOut => {
                self.come_back(seq, now.plus_ms(backoff_ms(rules.backoff, seq, attempts)));
            }
        }
    }

    pub(super) fn extend(&mut self, extend: &Extend, receipts: &Receipts) -> Result<Reply, Refusal> {
        self.check_known(extend.queue)?;
        let one = |receipt| {
            let lease = receipts.get(receipt).copied().filter(|lease| lease.queue == extend.queue);
            let lease = lease.ok_or(Refusal::InvalidReceipt)?;
            let (_, hold) = self.held(lease).ok_or(Refusal::ReceiptExpired)?;
            let ms = extend.ack_timeout_ms.unwrap_or(hold.ack_ms);
            Ok(self.prolong(lease.seq, ms))
        };
        Ok(Reply::Extended(extend.receipts.iter().map(one).collect()))
    }

    /// Never past the queue's limit, and never less than was granted before.
    pub(super) fn prolong(&mut self, seq: Seq, ms: u64) -> Timestamp {
        let wanted = self.now.plus_ms(ms);
        let longest_ms = self.rules(self.find(seq).queue).max_processing_ms;
        let hold = self.find_mut(seq).hold.as_mut().expect("only a held message is prolonged");
        let latest = hold.started.plus_ms(longest_ms.max(hold.ack_ms)).max(hold.deadline);
        hold.deadline = wanted.min(latest);
        hold.deadline
    }
}

impl Failure<'_> {
    fn told(&self) -> (AttemptOutcome, String) {
        match self {
            Self::TimedOut => (AttemptOutcome::AckTimeout, "ack timeout".to_owned()),
            Self::Nacked(_, reason) => (AttemptOutcome::Nack, (*reason).to_owned()),
            Self::Rejected(reason) => (AttemptOutcome::Reject, (*reason).to_owned()),
            Self::Lost(reason) => (AttemptOutcome::ConsumerLost, (*reason).to_owned()),
        }
    }
}

/// Settling again the same way is a repetition, whatever its delay and reason.
fn kind_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ack => "ack",
        Outcome::Nack { .. } => "nack",
        Outcome::Release => "release",
        Outcome::Reject { .. } => "reject",
        Outcome::Lost { .. } => "lost",
    }
}
