//! A load of keyed messages, and a ledger of what was answered: keys keep their order, nothing is lost, nothing acked returns.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::Message;
use tokio::task::JoinHandle;

use crate::caller::{Caller, ack, delivered, message, nack};
use crate::wait::until_async;

const KEYS: u64 = 24;
const SENDERS: u64 = 4;
const CONSUMERS: usize = 4;
/// Messages are sent this often by each sender: a load, not a benchmark.
const SEND_EVERY: Duration = Duration::from_millis(20);

/// Senders and consumers at work.
pub struct Load {
    ledger: Arc<Ledger>,
    senders: Vec<JoinHandle<()>>,
    consumers: Vec<JoinHandle<()>>,
}

/// What the answers said.
#[derive(Default)]
struct Ledger {
    /// Of each key: what was answered OK, in the order of the calls, of which each waits for the one before.
    sent: Mutex<BTreeMap<String, Vec<u64>>>,
    /// Of each key: what was delivered last. Not what was acked last: of two acks, the answer to the second may come first.
    delivered: Mutex<BTreeMap<String, u64>>,
    /// What was acked with OK.
    gone: Mutex<HashSet<u64>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// Message `number` of a key.
pub fn keyed(key: &str, number: u64) -> Message {
    Message { ordering_key: key.to_owned(), dedup_id: format!("d{number}"), ..message(number.to_string()) }
}

impl Load {
    /// Begins.
    pub fn start(caller: &Caller) -> Self {
        let ledger = Arc::new(Ledger::default());
        let send = |sender| tokio::spawn(send(caller.clone(), Arc::clone(&ledger), sender));
        let senders = (0..SENDERS).map(send).collect();
        let consume = |_| tokio::spawn(consume(caller.clone(), Arc::clone(&ledger)));
        let consumers = (0..CONSUMERS).map(consume).collect();
        Self { ledger, senders, consumers }
    }

    /// Ends it once all that was sent is acked; fails where a promise was broken on the way. How many
    /// messages there were.
    pub async fn finish(self, limit: Duration) -> usize {
        self.ledger.stop.store(true, Ordering::SeqCst);
        for sender in self.senders {
            sender.await.expect("a sender saw no broken promise");
        }
        until_async("all to be acked", limit, async || self.ledger.drained()).await;
        for consumer in self.consumers {
            consumer.abort();
            let ended = consumer.await;
            assert!(ended.is_err_and(|error| error.is_cancelled()), "a consumer saw a broken promise");
        }
        lock(&self.ledger.gone).len()
    }
}

/// Each sender has keys of its own: their messages are sent one after the other.
async fn send(caller: Caller, ledger: Arc<Ledger>, sender: u64) {
    let mut pace = tokio::time::interval(SEND_EVERY);
    while !ledger.stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let number = ledger.next.fetch_add(1, Ordering::SeqCst);
        let key = format!("key-{}", (number % KEYS) / SENDERS * SENDERS + sender);
        // A broker that is killed may be away, and a key between two shards, for longer than a call waits; it is asked again, with
        // the same dedup id.
        while let Err(failure) = caller.try_send(keyed(&key, number)).await {
            let may_repeat = matches!(failure.reason, Reason::BrokerUnavailable | Reason::ShardMoved);
            assert!(may_repeat, "{failure}");
        }
        lock(&ledger.sent).entry(key).or_default().push(number);
    }
}

async fn consume(caller: Caller, ledger: Arc<Ledger>) {
    loop {
        let Ok(deliveries) = caller.receive(5, Duration::from_secs(1)).await else { continue };
        deliveries.iter().for_each(|delivery| ledger.note(delivered(delivery)));
        for delivery in deliveries {
            let (number, attempts) = (number_of(delivered(&delivery)), delivered(&delivery).attempts);
            // One in nine fails the first time.
            if number.is_multiple_of(9) && attempts == 0 {
                _ = caller.settle_one(nack(&delivery, Some(Duration::ZERO))).await;
            } else if caller.settle_one(ack(&delivery)).await.is_ok() {
                lock(&ledger.gone).insert(number);
            }
        }
    }
}

/// The number of a keyed message.
pub fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(&message.body).ok().and_then(|text| text.parse().ok()).expect("bodies are numbers")
}

impl Ledger {
    /// A delivery, as soon as it is there: none of its key comes after a later one, and none that was acked comes at all.
    fn note(&self, message: &Message) {
        let number = number_of(message);
        assert!(!lock(&self.gone).contains(&number), "acked message {number} came again");
        let last = lock(&self.delivered).insert(message.ordering_key.clone(), number);
        assert!(last.is_none_or(|last| last <= number), "{}: {number} after {last:?}", message.ordering_key);
    }

    /// Whether all that was sent is acked.
    fn drained(&self) -> anyhow::Result<()> {
        let (sent, gone) = (lock(&self.sent), lock(&self.gone));
        for (key, numbers) in sent.iter() {
            let missing: Vec<_> = numbers.iter().filter(|number| !gone.contains(number)).collect();
            anyhow::ensure!(missing.is_empty(), "{key}: {missing:?} of {} are not acked", numbers.len());
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
