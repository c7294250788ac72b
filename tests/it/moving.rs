//! Shards come and go under load: keys keep their order, nothing is lost, nothing acked returns, ids stay.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{ArriveRequest, ImportRequest, QueueSettings, State};
use ackwell_tests::caller::{ack, delivered, failure, nack};
use ackwell_tests::certificates::{Authority, Shown, connect_as};
use ackwell_tests::keyed::{Load, keyed, number_of};
use ackwell_tests::processes::{Certificates, QUEUE, Shards, Sidecar, placement, settings};
use ackwell_tests::wait::until_async;
use tonic::transport::Endpoint;

/// A move waits for what is remembered, two minutes, and for all that happens on a busy machine.
const LIMIT: Duration = Duration::from_mins(6);

/// Promises 3 to 7 while a queue goes from one shard to two and back, with brokers killed on the way. Each move waits for two
/// minutes; the one over three shards is in a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn queue_grows_and_shrinks_under_load() {
    let certificates = Certificates::new();
    let settings = QueueSettings { ack_timeout_seconds: 20, max_attempts: 1000, ..settings() };
    let mut shards = certificates.shards(2, settings, placement(1, 1, 1));
    let sidecar = certificates.sidecar(shards.broker(0));
    let load = Load::start(&sidecar.caller().await);

    let steps = [(1, 2), (2, 2), (2, 1), (1, 1)];
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
    println!("{} messages", load.finish(LIMIT).await);
}

/// Promise: a shard that drains hands over what it has, whole: ids, attempts, states; and says so.
#[tokio::test]
async fn messages_of_a_draining_shard_are_at_the_others() {
    // What is held stays so for as long as the move takes, wherever this runs.
    let settings = QueueSettings { ack_timeout_seconds: 600, ..settings() };
    let mut shards = Shards::start(2, settings, placement(1, 2, 2));
    let sidecar = Sidecar::start(shards.broker(0));
    let caller = sidecar.caller().await;
    let mut sent = HashMap::new();
    for number in 0..40 {
        let id = caller.send_one(keyed(&format!("key-{number}"), number)).await;
        sent.insert(id, number.to_string());
    }
    let draining = shards.broker(1).caller().await;
    let held = draining.receive_one().await;
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
    // The last one finds nobody who takes it, for a while.
    shards.broker(0).kill();
    draining.settle_one(nack(&held, Some(Duration::ZERO))).await.unwrap();
    until_async("shard 1 to say why it cannot go on", LIMIT, async || {
        let moving = shards.tell(1).await?;
        anyhow::ensure!(!moving.blocked.is_empty() && moving.messages == 1, "{moving:?}");
        Ok(())
    })
    .await;
    shards.broker(0).restart();
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
        let number = number_of(message);
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

/// Promise: a shard that is given up on while it hands over takes its messages with it, and not its keys.
#[tokio::test]
async fn keys_outlive_a_shard_that_is_given_up_on() {
    let settings = QueueSettings { ack_timeout_seconds: 600, ..settings() };
    let mut shards = Shards::start(2, settings, placement(1, 2, 2));
    let sidecar = Sidecar::start(shards.broker(0));
    let caller = sidecar.caller().await;
    for number in 0..20 {
        caller.send_one(keyed(&format!("key-{number}"), number)).await;
    }
    // What is held cannot go.
    let held = shards.broker(1).caller().await.receive(20, Duration::ZERO).await.unwrap();
    assert!(held.len() > 3, "{} messages", held.len());
    shards.note(placement(2, 2, 1));
    until_async("both shards to know", LIMIT, async || {
        for ordinal in [0, 1] {
            anyhow::ensure!(shards.tell(ordinal).await?.generation == 2, "shard {ordinal}");
        }
        Ok(())
    })
    .await;
    for number in 0..20 {
        caller.send_one(keyed(&format!("key-{number}"), number + 100)).await;
    }
    shards.broker(1).kill();
    shards.note(placement(3, 1, 1));
    assert_eq!(shards.tell(0).await.unwrap().generation, 3);
    let mut left: BTreeSet<u64> = (100..120).collect();
    let direct = shards.broker(0).caller().await;
    until_async("what was sent since to come", LIMIT, async || {
        for delivery in direct.receive(20, Duration::from_secs(1)).await? {
            left.remove(&number_of(delivered(&delivery)));
            direct.settle_one(ack(&delivery)).await?;
        }
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
}

/// Promise: nobody but a shard of the queue can put messages into it this way, or make a shard believe that messages come: who shows no
/// certificate, one of another authority, or one for another name is refused, whatever it says.
#[tokio::test]
async fn stranger_is_no_shard() {
    let certificates = Certificates::new();
    let mut shards = certificates.shards(2, settings(), placement(1, 2, 2));
    let stranger = |authority: &Authority, name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let shown = Shown::in_folder(folder.path());
        authority.issue(name, LIMIT, &shown);
        (folder, shown)
    };
    let (_logs, logs) = stranger(&certificates.authority, "ackwell-logs-1.ackwell-logs-shards.shop.svc");
    let (_forged, forged) = stranger(&Authority::new("authority"), "127.0.0.1");
    let address = shards.broker(0).address();
    let bundle = certificates.authority.pem();
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let strangers = [
        ("plain", plain),
        ("none", connect_as(address, bundle, None).await.unwrap()),
        ("of another queue", connect_as(address, bundle, Some(&logs)).await.unwrap()),
        ("of another authority", connect_as(address, bundle, Some(&forged)).await.unwrap()),
    ];
    let arrive = || ArriveRequest {
        queue: QUEUE.to_owned(),
        placement: Some(placement(7, 2, 1)),
        source: 1,
        salt: 1,
        end: 10,
        ..ArriveRequest::default()
    };
    let import =
        || ImportRequest { queue: QUEUE.to_owned(), generation: 7, source: 1, ..ImportRequest::default() };
    for (who, channel) in strangers {
        let mut client = ShardClient::new(channel);
        let arrived = client.arrive(arrive()).await.map(drop);
        for refused in [arrived, client.import(import()).await.map(drop)] {
            let refused = failure(&refused.expect_err(who));
            assert_eq!(refused.reason, Reason::PermissionDenied, "{who}: {refused}");
        }
    }
    assert_eq!(shards.tell(0).await.unwrap().generation, 1, "nothing has changed");
    let own = connect_as(address, bundle, Some(&certificates.shown)).await.unwrap();
    ShardClient::new(own).arrive(arrive()).await.unwrap();
    assert_eq!(shards.tell(0).await.unwrap().generation, 7, "a shard of the queue is believed");
}
