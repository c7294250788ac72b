//! What becomes of unsettled deliveries when the application's stream ends.
//!
//! An application that left on purpose pays nothing. One whose connection broke has [`GRACE`] to come back with what it
//! holds; after that, what it can have seen is lost (an attempt), and the rest is released. While the pod ends nothing is
//! lost: an application that took the whole grace period was killed for its time, not for its messages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::{GoAway, Lost, SettleFrame, Settlement, consume_request, settlement};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::ledger::Unsettled;
use super::leg::{Event, Leg};
use super::session::{Application, End, Session};
use crate::sidecar::attempt::What;
use crate::sidecar::receipt::Receipt;
use crate::sidecar::receive::{RELEASE_BUDGET, settle_all};
use crate::sidecar::retry::{DEFAULT_BUDGET, Deadline};
use crate::sidecar::route::Queue;
use crate::sidecar::service::Sidecar;
use crate::sidecar::settle;
use crate::stream_end::StreamEnd;
use crate::traces;

/// As brokers give to consumers of their own.
const GRACE: Duration = Duration::from_secs(5);
/// Answers to settlements that an application that is gone will not read.
const UNREAD_BUDGET: Duration = Duration::from_secs(5);
/// Below what the process has to stop.
const STOP_BUDGET: Duration = Duration::from_secs(4);

impl Session {
    /// Ends the streams to the shards, after everything that the application sent was done.
    pub(super) async fn close(
        mut self,
        app: Application,
        mut events: mpsc::Receiver<Event>,
        end: End,
        sidecar: &Sidecar,
    ) {
        self.drain();
        sidecar.orphans.leave(self.stream);
        match end {
            End::Caller(StreamEnd::Broken) => self.linger(&app, &mut events, sidecar).await,
            End::Caller(StreamEnd::Deliberate) => self.finish(&app, &mut events, DEFAULT_BUDGET).await,
            End::Refused(status) => {
                self.outbox.push_back(Err(status));
                self.finish(&app, &mut events, UNREAD_BUDGET).await;
            }
            End::Stopping => {
                let reason = "the sidecar is stopping because its pod ends".to_owned();
                self.push(Frame::GoAway(GoAway { reason }));
                self.finish(&app, &mut events, STOP_BUDGET).await;
            }
        }
        self.settle_unanswered();
    }

    /// Releases what is unsettled, and waits until what was asked is answered.
    async fn finish(&mut self, app: &Application, events: &mut mpsc::Receiver<Event>, budget: Duration) {
        let asked = self.asked();
        let Unsettled { seen, unseen } = self.ledger.take(app.taken());
        self.release(seen.into_iter().chain(unseen).filter(|receipt| !asked.contains(receipt)).collect());
        let start = Instant::now();
        loop {
            self.pump();
            let is_gone = app.out.is_closed();
            let until = start + if is_gone { budget.min(UNREAD_BUDGET) } else { budget };
            let all_told = self.answers.len() == 0 && (is_gone || self.outbox.is_empty());
            if all_told || Instant::now() >= until {
                return;
            }
            tokio::select! {
                permit = app.out.reserve(), if !is_gone && !self.outbox.is_empty() => {
                    if let (Ok(permit), Some(frame)) = (permit, self.outbox.pop_front()) {
                        permit.send(frame);
                    }
                }
                () = app.out.closed(), if !is_gone => {}
                Some(event) = events.recv() => self.on_late_event(event),
                () = self.next_expiry() => self.expire(),
                () = sleep_until(until) => {}
            }
        }
    }

    /// Waits for the application to come back with what it holds.
    async fn linger(&mut self, app: &Application, events: &mut mpsc::Receiver<Event>, sidecar: &Sidecar) {
        let orphans = &sidecar.orphans;
        let asked = self.asked();
        let Unsettled { seen, unseen } = self.ledger.take(app.taken());
        self.release(unseen);
        let seen: Vec<_> = seen.into_iter().filter(|receipt| !asked.contains(receipt)).collect();
        orphans.add(&seen);
        seen.into_iter().for_each(|receipt| self.ledger.resume(receipt));
        let until = Instant::now() + GRACE;
        loop {
            tokio::select! {
                Some(event) = events.recv() => self.on_late_event(event),
                () = sleep_until(until) => break,
                () = sidecar.stopping.cancelled() => break,
            }
        }
        let unclaimed = self.ledger.take(u64::MAX).seen.into_iter().filter(|receipt| orphans.claim(receipt));
        let unclaimed = unclaimed.collect();
        if sidecar.draining.is_cancelled() { self.release(unclaimed) } else { self.lose(unclaimed).await }
    }

    /// Settlements are still answered, and asked for again; everything else that comes goes back.
    fn on_late_event(&mut self, event: Event) {
        if !self.is_current(&event) {
            return;
        }
        match event.what {
            What::Frame(frame) => self.on_frame(event.shard, frame),
            What::Ended(_) if self.legs[event.shard].unanswered.is_empty() => {}
            What::Ended(_) => self.legs[event.shard].reopen(&self.line, Vec::new()),
        }
    }

    async fn lose(&self, receipts: Vec<Bytes>) {
        if receipts.is_empty() {
            return;
        }
        traces::lost(|| self.line.queue.full_name().to_owned(), &receipts);
        let reason = format!("the application's connection broke and did not come back within {GRACE:?}");
        let outcome = settlement::Outcome::Lost(Lost { reason });
        settle_all(&self.line.queue, receipts, &outcome, Deadline::within(RELEASE_BUDGET)).await;
    }

    /// Sealed receipts in settlements that are not answered: the application decided about those.
    fn asked(&self) -> HashSet<Bytes> {
        let of_leg = |leg: &Leg| -> Vec<Bytes> {
            leg.settlements().map(|settlement| sealed(leg.shard, settlement).receipt).collect()
        };
        self.legs.iter().flat_map(of_leg).collect()
    }

    /// What the application asked for before it went is done even if its shard is away now.
    fn settle_unanswered(&self) {
        for leg in &self.legs {
            let settlements: Vec<_> =
                leg.settlements().map(|settlement| sealed(leg.shard, settlement)).collect();
            if !settlements.is_empty() {
                let queue = Arc::clone(&self.line.queue);
                self.line.tasks.spawn(settle_late(queue, settlements));
            }
        }
    }
}

impl Leg {
    fn settlements(&self) -> impl Iterator<Item = &Settlement> {
        let of_frame = |frame| match frame {
            &consume_request::Frame::Settle(SettleFrame { ref settlements, .. }) => settlements.as_slice(),
            _ => &[],
        };
        self.unanswered.values().flat_map(move |part| of_frame(&part.frame))
    }
}

fn sealed(shard: usize, settlement: &Settlement) -> Settlement {
    let shard = u16::try_from(shard).expect("a route has at most 1024 shards");
    Settlement { receipt: Receipt::seal(shard, &settlement.receipt), ..settlement.clone() }
}

async fn settle_late(queue: Arc<Queue>, settlements: Vec<Settlement>) {
    for chunk in settlements.chunks(1000) {
        let settled = settle::settle(&queue, chunk.to_vec(), Deadline::within(DEFAULT_BUDGET)).await;
        if let Err(error) = settled {
            tracing::warn!(queue = queue.full_name(), messages = chunk.len(), %error, "not settled");
        }
    }
}
