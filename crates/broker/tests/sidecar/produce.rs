//! Produce, on a broker and through a sidecar.

use ackwell_proto::v1::produce_response::Frame;

use super::*;

fn bodies(bodies: impl IntoIterator<Item = impl ToString>) -> Vec<Message> {
    let message = |body: String| Message { body: body.into(), ..Message::default() };
    bodies.into_iter().map(|body| message(body.to_string())).collect()
}

/// A sidecar of a broker that is up by now.
async fn sidecar_of(broker: &Broker) -> Sidecar {
    let sidecar = Sidecar::start(broker.address).await;
    sidecar.client().await.stats().await;
    sidecar
}

/// Receives and acks everything, in the order of delivery.
async fn drain(client: &mut Client, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let deliveries = client.receive(100).await;
        assert!(!deliveries.is_empty(), "{} of {count}", all.len());
        settle(client, acks(&deliveries)).await.unwrap();
        all.extend(deliveries);
    }
    all
}

/// A confirm speaks for all that came before it; of single messages it names those refused and the duplicates, and their
/// ids when asked for.
#[tokio::test]
async fn confirms_are_cumulative_and_name_exceptions() {
    let broker = Broker::start();
    let sidecar = sidecar_of(&broker).await;
    for (round, address) in [broker.address, sidecar.address].into_iter().enumerate() {
        let mut client = Client::connect(address).await;
        let (mut producer, opened) = client.produce("", false).await;
        assert!(!opened.producer.is_empty() && opened.window.unwrap().max_messages > 1);
        let known = Message { dedup_id: format!("known-{round}"), ..Message::default() };
        let large = Message { body: vec![0; (1 << 20) + 1].into(), ..Message::default() };
        let wrong = Message { priority: Some(77), ..Message::default() };
        producer.batch(2, vec![Message::default(), known.clone()]).await;
        producer.batch(3, vec![large, Message::default(), known, wrong]).await;
        producer.batch(9, bodies(0..50)).await;
        let results = producer.confirmed(9).await;
        let places: Vec<_> = results.iter().map(|result| (result.seq, result.index)).collect();
        assert_eq!(places, [(3, 0), (3, 2), (3, 3)], "{results:?}");
        let results: Vec<_> = results.into_iter().map(|result| result.result.unwrap()).collect();
        assert_eq!(results[0].error.as_ref().unwrap().reason, "MESSAGE_TOO_LARGE");
        assert!(results[1].duplicate && !results[1].id.is_empty());
        assert_eq!(results[2].error.as_ref().unwrap().reason, "INVALID_ARGUMENT");
        drop(producer.frames);
        assert_eq!(producer.responses.message().await.unwrap(), None, "a closed stream ends in peace");
        assert_eq!(client.stats().await.ready, 53);
        let (mut producer, _) = client.produce("", true).await;
        producer.batch(1, bodies(0..10)).await;
        let ids: BTreeSet<_> =
            producer.confirmed(1).await.into_iter().map(|result| result.result.unwrap().id).collect();
        assert_eq!(ids.len(), 10);
        drain(&mut client, 63).await;
    }
}

/// What is sent again under the producer's name is not stored again, whatever the old stream managed to store.
#[tokio::test]
async fn resumed_producer_stores_nothing_twice() {
    let broker = Broker::start();
    let sidecars = [sidecar_of(&broker).await, sidecar_of(&broker).await];
    let pairs = [(broker.address, broker.address), (sidecars[0].address, sidecars[1].address)];
    for (first, second) in pairs {
        let network = Network::to(first).await;
        let (mut producer, opened) = Client::connect(network.address).await.produce("", true).await;
        producer.batch(1, bodies(0..5)).await;
        let ids: Vec<_> = producer.confirmed(1).await.into_iter().map(|one| one.result).collect();
        for seq in 2..6 {
            producer.batch(seq, bodies(seq * 5..seq * 5 + 5)).await;
        }
        network.cut();
        let mut client = Client::connect(second).await;
        let (mut producer, again) = client.produce(&opened.producer, true).await;
        assert_eq!(again.producer, opened.producer);
        for seq in 1..8 {
            let start = if seq == 1 { 0 } else { seq * 5 };
            producer.batch(seq, bodies(start..start + 5)).await;
        }
        let results = producer.confirmed(7).await;
        let ids_again: Vec<_> = results.into_iter().take(5).map(|one| one.result).collect();
        assert_eq!(ids, ids_again);
        let stored: Vec<_> = drain(&mut client, 35).await.iter().map(body).collect();
        let distinct: BTreeSet<_> = stored.iter().collect();
        assert_eq!((distinct.len(), client.stats().await.ready), (35, 0), "{stored:?}");
    }
}

/// A broker that is killed is a pause for the producer: everything is confirmed, stored once, and each key in order.
#[tokio::test(flavor = "multi_thread")]
async fn produce_through_broker_kills_is_a_pause() {
    let mut brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    let (mut producer, _) = client.produce("", false).await;
    let keyed = |number: u64| Message {
        ordering_key: if number.is_multiple_of(3) { String::new() } else { format!("k{}", number % 7) },
        body: number.to_string().into(),
        ..Message::default()
    };
    for seq in 1..=60 {
        producer.batch(seq, (seq * 10..seq * 10 + 10).map(keyed).collect()).await;
        if seq.is_multiple_of(15) {
            brokers[usize::from(seq.is_multiple_of(2))].restart();
        }
    }
    assert_eq!(producer.confirmed(60).await, []);
    let deliveries = drain(&mut client, 600).await;
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut distinct = BTreeSet::new();
    for delivery in &deliveries {
        let number: u64 = body(delivery).parse().unwrap();
        assert!(distinct.insert(number), "{number} came twice");
        let key = delivery.message.as_ref().unwrap().ordering_key.clone();
        let before = last.insert(key.clone(), number);
        assert!(key.is_empty() || before.is_none_or(|before| before < number), "{key}: {before:?}, {number}");
    }
    assert_eq!((distinct.len(), client.stats().await.ready), (600, 0));
}

/// The one of two brokers that the batch belongs to, by its name.
fn home(producer: &str, seq: u64) -> usize {
    usize::try_from(crc32c::crc32c(format!("p:{producer}:{seq}").as_bytes()) % 4096 / 2048).unwrap()
}

/// Receives and acks everything of both brokers; every body of `all` once.
async fn drain_all(brokers: &[Broker], all: std::ops::Range<u64>) {
    let (mut seen, mut clients) = (BTreeSet::new(), Vec::new());
    for broker in brokers {
        clients.push(broker.client().await);
    }
    for client in &mut clients {
        let ready = usize::try_from(client.stats().await.ready).unwrap();
        for delivery in drain(client, ready).await {
            assert!(seen.insert(body(&delivery).parse().unwrap()), "{} came twice", body(&delivery));
        }
    }
    assert_eq!(seen, all.collect());
}

/// A shard that is away keeps nothing back that may lie on another one. What goes elsewhere is known there when it is sent
/// again, after the shard came back.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_is_away_keeps_no_new_batch() {
    for goes_away in [|broker: &mut Broker| broker.pause(), Broker::kill] {
        let mut brokers = Broker::start_all(2);
        let sidecar = sidecar_of(&brokers[0]).await;
        goes_away(&mut brokers[1]);
        let (mut producer, opened) = sidecar.client().await.produce("", true).await;
        assert!((1..=20).any(|seq| home(&opened.producer, seq) == 1), "some belong to the other shard");
        let batches = || (1..=20).map(|seq| (seq, bodies(seq * 10..seq * 10 + 10)));
        for (seq, messages) in batches() {
            producer.batch(seq, messages).await;
        }
        let ids: Vec<_> =
            producer.confirmed(20).await.into_iter().map(|one| one.result.unwrap().id).collect();
        assert_eq!(brokers[0].client().await.stats().await.ready, 200);
        brokers[1].come_back();
        brokers[1].client().await.stats().await;
        let (mut again, _) = sidecar.client().await.produce(&opened.producer, true).await;
        for (seq, messages) in batches() {
            again.batch(seq, messages).await;
        }
        let again: Vec<_> = again.confirmed(20).await.into_iter().map(|one| one.result.unwrap().id).collect();
        assert_eq!(again, ids);
        drain_all(&brokers, 10..210).await;
    }
}

/// What a shard may have stored stays with it; what comes after is stored meanwhile, and all is confirmed, once, when the
/// shard goes on.
#[tokio::test(flavor = "multi_thread")]
async fn batch_on_its_way_stays_with_its_shard() {
    let brokers = Broker::start_all(2);
    let sidecar = sidecar_of(&brokers[0]).await;
    let (mut producer, opened) = sidecar.client().await.produce("", false).await;
    let first = (1..100).find(|seq| home(&opened.producer, *seq) == 1).unwrap();
    producer.batch(first, bodies(0..10)).await;
    producer.confirmed(first).await;
    brokers[1].pause();
    let last = first + 40;
    for seq in first + 1..=last {
        producer.batch(seq, bodies((seq - first) * 10..(seq - first) * 10 + 10)).await;
    }
    let mut direct = brokers[0].client().await;
    let stuck = (first + 1..=last).filter(|seq| home(&opened.producer, *seq) == 1).count() as u64;
    assert!(stuck > 0);
    while direct.stats().await.ready == 0 {
        tokio::task::yield_now().await;
    }
    brokers[1].resume();
    assert_eq!(producer.confirmed(last).await, []);
    drain_all(&brokers, 0..410).await;
}

/// A full shard neither narrows what a producer may send nor refuses what another one takes.
#[tokio::test(flavor = "multi_thread")]
async fn full_shard_keeps_no_new_batch() {
    let mut brokers = Broker::start_all(2);
    brokers[1].limit(10);
    brokers[1].restart();
    for body in 0..10 {
        brokers[1].client().await.send(&body.to_string()).await.unwrap();
    }
    let sidecar = sidecar_of(&brokers[0]).await;
    let (mut producer, _) = sidecar.client().await.produce("", false).await;
    for seq in 1..=40 {
        producer.batch(seq, bodies(seq * 10..seq * 10 + 10)).await;
    }
    let refused = producer.confirmed(40).await;
    assert!(refused.len() <= 20, "{} of 400 were refused: {refused:?}", refused.len());
    assert_eq!(brokers[0].client().await.stats().await.ready, 400 - refused.len() as u64);
}

/// A process that stops asks the producer to leave, and confirms what it has.
#[tokio::test]
async fn stopping_process_says_go_away_and_confirms() {
    let broker = Broker::start();
    let sidecar = sidecar_of(&broker).await;
    let (mut producer, _) = sidecar.client().await.produce("", false).await;
    producer.batch(1, bodies(0..5)).await;
    producer.confirmed(1).await;
    let stopped = tokio::spawn(sidecar.stop());
    assert!(matches!(producer.next().await, Frame::GoAway(_)));
    producer.batch(2, bodies(5..10)).await;
    assert_eq!(producer.confirmed(2).await, []);
    drop(producer.frames);
    assert_eq!(producer.responses.message().await.unwrap(), None);
    stopped.await.unwrap();
    assert_eq!(Client::connect(broker.address).await.stats().await.ready, 10);
}

/// A stream that breaks the protocol ends with the reason; what it sent before is stored.
#[tokio::test]
async fn broken_protocol_ends_the_stream() {
    let broker = Broker::start();
    let sidecar = sidecar_of(&broker).await;
    for address in [broker.address, sidecar.address] {
        let mut client = Client::connect(address).await;
        for messages in [bodies(0..1), bodies(0..1001), Vec::new()] {
            let (mut producer, _) = client.produce("", false).await;
            let seq = if messages.len() == 1 { 5 } else { 6 };
            producer.batch(5, bodies(0..1)).await;
            producer.confirmed(5).await;
            producer.batch(seq, messages).await;
            let status = producer.try_next().await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
        let (mut producer, _) = client.produce("", false).await;
        let too_large = Message { body: vec![0; 21 << 20].into(), ..Message::default() };
        producer.batch(1, vec![too_large]).await;
        assert_eq!(producer.try_next().await.unwrap_err().code(), Code::OutOfRange);
        drain(&mut client, 3).await;
    }
}
