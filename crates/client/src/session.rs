//! What a consumer holds and says, over as many streams as that takes. No I/O.
//!
//! Rules, the same in every language's client:
//!
//! - A delivery is *held* from its arrival until its settlement is confirmed. A new stream is opened with everything held,
//!   and settlements without an answer are said again.
//! - Drain: what no handler has begun is released; the others are settled as they end.
//! - Revoked: a handler that runs is stopped, and nothing is said about its delivery any more.
//! - Go away: nothing new comes on this stream; when nothing is held any more it is closed, and another one opened.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ackwell_proto::v1::consume_request::Frame as Say;
use ackwell_proto::v1::consume_response::Frame as Told;
use ackwell_proto::v1::{
    ConsumeRequest, Delivery, Drain, Open, SettleFrame, SettleResult, Settlement, Window,
};

use crate::Error;
use crate::error::is_passing;
use crate::settlement::release;

/// Proof of holding, as a key.
pub(crate) type Receipt = Vec<u8>;

/// As in the API.
const MAX_SETTLEMENTS: usize = 1000;
/// Where a refusal has no hint of its own.
const SAY_AGAIN: Duration = Duration::from_millis(500);

/// A delivery that is held.
enum Job {
    /// No handler has begun.
    Waiting(Box<Delivery>),
    /// A handler works on it.
    Running(Box<Delivery>),
    /// To be said, or said and not confirmed.
    Settled(Settlement),
}

/// What a frame asks for.
#[derive(Default)]
pub(crate) struct Effects {
    /// Handlers of these are to be stopped.
    pub(crate) revoked: Vec<Receipt>,
    /// To be given to [`Session::say_again`] after a while.
    pub(crate) again: Vec<Receipt>,
    pub(crate) again_after: Duration,
}

/// One consumer of one queue.
pub(crate) struct Session {
    queue: String,
    consumer: String,
    window: u32,
    jobs: HashMap<Receipt, Job>,
    waiting: VecDeque<Receipt>,
    unsaid: VecDeque<Receipt>,
    unanswered: HashMap<u64, Vec<Receipt>>,
    seq: u64,
    is_drain_unsaid: bool,
    is_draining: bool,
    is_leaving: bool,
}

impl Session {
    pub(crate) fn new(queue: String, consumer: String, window: u32) -> Self {
        Self {
            queue,
            consumer,
            window,
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
            unsaid: VecDeque::new(),
            unanswered: HashMap::new(),
            seq: 0,
            is_drain_unsaid: false,
            is_draining: false,
            is_leaving: false,
        }
    }

    /// Whether everything is over.
    pub(crate) fn is_done(&self) -> bool {
        self.is_draining && self.jobs.is_empty()
    }

    /// Whether nothing more will be said on this stream.
    pub(crate) fn is_over(&self) -> bool {
        self.is_leaving && self.jobs.is_empty()
    }

    /// The first frame of a new stream.
    pub(crate) fn open(&mut self) -> ConsumeRequest {
        self.unanswered.clear();
        let settled = self.jobs.iter().filter(|(_, job)| matches!(job, Job::Settled(_)));
        self.unsaid = settled.map(|(receipt, _)| receipt.clone()).collect();
        self.is_leaving = self.is_draining;
        self.is_drain_unsaid = self.is_draining;
        let open = Open {
            queue: self.queue.clone(),
            consumer: self.consumer.clone(),
            window: Some(Window { max_messages: self.window, max_bytes: 0 }),
            held: self.jobs.keys().cloned().collect(),
        };
        ConsumeRequest { frame: Some(Say::Open(open)) }
    }

    /// Whether there is a next frame.
    pub(crate) fn has_frame(&self) -> bool {
        self.is_drain_unsaid || !self.unsaid.is_empty()
    }

    /// What is to be said next, if anything is.
    pub(crate) fn next_frame(&mut self) -> Option<ConsumeRequest> {
        if std::mem::take(&mut self.is_drain_unsaid) {
            return Some(ConsumeRequest { frame: Some(Say::Drain(Drain {})) });
        }
        let count = self.unsaid.len().min(MAX_SETTLEMENTS);
        let receipts: Vec<_> = self.unsaid.drain(..count).collect();
        let settlements: Vec<_> = receipts.iter().filter_map(|receipt| self.settlement(receipt)).collect();
        if settlements.is_empty() {
            return None;
        }
        self.seq += 1;
        self.unanswered.insert(self.seq, receipts);
        Some(ConsumeRequest { frame: Some(Say::Settle(SettleFrame { seq: self.seq, settlements })) })
    }

    fn settlement(&self, receipt: &Receipt) -> Option<Settlement> {
        match self.jobs.get(receipt) {
            Some(Job::Settled(settlement)) => Some(settlement.clone()),
            _ => None,
        }
    }

    /// The next delivery for a handler.
    pub(crate) fn begin(&mut self) -> Option<Delivery> {
        while let Some(receipt) = self.waiting.pop_front() {
            // It may have been revoked or released meanwhile.
            if let Some(job @ Job::Waiting(_)) = self.jobs.get_mut(&receipt) {
                let Job::Waiting(delivery) = job else { unreachable!("it was just matched") };
                let delivery = delivery.clone();
                *job = Job::Running(delivery.clone());
                return Some(*delivery);
            }
        }
        None
    }

    /// A handler has ended. Does nothing for what is settled or no longer held.
    pub(crate) fn settle(&mut self, receipt: &Receipt, settlement: impl FnOnce(&Delivery) -> Settlement) {
        let Some(job) = self.jobs.get_mut(receipt) else { return };
        if let Job::Waiting(delivery) | Job::Running(delivery) = job {
            *job = Job::Settled(settlement(delivery));
            self.unsaid.push_back(receipt.clone());
        }
    }

    /// Takes nothing more, and releases what no handler has begun.
    pub(crate) fn drain(&mut self) {
        if self.is_draining {
            return;
        }
        (self.is_draining, self.is_leaving, self.is_drain_unsaid) = (true, true, true);
        for receipt in std::mem::take(&mut self.waiting) {
            self.settle(&receipt, release);
        }
    }

    /// Releases what is not settled.
    pub(crate) fn give_up(&mut self) {
        let held: Vec<_> = self.jobs.keys().cloned().collect();
        for receipt in held {
            self.settle(&receipt, release);
        }
    }

    /// Settlements that could not be carried out are said once more, unless a new stream did it meanwhile.
    pub(crate) fn say_again(&mut self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            let is_said = self.unsaid.contains(&receipt)
                || self.unanswered.values().flatten().any(|said| *said == receipt);
            if !is_said && self.jobs.contains_key(&receipt) {
                self.unsaid.push_back(receipt);
            }
        }
    }

    /// Reads one frame of the other side.
    pub(crate) fn take(&mut self, frame: Told) -> Effects {
        let mut effects = Effects::default();
        match frame {
            Told::Deliveries(frame) => {
                frame.deliveries.into_iter().for_each(|delivery| self.arrive(delivery));
            }
            Told::Settled(settled) => self.confirm(settled.seq, settled.results, &mut effects),
            Told::Revoked(revoked) => effects.revoked = self.revoke(revoked.receipts),
            Told::GoAway(_) => self.is_leaving = true,
            Told::Opened(_) | Told::Extended(_) => (),
        }
        effects
    }

    fn arrive(&mut self, delivery: Delivery) {
        let receipt = delivery.receipt.to_vec();
        if self.jobs.contains_key(&receipt) {
            return;
        }
        self.jobs.insert(receipt.clone(), Job::Waiting(Box::new(delivery)));
        if self.is_draining {
            self.settle(&receipt, release);
        } else {
            self.waiting.push_back(receipt);
        }
    }

    fn confirm(&mut self, seq: u64, results: Vec<SettleResult>, effects: &mut Effects) {
        let receipts = self.unanswered.remove(&seq).unwrap_or_default();
        for (receipt, result) in receipts.into_iter().zip(results) {
            match result.error.map(Error::from) {
                Some(error) if is_passing(&error) => {
                    effects.again_after = effects.again_after.max(error.retry_after().unwrap_or(SAY_AGAIN));
                    effects.again.push(receipt);
                }
                // Any other refusal is final: the message is no longer ours, and comes again.
                _ => _ = self.jobs.remove(&receipt),
            }
        }
    }

    fn revoke(&mut self, receipts: Vec<Receipt>) -> Vec<Receipt> {
        // What is settled already is answered by itself.
        let is_unsettled =
            |receipt: &Receipt| matches!(self.jobs.get(receipt), Some(Job::Waiting(_) | Job::Running(_)));
        let revoked: Vec<_> = receipts.into_iter().filter(is_unsettled).collect();
        for receipt in &revoked {
            self.jobs.remove(receipt);
        }
        revoked
    }
}

#[cfg(test)]
mod tests {
    use ackwell_proto::v1::{Deliveries, GoAway, ItemError, Revoked, SettledFrame, settlement};

    use super::*;
    use crate::settlement::ack;

    fn opened() -> Session {
        let mut session = Session::new("orders".to_owned(), "c".to_owned(), 4);
        session.open();
        session
    }

    fn arrive(session: &mut Session, receipts: &[&'static str]) {
        let delivery =
            |receipt: &&'static str| Delivery { receipt: (*receipt).into(), ..Delivery::default() };
        session.take(Told::Deliveries(Deliveries { deliveries: receipts.iter().map(delivery).collect() }));
    }

    fn settled(seq: u64, reason: Option<&str>) -> Told {
        let error = reason.map(|reason| ItemError { reason: reason.to_owned(), ..ItemError::default() });
        Told::Settled(SettledFrame { seq, results: vec![SettleResult { error, ..SettleResult::default() }] })
    }

    fn settle_frame(session: &mut Session) -> SettleFrame {
        match session.next_frame().and_then(|request| request.frame) {
            Some(Say::Settle(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// Promise: what was settled while the connection broke is settled by the same receipt on the next one.
    #[test]
    fn unconfirmed_settlement_is_said_again_on_the_next_stream() {
        let mut session = opened();
        arrive(&mut session, &["r"]);
        session.begin().unwrap();
        session.settle(&b"r".to_vec(), ack);
        let first = settle_frame(&mut session);
        let Some(Say::Open(open)) = session.open().frame else { panic!("a stream begins with open") };
        assert_eq!(open.held, [b"r"]);
        let again = settle_frame(&mut session);
        assert_eq!(again.settlements, first.settlements);
        session.take(settled(again.seq, None));
        session.drain();
        assert!(session.is_done());
    }

    /// Promise: stopping costs no message an attempt.
    #[test]
    fn drain_releases_what_no_handler_has_begun() {
        let mut session = opened();
        arrive(&mut session, &["1", "2"]);
        assert_eq!(session.begin().unwrap().receipt, "1");
        session.drain();
        assert!(matches!(session.next_frame().unwrap().frame, Some(Say::Drain(_))));
        let released = settle_frame(&mut session).settlements;
        assert_eq!(released.len(), 1);
        assert!(matches!(released[0].outcome, Some(settlement::Outcome::Release(_))));
        assert!(session.begin().is_none());
        assert!(!session.is_over());
    }

    /// Promise: nothing is said about a message that somebody else holds.
    #[test]
    fn revoked_delivery_is_not_settled() {
        let mut session = opened();
        arrive(&mut session, &["r"]);
        session.begin().unwrap();
        let revoked = Revoked { receipts: vec![b"r".to_vec()], reason: String::new() };
        assert_eq!(session.take(Told::Revoked(revoked)).revoked, [b"r"]);
        session.settle(&b"r".to_vec(), ack);
        assert!(!session.has_frame());
    }

    /// Promise: an ack is not lost because a broker was away for too long; any other refusal is final.
    #[test]
    fn settlement_that_could_not_be_carried_out_is_said_again() {
        let mut session = opened();
        arrive(&mut session, &["r"]);
        session.begin().unwrap();
        session.settle(&b"r".to_vec(), ack);
        let seq = settle_frame(&mut session).seq;
        let effects = session.take(settled(seq, Some("BROKER_UNAVAILABLE")));
        assert!(!session.has_frame());
        session.say_again(effects.again);
        let seq = settle_frame(&mut session).seq;
        session.take(settled(seq, Some("RECEIPT_EXPIRED")));
        session.take(Told::GoAway(GoAway::default()));
        assert!(session.is_over());
    }
}
