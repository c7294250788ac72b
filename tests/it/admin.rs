//! What people do with messages, on a broker and through a sidecar.

use std::time::Duration;

use ackwell_proto::v1::{
    CancelRequest, ExplainRequest, Filter, GetRequest, Message, PauseRequest, PurgeRequest, State,
};
use ackwell_proto::{Reason, duration};
use ackwell_tests::caller::{Caller, ack, failure, message, reject};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};
use tonic::{Code, Status};

const NOBODY: &str = "0199d3a8-0000-7000-8000-000000000001";

async fn codes(caller: &Caller, id: &str) -> Vec<String> {
    let request = ExplainRequest { queue: QUEUE.to_owned(), id: id.to_owned() };
    let explained = caller.admin.clone().explain(request).await.unwrap().into_inner();
    explained.reasons.into_iter().map(|reason| reason.code).collect()
}

async fn cancel(caller: &Caller, ids: &[&str]) -> Result<Vec<Option<String>>, Status> {
    let ids = ids.iter().map(ToString::to_string).collect();
    let answer = caller.admin.clone().cancel(CancelRequest { queue: QUEUE.to_owned(), ids }).await?;
    Ok(answer.into_inner().results.into_iter().map(|result| result.error.map(|error| error.reason)).collect())
}

async fn purge(
    caller: &Caller,
    filter: Filter,
    dry_run: bool,
    max_messages: u64,
) -> Result<(u64, u64), Status> {
    let request = PurgeRequest { queue: QUEUE.to_owned(), filter: Some(filter), dry_run, max_messages };
    let answer = caller.admin.clone().purge(request).await?.into_inner();
    Ok((answer.matched, answer.purged))
}

async fn pause(caller: &Caller, paused: bool) {
    caller.admin.clone().pause(PauseRequest { queue: QUEUE.to_owned(), paused }).await.unwrap();
}

/// Both ways to a broker of its own.
async fn both(broker: &Broker, sidecar: &Sidecar) -> [Caller; 2] {
    [broker.caller().await, sidecar.caller().await]
}

/// Promise: a message is found by its id while it is there, whole, and said to be gone after.
#[tokio::test]
async fn message_is_got_by_id_until_it_is_gone() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in both(&broker, &sidecar).await {
        let id = caller.send_body(vec![b'x'; 100_000]).await;
        let get = async |id: &str| {
            caller.admin.clone().get(GetRequest { queue: QUEUE.to_owned(), id: id.to_owned() }).await
        };
        let got = get(&id).await.unwrap().into_inner().message.unwrap();
        assert_eq!((got.id.as_str(), got.body.len(), got.state()), (id.as_str(), 100_000, State::Ready));
        let delivery = caller.receive_one().await;
        caller.settle_one(ack(&delivery)).await.unwrap();
        for id in [id.as_str(), NOBODY] {
            let gone = get(id).await.unwrap_err();
            assert_eq!((gone.code(), failure(&gone).reason), (Code::NotFound, Reason::MessageNotFound));
        }
        assert_eq!(failure(&get("not-an-id").await.unwrap_err()).reason, Reason::InvalidArgument);
    }
}

/// Promise: whoever asks why a message does not come is told, in the order in which to act.
#[tokio::test]
async fn explain_names_what_is_in_the_way() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in both(&broker, &sidecar).await {
        let keyed = || Message { ordering_key: "k".to_owned(), ..message("x") };
        let held = caller.send_one(keyed()).await;
        let delivery = caller.receive_one().await;
        let behind = caller.send_one(keyed()).await;
        let delayed = Message {
            available: Some(ackwell_proto::v1::message::Available::Delay(duration(3_600_000))),
            ..message("later")
        };
        let delayed = caller.send_one(delayed).await;
        assert_eq!(codes(&caller, &held).await, ["HELD"]);
        assert_eq!(codes(&caller, &behind).await[0], "BEHIND_KEY");
        assert_eq!(codes(&caller, &delayed).await, ["DELAYED", "NO_CONSUMER"]);
        pause(&caller, true).await;
        let paused = codes(&caller, &behind).await;
        assert_eq!(paused[..2], ["PAUSED", "BEHIND_KEY"]);
        assert_eq!(paused.last().unwrap(), "NO_CONSUMER");
        pause(&caller, false).await;
        caller.settle_one(reject(&delivery)).await.unwrap();
        assert_eq!(codes(&caller, &held).await, ["DEAD"]);
        assert_eq!(codes(&caller, &behind).await, ["NO_CONSUMER"], "a dead head frees its key");
        assert_eq!(purge(&caller, Filter::default(), false, 0).await.unwrap(), (3, 3));
    }
}

/// Promise: a paused queue takes and settles, hands out nothing, survives a restart as it is, and goes on when told.
#[tokio::test]
async fn paused_queue_hands_out_nothing_until_resumed() {
    let mut broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    caller.send_body("1").await;
    let delivery = caller.receive_one().await;
    pause(&caller, true).await;
    caller.send_body("2").await;
    caller.settle_one(ack(&delivery)).await.unwrap();
    assert!(caller.is_empty().await);
    broker.kill();
    broker.restart();
    assert!(caller.stats().await.paused && caller.is_empty().await);
    let waiting = tokio::spawn({
        let caller = caller.clone();
        async move { caller.receive_one().await }
    });
    let has_waiter = async || {
        let stats = caller.stats().await;
        anyhow::ensure!(stats.consumers == 1, "{stats:?}");
        Ok(())
    };
    ackwell_tests::wait::until_async("a consumer to wait", Duration::from_secs(20), has_waiter).await;
    pause(&caller, false).await;
    waiting.await.unwrap();
    assert!(!caller.stats().await.paused);
}

/// Promise: purge removes what its filter names, up to its maximum, and never what a consumer holds.
#[tokio::test]
async fn purge_removes_what_its_filter_names() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in both(&broker, &sidecar).await {
        let of = |tenant: &str| Message { fairness_key: tenant.to_owned(), ..message("x") };
        caller.send(vec![of("a"), of("a"), of("a"), of("b")]).await.unwrap();
        let held = caller.receive_one().await;
        let acme = || Filter { fairness_key: "a".to_owned(), ..Filter::default() };
        let before = caller.stats().await.ready;
        let (matched, purged) = purge(&caller, acme(), true, 0).await.unwrap();
        assert_eq!((purged, caller.stats().await.ready), (0, before), "a dry run changes nothing");
        assert_eq!(purge(&caller, acme(), false, 1).await.unwrap(), (1, 1));
        assert_eq!(purge(&caller, acme(), false, 0).await.unwrap(), (matched - 1, matched - 1));
        let in_flight = Filter { states: vec![State::InFlight.into()], ..Filter::default() };
        let refused = purge(&caller, in_flight, false, 0).await.unwrap_err();
        assert_eq!(failure(&refused).reason, Reason::InvalidArgument);
        purge(&caller, Filter::default(), false, 0).await.unwrap();
        let left = caller.stats().await;
        assert_eq!((left.ready, left.in_flight), (0, 1));
        caller.settle_one(ack(&held)).await.unwrap();
    }
}

/// Promise: a message that is not wanted any more is gone; of several, each has its answer.
#[tokio::test]
async fn cancelled_messages_are_gone_and_held_ones_stay() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in both(&broker, &sidecar).await {
        let held = caller.send_body("held").await;
        let delivery = caller.receive_one().await;
        let unwanted = caller.send_body("unwanted").await;
        let answers = cancel(&caller, &[&held, &unwanted, NOBODY, "x"]).await.unwrap();
        let expected = [Some("MESSAGE_IN_FLIGHT"), None, Some("MESSAGE_NOT_FOUND"), Some("INVALID_ARGUMENT")];
        assert_eq!(answers.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        let again = cancel(&caller, &[&unwanted]).await.unwrap_err();
        assert_eq!((again.code(), failure(&again).reason), (Code::NotFound, Reason::MessageNotFound));
        caller.settle_one(ack(&delivery)).await.unwrap();
        assert_eq!(caller.stats().await.ready, 0);
    }
}
