//! A broker that is killed again and again under load keeps every promise it has answered.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell_proto::v1::QueueSettings;
use ackwell_tests::caller::{Caller, ack, delivered, message};
use ackwell_tests::processes::{Broker, QUEUE, settings};
use ackwell_tests::wait::until_async;

/// Kills of one run.
const KILLS: u64 = 20;
const SENDERS: u64 = 3;
const CONSUMERS: usize = 3;
/// Messages of one call.
const BATCH: u64 = 10;
/// A broker that was killed serves again, and everything is drained, well within this.
const LIMIT: Duration = Duration::from_mins(2);

/// What the answers said.
#[derive(Default)]
struct Ledger {
    /// Numbers whose send was answered OK, and those that were acked with OK, by id.
    stored: Mutex<HashMap<String, u64>>,
    gone: Mutex<HashSet<String>>,
    /// Numbers that were delivered.
    seen: Mutex<HashSet<u64>>,
    next: AtomicU64,
    progress: AtomicU64,
    stop: AtomicBool,
}

/// Promise: stored means stored, acked is gone, bodies are whole: across SIGKILL at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_loses_nothing_stored_and_returns_nothing_acked() {
    // A delivery whose answer was lost with the broker comes back after its ack timeout, as often as it takes.
    let mut broker =
        Broker::start(QueueSettings { ack_timeout_seconds: 1, max_attempts: 1000, ..settings() });
    let ledger = Arc::new(Ledger::default());
    let caller = Caller::connect_lazy(broker.address(), QUEUE);
    let senders: Vec<_> =
        (0..SENDERS).map(|_| tokio::spawn(send(caller.clone(), Arc::clone(&ledger)))).collect();
    let consumers: Vec<_> =
        (0..CONSUMERS).map(|_| tokio::spawn(consume(caller.clone(), Arc::clone(&ledger)))).collect();

    for kill in 0..KILLS {
        // At another point of the work each time.
        let target = ledger.progress.load(Ordering::SeqCst) + 40 + kill * 7;
        until_async("load to go on", LIMIT, async || ledger.reached(target)).await;
        broker.kill();
        broker.restart();
    }
    ledger.stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    until_async("the queue to be drained", LIMIT, async || ledger.drained()).await;
    until_async("the last acks", LIMIT, async || {
        let left = broker.caller().await.stats().await;
        anyhow::ensure!(left.bytes == 0, "nothing is left over: {left:?}");
        Ok(())
    })
    .await;
    for consumer in consumers {
        consumer.abort();
        assert!(consumer.await.is_err_and(|error| error.is_cancelled()), "a consumer saw a broken promise");
    }
    println!(
        "{} messages, {} acked, {KILLS} kills",
        ledger.stored.lock().unwrap().len(),
        ledger.gone.lock().unwrap().len()
    );
}

impl Ledger {
    fn reached(&self, target: u64) -> anyhow::Result<()> {
        let progress = self.progress.load(Ordering::SeqCst);
        anyhow::ensure!(progress >= target, "{progress} of {target} answers");
        Ok(())
    }

    /// Everything stored was delivered, and acked with an answer or, where the answer was lost, at least once seen.
    fn drained(&self) -> anyhow::Result<()> {
        let (stored, seen) = (self.stored.lock().unwrap(), self.seen.lock().unwrap());
        let missing = stored.values().filter(|number| !seen.contains(number)).count();
        if missing > 0 {
            anyhow::bail!("{missing} of {} stored messages were never delivered", stored.len());
        }
        Ok(())
    }
}

/// Sends numbered bodies; a call without an answer proves nothing and is not repeated.
async fn send(caller: Caller, ledger: Arc<Ledger>) {
    while !ledger.stop.load(Ordering::SeqCst) {
        let first = ledger.next.fetch_add(BATCH, Ordering::SeqCst);
        let numbers = first..first + BATCH;
        let Ok(results) = caller.send(numbers.clone().map(|number| message(body(number))).collect()).await
        else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut stored = ledger.stored.lock().unwrap();
        for (number, result) in numbers.zip(results) {
            assert_eq!(result.error, None);
            stored.insert(result.id, number);
        }
        ledger.progress.fetch_add(1, Ordering::SeqCst);
    }
}

async fn consume(caller: Caller, ledger: Arc<Ledger>) {
    loop {
        let Ok(deliveries) = caller.receive(50, Duration::from_secs(1)).await else {
            tokio::task::yield_now().await;
            continue;
        };
        for delivery in &deliveries {
            let message = delivered(delivery);
            assert!(
                !ledger.gone.lock().unwrap().contains(&message.id),
                "acked message {} came again",
                message.id
            );
            let number = number(&message.body);
            assert_eq!(message.body, body(number), "body of {number}");
            ledger.seen.lock().unwrap().insert(number);
        }
        if deliveries.is_empty() {
            continue;
        }
        let Ok(results) = caller.settle(deliveries.iter().map(ack).collect()).await else { continue };
        let acked = deliveries.iter().zip(results).filter(|(_, result)| result.error.is_none());
        ledger.gone.lock().unwrap().extend(acked.map(|(delivery, _)| delivered(delivery).id.clone()));
        ledger.progress.fetch_add(1, Ordering::SeqCst);
    }
}

/// A body that its number determines: 8 bytes to 4 KiB.
fn body(number: u64) -> Vec<u8> {
    let filler =
        (0..number % 4096).map(|index| u8::try_from((number ^ index.wrapping_mul(31)) % 251).unwrap_or(0));
    number.to_be_bytes().into_iter().chain(filler).collect()
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().expect("bodies have at least 8 bytes"))
}
