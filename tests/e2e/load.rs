//! Messages that flow while something happens to their Queue, and a ledger of what was promised about them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use ackwell_proto::v1::{Delivery, SettleResult};
use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::{now, until};
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::manifests::idle_pod;

/// Between two messages: enough of them to notice whatever goes wrong, few enough for two cores.
const PACE: Duration = Duration::from_millis(5);
/// A broker is back, and what it holds has been delivered again, well within this.
const LIMIT: Duration = Duration::from_mins(3);
/// Before a call is made again that was refused.
const RETRY: Duration = Duration::from_millis(100);

/// Sends to and consumes from the Queue `orders`, through a sidecar, from a thread of its own: tests may block theirs.
pub(crate) struct Load {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    sidecar: Option<PortForward>,
}

#[derive(Default)]
struct Shared {
    /// Nothing more is sent.
    stopping: AtomicBool,
    /// Nothing more is consumed.
    stopped: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// What was answered, and what came.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Bodies of the messages that were confirmed, by id.
    confirmed: HashMap<String, String>,
    /// Bodies of the messages that came.
    received: HashMap<String, String>,
    /// Those whose ack was confirmed.
    acked: HashSet<String>,
    /// Those whose ack was asked for, and not answered yet.
    in_doubt: HashSet<String>,
    /// Those that came after their ack was confirmed.
    undead: Vec<String>,
    /// The last send has been answered.
    sent: bool,
    /// What callers were told instead of a confirmation.
    pub(crate) refused: Vec<String>,
    /// The longest time without a confirmed message.
    pub(crate) longest_pause: Duration,
}

impl Load {
    /// Begins, and returns when messages flow. The namespace gets a pod `gateway`.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        namespace.apply(&idle_pod("gateway"));
        namespace.pod_ready("gateway");
        let sidecar = PortForward::start(namespace, "gateway", 7400);
        let (shared, address) = (Arc::<Shared>::default(), sidecar.address());
        let worker = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let caller = Caller::connect(address, "orders").await;
                    tokio::join!(shared.send(&caller), shared.consume(&caller));
                });
            }
        });
        let load = Self { shared, worker: Some(worker), sidecar: Some(sidecar) };
        load.wait_flows();
        load
    }

    /// Until messages go through that were not sent yet when this was called.
    pub(crate) fn wait_flows(&self) {
        let sent = self.shared.ledger().confirmed.len();
        until("messages to flow", LIMIT, || {
            let ledger = self.shared.ledger();
            anyhow::ensure!(
                ledger.acked.len() > sent,
                "{} of {sent} acked, {:?}",
                ledger.acked.len(),
                ledger.refused
            );
            Ok(())
        });
    }

    /// Stops to send, waits until everything that was confirmed has come, and holds what came against what was sent.
    pub(crate) fn finish(mut self) -> Ledger {
        self.shared.stopping.store(true, Ordering::SeqCst);
        until("everything that was confirmed to come and be acked", LIMIT, || {
            let ledger = self.shared.ledger();
            let missing = ledger.unacked().len();
            anyhow::ensure!(ledger.sent, "the last send is not answered yet");
            anyhow::ensure!(missing == 0, "{missing} of {} missing", ledger.confirmed.len());
            Ok(())
        });
        self.stop();
        self.join();
        let ledger = std::mem::take(&mut *self.shared.ledger());
        ledger.assert_kept();
        ledger
    }

    /// Ends in the middle of it, as where the connection is gone.
    pub(crate) fn cut(mut self) -> Ledger {
        self.stop();
        // Calls that wait for an answer fail.
        drop(self.sidecar.take());
        self.join();
        std::mem::take(&mut *self.shared.ledger())
    }

    fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.stopped.store(true, Ordering::SeqCst);
    }

    fn join(&mut self) {
        self.worker.take().expect("it runs until here").join().expect("no call panics");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    async fn send(&self, caller: &Caller) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut number, mut last) = (0_u64, now());
        while !self.stopping.load(Ordering::SeqCst) {
            pace.tick().await;
            number += 1;
            let body = format!("message {number}");
            let answer = caller.send(vec![message(body.clone())]).await;
            let mut ledger = self.ledger();
            match answer {
                Ok(mut results) => {
                    ledger.confirmed.insert(results.remove(0).id, body);
                    ledger.longest_pause = ledger.longest_pause.max(last.elapsed());
                    last = now();
                }
                Err(status) => ledger.refused.push(status.to_string()),
            }
        }
        self.ledger().sent = true;
    }

    async fn consume(self: &Arc<Self>, caller: &Caller) {
        while !self.stopped.load(Ordering::SeqCst) {
            match caller.receive(100, Duration::from_secs(1)).await {
                Ok(deliveries) => {
                    self.ledger().note(&deliveries);
                    // What a shard handed out that is away is settled when it is back; nobody waits for that.
                    let (shared, caller) = (Arc::clone(self), caller.clone());
                    tokio::spawn(async move { shared.settle(&caller, deliveries).await });
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Until each is confirmed, or void: receipts outlive the broker that gave them.
    async fn settle(&self, caller: &Caller, mut left: Vec<Delivery>) {
        while !left.is_empty() && !self.stopped.load(Ordering::SeqCst) {
            self.ledger().in_doubt.extend(left.iter().map(|delivery| delivered(delivery).id.clone()));
            let answer = caller.settle(left.iter().map(ack).collect()).await;
            left = self.ledger().settled(left, answer);
            if !left.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Ledger {
    /// What was confirmed to senders, and whose ack was not confirmed to consumers.
    fn unacked(&self) -> HashSet<String> {
        self.confirmed.keys().filter(|id| !self.acked.contains(*id)).cloned().collect()
    }

    /// What is certain to be in the queue. An ack that nobody heard an answer to may have been done.
    pub(crate) fn stored(&self) -> HashSet<String> {
        self.unacked().difference(&self.in_doubt).cloned().collect()
    }

    /// Whether the ack of this message was confirmed.
    pub(crate) fn is_acked(&self, id: &str) -> bool {
        self.acked.contains(id)
    }

    fn note(&mut self, deliveries: &[Delivery]) {
        for message in deliveries.iter().map(delivered) {
            if self.acked.contains(&message.id) {
                self.undead.push(message.id.clone());
            }
            self.received.insert(message.id.clone(), String::from_utf8_lossy(&message.body).into_owned());
        }
    }

    /// Notes what an answer says; what has to be settled again.
    fn settled(
        &mut self,
        deliveries: Vec<Delivery>,
        answer: Result<Vec<SettleResult>, Status>,
    ) -> Vec<Delivery> {
        let refusals: Vec<Option<String>> = match answer {
            Ok(results) => results.into_iter().map(|result| Some(result.error?.reason)).collect(),
            Err(status) => vec![Some(reason(&status)); deliveries.len()],
        };
        let mut again = Vec::new();
        for (delivery, refusal) in deliveries.into_iter().zip(refusals) {
            let id = &delivered(&delivery).id;
            match refusal.as_deref() {
                None => drop((self.acked.insert(id.clone()), self.in_doubt.remove(id))),
                // The message comes again.
                Some(reason) if reason == Reason::ReceiptExpired.as_str() => drop(self.in_doubt.remove(id)),
                Some(_) => again.push(delivery),
            }
        }
        again
    }

    fn assert_kept(&self) {
        for (id, body) in &self.confirmed {
            assert_eq!(self.received.get(id), Some(body), "body of {id}");
        }
        assert_eq!(self.undead, Vec::<String>::new(), "delivered again after their ack was confirmed");
    }
}

/// Empty where the call did not get so far.
fn reason(status: &Status) -> String {
    Failure::from_status(status).map_or_else(String::new, |failure| failure.reason.as_str().to_owned())
}
