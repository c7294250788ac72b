//! Commit: settling and sending in one step, on a broker and through a sidecar.

use ackwell_proto::v1::{
    CommitRequest, CommitResponse, Message, SendRequest, SettleRequest, Settlement, State,
};
use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, failure, message, nack, release};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};

fn request(request_id: &str, settlements: Vec<Settlement>, messages: Vec<Message>) -> CommitRequest {
    let settle = SettleRequest { queue: QUEUE.to_owned(), settlements };
    let send = SendRequest { queue: QUEUE.to_owned(), messages, ..SendRequest::default() };
    CommitRequest { request_id: request_id.to_owned(), settle: vec![settle], send: vec![send] }
}

async fn commit(caller: &Caller, request: CommitRequest) -> Result<CommitResponse, Failure> {
    let answer = caller.queues.clone().commit(request).await.map_err(|status| failure(&status))?;
    Ok(answer.into_inner())
}

/// Promise: the ack and what it leads to happen together, once, however often the call is repeated.
#[tokio::test]
async fn ack_and_send_happen_together_once() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for (caller, id) in [(broker.caller().await, "1"), (sidecar.caller().await, "2")] {
        caller.send_one(Message { ordering_key: "k".to_owned(), ..message("order") }).await;
        let order = caller.receive_one().await;
        let keyed = Message { ordering_key: "k".to_owned(), ..message("invoice") };
        let request = request(id, vec![ack(&order)], vec![keyed, message("notice")]);
        let answer = commit(&caller, request.clone()).await.unwrap();
        assert_eq!(answer.settled[0].results[0].state(), State::Unspecified);
        assert!(answer.sent[0].results.iter().all(|result| result.error.is_none() && !result.id.is_empty()));
        assert_eq!(commit(&caller, request).await.unwrap(), answer, "a repetition does nothing");
        let deliveries = [caller.receive_one().await, caller.receive_one().await];
        assert_eq!(deliveries.each_ref().map(|one| &delivered(one).body[..]), [&b"invoice"[..], b"notice"]);
        caller.settle(deliveries.iter().map(ack).collect()).await.unwrap();
        assert_eq!(caller.stats().await.bytes, 0);
    }
}

/// Promise: a step that cannot be done whole is not done at all, and the caller learns which item stood in the way.
#[tokio::test]
async fn refused_commit_changes_nothing_and_names_the_item() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in [broker.caller().await, sidecar.caller().await] {
        caller.send(vec![message("held"), message("settled")]).await.unwrap();
        let (held, settled) = (caller.receive_one().await, caller.receive_one().await);
        caller.settle_one(ack(&settled)).await.unwrap();
        let too_large = message(vec![0; (1 << 20) + 1]);
        let mut forged = held.clone();
        forged.receipt = forged.receipt.slice(..forged.receipt.len() - 1);
        let own_id = || {
            let mut request = request("", vec![ack(&held)], vec![message("x")]);
            request.send[0].request_id = "mine".to_owned();
            request
        };
        let held_and = |more| vec![release(&held), more];
        for (request, reason, item) in [
            (
                request("", held_and(ack(&settled)), vec![message("x")]),
                Reason::AlreadySettled,
                "settle[0].settlements[1]",
            ),
            (
                request("", held_and(ack(&forged)), vec![message("x")]),
                Reason::InvalidReceipt,
                "settle[0].settlements[1]",
            ),
            (
                request("", vec![ack(&held)], vec![message("x"), too_large]),
                Reason::MessageTooLarge,
                "send[0].messages[1]",
            ),
            (
                request("", vec![ack(&held)], vec![Message { priority: Some(10), ..message("x") }]),
                Reason::InvalidArgument,
                "send[0].messages[0]",
            ),
            (own_id(), Reason::InvalidArgument, "request_id"),
            (request("", Vec::new(), Vec::new()), Reason::InvalidArgument, "settlements and messages"),
        ] {
            let refused = commit(&caller, request).await.unwrap_err();
            assert_eq!(refused.reason, reason, "{refused}");
            assert!(refused.message.contains(item), "{refused}");
        }
        let stats = caller.stats().await;
        assert_eq!((stats.ready, stats.in_flight), (0, 1), "nothing of it was done");
        let alone = request("", vec![nack(&held, None)], Vec::new());
        assert_eq!(commit(&caller, alone).await.unwrap().settled[0].results[0].state(), State::Delayed);
        caller
            .admin
            .clone()
            .purge(ackwell_proto::v1::PurgeRequest { queue: QUEUE.to_owned(), ..Default::default() })
            .await
            .unwrap();
    }
}

/// Promise: a Commit is done once, whole, although the broker is killed around it.
#[tokio::test(flavor = "multi_thread")]
async fn commits_through_broker_kills_are_done_once() {
    let mut broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    caller.send_body("0").await;
    let chain = tokio::spawn({
        let caller = caller.clone();
        async move {
            for next in 1..200 {
                let delivery = caller.receive_one().await;
                assert_eq!(&delivered(&delivery).body[..], (next - 1).to_string().as_bytes());
                commit(&caller, request("", vec![ack(&delivery)], vec![message(next.to_string())]))
                    .await
                    .unwrap();
            }
        }
    });
    for _ in 0..3 {
        let before = broker.caller().await.stats().await.sent;
        let moved = async || {
            let sent = broker.caller().await.stats().await.sent;
            anyhow::ensure!(sent > before || chain.is_finished(), "still {before} sent");
            Ok(())
        };
        ackwell_tests::wait::until_async("commits to flow", std::time::Duration::from_secs(20), moved).await;
        broker.kill();
        broker.restart();
    }
    chain.await.unwrap();
    let left = caller.stats().await;
    assert_eq!((left.ready, left.in_flight, left.delayed, left.dead), (1, 0, 0, 0));
}
