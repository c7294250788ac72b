//! Keys, ids and Commits over the shards of a queue.

use ackwell_proto::v1::{
    CancelRequest, CommitRequest, ExplainRequest, GetRequest, PauseRequest, PurgeRequest,
};

use super::*;

/// A key has one shard, whichever sidecar sends and however many keys a batch has; while that is away its messages wait
/// for it, and go nowhere else.
#[tokio::test]
async fn ordering_key_keeps_its_shard_and_its_order() {
    let mut brokers = Broker::start_all(2);
    let sidecars = [Sidecar::start(brokers[0].address).await, Sidecar::start(brokers[1].address).await];
    let keyed = |key: usize, body: String| Message {
        ordering_key: format!("k{key}"),
        body: body.into(),
        ..Message::default()
    };
    for round in 0..4 {
        if round == 2 {
            brokers[1].restart();
        }
        let messages: Vec<_> = (0..20).map(|key| keyed(key, round.to_string())).collect();
        let request = SendRequest { queue: QUEUE.to_owned(), messages, ..SendRequest::default() };
        let mut client = sidecars[round % 2].client().await;
        let sent = client.queues.send(request).await.unwrap().into_inner();
        assert!(sent.results.iter().all(|result| result.error.is_none()), "{sent:?}");
    }
    let mut client = sidecars[0].client().await;
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    let mut shards: HashMap<String, BTreeSet<u8>> = HashMap::new();
    while seen.values().map(Vec::len).sum::<usize>() < 80 {
        let deliveries = client.receive(50).await;
        for delivery in &deliveries {
            let key = delivery.message.as_ref().unwrap().ordering_key.clone();
            seen.entry(key.clone()).or_default().push(body(delivery));
            shards.entry(key).or_default().insert(delivery.receipt[2]);
        }
        settle(&mut client, acks(&deliveries)).await.unwrap();
    }
    seen.values().for_each(|bodies| assert_eq!(bodies[..], ["0", "1", "2", "3"]));
    assert!(shards.values().all(|shards| shards.len() == 1), "{shards:?}");
    assert_eq!(shards.values().flatten().collect::<BTreeSet<_>>().len(), 2, "20 keys over 2 shards");
}

/// People name a message, not its shard: whichever has it answers, and what is for all shards reaches all.
#[tokio::test]
async fn messages_of_all_shards_are_found_and_counted() {
    let brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    let queue = || QUEUE.to_owned();
    let keyed = |key: usize| Message { ordering_key: format!("k{key}"), ..Message::default() };
    let request =
        SendRequest { queue: queue(), messages: (0..20).map(keyed).collect(), ..SendRequest::default() };
    let sent = client.queues.send(request).await.unwrap().into_inner().results;
    let ids: Vec<String> = sent.into_iter().map(|result| result.id).collect();
    for id in &ids {
        let got = client.admin.get(GetRequest { queue: queue(), id: id.clone() }).await.unwrap().into_inner();
        assert_eq!(&got.message.unwrap().id, id);
        client.admin.explain(ExplainRequest { queue: queue(), id: id.clone() }).await.unwrap();
    }
    let cancel = CancelRequest { queue: queue(), ids: ids[..10].to_vec() };
    let cancelled = client.admin.cancel(cancel).await.unwrap().into_inner().results;
    assert!(cancelled.len() == 10 && cancelled.iter().all(|result| result.error.is_none()), "{cancelled:?}");
    let gone = client.admin.get(GetRequest { queue: queue(), id: ids[0].clone() }).await.unwrap_err();
    assert_eq!(Failure::from_status(&gone).unwrap().reason, Reason::MessageNotFound);

    client.admin.pause(PauseRequest { queue: queue(), paused: true }).await.unwrap();
    for broker in &brokers {
        assert!(broker.client().await.stats().await.paused);
    }
    let purge = |max_messages| PurgeRequest { queue: queue(), max_messages, ..PurgeRequest::default() };
    let some = client.admin.purge(purge(7)).await.unwrap().into_inner();
    let rest = client.admin.purge(purge(0)).await.unwrap().into_inner();
    assert_eq!((some.purged, rest.purged, client.stats().await.ready), (7, 3, 0));
}

fn commit_of(deliveries: &[&Delivery], messages: Vec<Message>) -> CommitRequest {
    let settle = SettleRequest { queue: QUEUE.to_owned(), settlements: acks(deliveries.iter().copied()) };
    let send = SendRequest { queue: QUEUE.to_owned(), messages, ..SendRequest::default() };
    CommitRequest { settle: vec![settle], send: vec![send], ..CommitRequest::default() }
}

/// What cannot be one step is refused before anything is done; what is sent along goes where the receipts are.
#[tokio::test]
async fn commit_stays_on_one_shard() {
    let brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    let keyed = |key: usize| Message { ordering_key: format!("k{key}"), ..Message::default() };
    let request = SendRequest {
        queue: QUEUE.to_owned(),
        messages: (0..20).map(keyed).collect(),
        ..SendRequest::default()
    };
    client.queues.send(request).await.unwrap();
    let mut deliveries = Vec::new();
    while deliveries.len() < 20 {
        deliveries.extend(client.receive(20).await);
    }
    let shard_of = |delivery: &Delivery| delivery.receipt[2];
    let key_of = |delivery: &Delivery| delivery.message.as_ref().unwrap().ordering_key.clone();
    let first = &deliveries[0];
    let other = deliveries.iter().find(|delivery| shard_of(delivery) != shard_of(first)).unwrap();
    let foreign = Message { ordering_key: key_of(other), ..Message::default() };
    for request in [commit_of(&[first, other], Vec::new()), commit_of(&[first], vec![foreign])] {
        let refused = client.queues.commit(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(Failure::from_status(&refused).unwrap().reason, Reason::CrossShard);
    }
    assert_eq!(client.stats().await.in_flight, 20);
    let own = Message { ordering_key: key_of(first), ..Message::default() };
    for _ in 0..5 {
        let free = Message::default();
        let done = client.queues.commit(commit_of(&[], vec![free, own.clone()])).await.unwrap();
        assert_eq!(done.into_inner().sent[0].results.len(), 2);
    }
    client.queues.commit(commit_of(&[first], vec![Message::default(), own])).await.unwrap();
    let broker = &brokers[usize::from(shard_of(first))];
    assert_eq!(broker.client().await.stats().await.ready, 12);
}

/// An application may settle what its stream delivered by calls of their own: its window has room again.
#[tokio::test]
async fn settling_beside_the_stream_makes_room_in_its_window() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    for body in ["a", "b", "c"] {
        client.send(body).await.unwrap();
    }
    let mut consumer = client.consume(1, Vec::new()).await;
    let first = consumer.next_deliveries().await;
    settle(&mut client, acks(&first)).await.unwrap();
    let second = consumer.next_deliveries().await;
    client.queues.commit(commit_of(&[&second[0]], Vec::new())).await.unwrap();
    let third = consumer.next_deliveries().await;
    assert_eq!([&first, &second, &third].map(|one| body(&one[0])), ["a", "b", "c"]);
}

/// Promise: a window is for whatever shard has messages; none of it is kept for one that has none.
#[tokio::test]
async fn window_is_filled_from_the_one_shard_that_has_messages() {
    let brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    for busy in &brokers {
        let mut direct = busy.client().await;
        let mut consumer = sidecar.client().await.consume(2, Vec::new()).await;
        let mut held = BTreeSet::new();
        for text in ["a", "b", "c"] {
            direct.send(text).await.unwrap();
        }
        while held.len() < 2 {
            held.extend(consumer.next_deliveries().await.iter().map(body));
        }
        assert_eq!(direct.stats().await.ready, 1, "no more than the window");
        drop(consumer);
        while direct.stats().await.ready < 3 {
            tokio::task::yield_now().await;
        }
        let all = direct.receive(3).await;
        settle(&mut direct, acks(&all)).await.unwrap();
    }
}

/// Promise: a consumer without room does not keep the message of another shard from a consumer that has some, whatever the
/// first one does with what it holds.
#[tokio::test]
async fn full_consumer_passes_on_what_it_has_no_room_for() {
    let brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut full = sidecar.client().await.consume(1, Vec::new()).await;
    let mut directs = [brokers[0].client().await, brokers[1].client().await];
    directs[0].send("first").await.unwrap();
    assert_eq!(body(&full.next_deliveries().await[0]), "first");
    directs[1].send("second").await.unwrap();
    while directs[1].stats().await.in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let mut free = sidecar.client().await.consume(1, Vec::new()).await;
    let second = free.next_deliveries().await;
    assert_eq!((body(&second[0]), attempts(&second[0])), ("second".to_owned(), 0));
}
