//! Shards come and go under load: keys keep their order, nothing is lost, nothing acked returns, ids stay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::{Message, QueueSettings, State};
use ackwell_tests::caller::{Caller, ack, delivered, message, nack};
use ackwell_tests::processes::{Shards, Sidecar, placement, settings};
use ackwell_tests::wait::until_async;

/// A move waits for what is remembered, two minutes, and for all that happens on a busy machine.
const LIMIT: Duration = Duration::from_mins(6);
const KEYS: u64 = 24;
const SENDERS: u64 = 4;
const CONSUMERS: usize = 4;
/// Messages are sent this often by each sender: a load, not a benchmark.
const SEND_EVERY: Duration = Duration::from_millis(20);

/// What the answers said.
#[derive(Default)]
struct Ledger {
    /// Of each key: what was answered OK, in the order of the calls, of which each waits for the one before.
    sent: Mutex<BTreeMap<String, Vec<u64>>>,
    /// Of each key: what was acked with OK, in order.
    acked: Mutex<BTreeMap<String, Vec<u64>>>,
    gone: Mutex<HashSet<u64>>,
    ids: Mutex<HashMap<u64, String>>,
    next: AtomicU64,
    stop: AtomicBool,
}

fn keyed(key: &str, number: u64) -> Message {
    Message { ordering_key: key.to_owned(), dedup_id: format!("d{number}"), ..message(number.to_string()) }
}

/// Each sender has keys of its own: their messages are sent one after the other.
async fn send(caller: Caller, ledger: Arc<Ledger>, sender: u64) {
    let mut pace = tokio::time::interval(SEND_EVERY);
    while !ledger.stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let number = ledger.next.fetch_add(1, Ordering::SeqCst);
        let key = format!("key-{}", (number % KEYS) / SENDERS * SENDERS + sender);
        // A broker that is killed may be away for longer than a call waits; it is asked again, with the same dedup id.
        let sent = loop {
            match caller.try_send(keyed(&key, number)).await {
                Ok(sent) => break sent,
                Err(failure) => assert_eq!(failure.reason, Reason::BrokerUnavailable, "{failure}"),
            }
        };
        ledger.ids.lock().unwrap().insert(number, sent.id);
        ledger.sent.lock().unwrap().entry(key).or_default().push(number);
    }
}

async fn consume(caller: Caller, ledger: Arc<Ledger>) {
    loop {
        let Ok(deliveries) = caller.receive(5, Duration::from_secs(1)).await else { continue };
        for delivery in deliveries {
            let message = delivered(&delivery);
            let number: u64 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
            assert!(!ledger.gone.lock().unwrap().contains(&number), "acked message {number} came again");
            // One in nine fails the first time.
            if number.is_multiple_of(9) && message.attempts == 0 {
                _ = caller.settle_one(nack(&delivery, Some(Duration::ZERO))).await;
                continue;
            }
            if caller.settle_one(ack(&delivery)).await.is_ok() {
                ledger.gone.lock().unwrap().insert(number);
                ledger.acked.lock().unwrap().entry(message.ordering_key.clone()).or_default().push(number);
            }
        }
    }
}

impl Ledger {
    /// Whether all that was sent is acked, each key in order.
    fn drained(&self) -> anyhow::Result<()> {
        let (sent, acked) = (self.sent.lock().unwrap(), self.acked.lock().unwrap());
        for (key, numbers) in sent.iter() {
            let acked = acked.get(key).map(Vec::as_slice).unwrap_or_default();
            assert!(acked.is_sorted(), "{key}: {acked:?}");
            anyhow::ensure!(numbers == acked, "{key}: {} of {} acked", acked.len(), numbers.len());
        }
        Ok(())
    }
}

/// Promises 3 to 7 while a queue goes from one shard to three and back, with brokers killed on the way.
#[tokio::test(flavor = "multi_thread")]
async fn queue_grows_and_shrinks_under_load() {
    let settings = QueueSettings { ack_timeout_seconds: 5, max_attempts: 1000, ..settings() };
    let mut shards = Shards::start(3, settings, placement(1, 1, 1));
    let sidecar = Sidecar::start(shards.broker(0));
    let ledger = Arc::new(Ledger::default());
    let caller = sidecar.caller().await;
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send(caller.clone(), Arc::clone(&ledger), sender))).collect();
    let consumers: Vec<_> =
        (0..CONSUMERS).map(|_| tokio::spawn(consume(caller.clone(), Arc::clone(&ledger)))).collect();

    let steps = [(1, 3), (3, 3), (3, 2), (2, 2), (2, 1), (1, 1)];
    for (generation, (from, to)) in (2..).zip(steps) {
        let count = usize::try_from(from.max(to)).unwrap();
        shards.note(placement(generation, from, to));
        (from..to).for_each(|ordinal| shards.broker(ordinal as usize).restart());
        until_async("all shards to know", LIMIT, async || {
            for ordinal in 0..count {
                let moving = shards.tell(ordinal).await?;
                anyhow::ensure!(moving.generation == generation, "shard {ordinal}: {moving:?}");
            }
            Ok(())
        })
        .await;
        // Both sides die on the way.
        for ordinal in [0, count - 1] {
            shards.broker(ordinal).kill();
            shards.broker(ordinal).restart();
        }
        until_async("the move to end", LIMIT, async || shards.done(count).await).await;
        if from == to && generation > 3 {
            shards.broker(count).kill();
        }
    }
    ledger.stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    until_async("all to be acked", LIMIT, async || ledger.drained()).await;
    for consumer in consumers {
        consumer.abort();
        assert!(consumer.await.is_err_and(|error| error.is_cancelled()), "a consumer saw a broken promise");
    }
    println!("{} messages", ledger.gone.lock().unwrap().len());
}

/// Promise: a shard that drains hands over what it has, whole: ids, attempts, states; and says so.
#[tokio::test]
async fn messages_of_a_draining_shard_are_at_the_others() {
    let mut shards = Shards::start(2, settings(), placement(1, 2, 2));
    let sidecar = Sidecar::start(shards.broker(0));
    let caller = sidecar.caller().await;
    let mut sent = HashMap::new();
    for number in 0..40 {
        let id = caller.send_one(keyed(&format!("key-{number}"), number)).await;
        sent.insert(id, number.to_string());
    }
    let held = caller.receive(1, Duration::from_secs(5)).await.unwrap().pop().unwrap();
    let before = shards.broker(1).caller().await.stats().await;
    assert!(before.ready > 5, "{before:?}");

    shards.note(placement(2, 2, 1));
    until_async("shard 1 to be empty but for what is held", LIMIT, async || {
        shards.tell(0).await?;
        let moving = shards.tell(1).await?;
        anyhow::ensure!(moving.generation == 2 && moving.messages <= 1, "{moving:?}");
        Ok(())
    })
    .await;
    // What is sent meanwhile is stored, and what was sent before is known.
    for number in 0..40 {
        let again = caller.try_send(keyed(&format!("key-{number}"), number)).await.unwrap();
        assert!(again.duplicate && sent[&again.id] == number.to_string(), "message {number}");
        sent.insert(
            caller.send_one(keyed(&format!("key-{number}"), number + 100)).await,
            (number + 100).to_string(),
        );
    }
    caller.settle_one(nack(&held, Some(Duration::ZERO))).await.unwrap();
    until_async("the last message to move", LIMIT, async || {
        let moving = shards.tell(1).await?;
        anyhow::ensure!(moving.messages == 0, "{moving:?}");
        Ok(())
    })
    .await;
    shards.broker(1).kill();

    let direct = shards.broker(0).caller().await;
    let found = direct.peek(&[State::Ready, State::Delayed]).await;
    let found: HashMap<_, _> = found
        .into_iter()
        .map(|message| (message.id, String::from_utf8(message.body.to_vec()).unwrap()))
        .collect();
    assert_eq!(found, sent);
    let mut seen = HashMap::new();
    for _ in 0..sent.len() {
        let delivery = direct.receive_one().await;
        let message = delivered(&delivery);
        let number: u64 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
        assert_eq!(message.attempts, u32::from(message.id == delivered(&held).id));
        let earlier = seen.insert(message.ordering_key.clone(), number);
        assert!(
            earlier.is_none_or(|earlier| earlier < number),
            "{}: {number} after {earlier:?}",
            message.ordering_key
        );
        direct.settle_one(ack(&delivery)).await.unwrap();
    }
}
