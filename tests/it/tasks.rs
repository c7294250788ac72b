//! Tasks, as the operator has them done: once, whatever dies.

use std::collections::BTreeMap;
use std::time::Duration;

use ackwell_proto::timestamp;
use ackwell_proto::v1::run_task_request::Work;
use ackwell_proto::v1::{
    PurgeWork, QueueSettings, RedriveWork, RunTaskRequest, RunTaskResponse, State, TaskState,
};
use ackwell_tests::caller::{Caller, delivered, failure, message, reject};
use ackwell_tests::processes::{Broker, QUEUE, settings};
use ackwell_tests::wait::until_async;

/// Enough for several calls, at a rate.
const MESSAGES: usize = 1200;
const RATE: u64 = 300;
const LIMIT: Duration = Duration::from_mins(2);

fn redrive(uid: &str, max_per_second: u64) -> RunTaskRequest {
    RunTaskRequest {
        queue: QUEUE.to_owned(),
        uid: uid.to_owned(),
        created: Some(timestamp(1_764_000_000_000)),
        max_per_second,
        work: Some(Work::Redrive(RedriveWork {})),
        begun: true,
        ..RunTaskRequest::default()
    }
}

/// As the operator asks first: nothing is done yet.
async fn begin(caller: &Caller, request: &RunTaskRequest) -> RunTaskResponse {
    let told = run(caller, RunTaskRequest { begun: false, ..request.clone() }).await;
    assert_eq!(told.processed, 0);
    told
}

async fn run(caller: &Caller, request: RunTaskRequest) -> RunTaskResponse {
    caller.shard.clone().run_task(request).await.unwrap().into_inner()
}

/// Gives up on whatever is there, and counts it.
async fn reject_all(caller: &Caller, seen: &mut BTreeMap<String, usize>) {
    loop {
        let deliveries = caller.receive(1000, Duration::ZERO).await.unwrap();
        if deliveries.is_empty() {
            return;
        }
        for delivery in &deliveries {
            *seen.entry(delivered(delivery).id.clone()).or_default() += 1;
        }
        let results = caller.settle(deliveries.iter().map(reject).collect()).await.unwrap();
        assert!(results.iter().all(|result| result.error.is_none()));
    }
}

async fn dead(caller: &Caller, count: usize) {
    for _ in 0..count.div_ceil(1000) {
        let some = (0..count.min(1000)).map(|n| message(n.to_string())).collect();
        caller.send(some).await.unwrap();
    }
    reject_all(caller, &mut BTreeMap::new()).await;
}

/// Promise: each message that was Dead when the task began is redriven once: not again when it dies again, not again by an operator that
/// repeats its calls, and not again after the broker was killed.
#[tokio::test]
async fn redrive_is_done_once_though_the_broker_is_killed() {
    let mut broker = Broker::start(QueueSettings { max_attempts: 1, ..settings() });
    let mut caller = broker.caller().await;
    dead(&caller, MESSAGES).await;
    let all = caller.stats().await.dead;
    let (mut seen, mut killed) = (BTreeMap::new(), 0);
    begin(&caller, &redrive("t1", RATE)).await;
    until_async("the task to be over", LIMIT, async || {
        let told = run(&caller, redrive("t1", RATE)).await;
        assert_eq!(told.total, all);
        // As an operator does that did not hear the answer.
        assert!(run(&caller, redrive("t1", RATE)).await.processed >= told.processed);
        reject_all(&caller, &mut seen).await;
        if told.processed >= (killed + 1) * RATE && killed < 2 {
            killed += 1;
            broker.kill();
            broker.restart();
            caller = broker.caller().await;
        }
        anyhow::ensure!(told.state() == TaskState::Over, "{told:?}");
        Ok(())
    })
    .await;
    assert_eq!(killed, 2);
    let told = run(&caller, redrive("t1", RATE)).await;
    assert_eq!((told.state(), told.processed), (TaskState::Over, all));
    reject_all(&caller, &mut seen).await;
    assert_eq!(seen.len() as u64, all);
    assert!(seen.values().all(|times| *times == 1), "one was redriven twice");
    assert_eq!(caller.stats().await.dead, all);
}

/// Promise: a purge takes what was there when it began, and nothing that came later, though it is repeated for ever.
#[tokio::test]
async fn purge_takes_nothing_that_came_later() {
    let mut broker = Broker::start(settings());
    let mut caller = broker.caller().await;
    let states = vec![State::Ready.into()];
    let purge = RunTaskRequest { work: Some(Work::Purge(PurgeWork { states })), ..redrive("t1", 3) };
    caller.send((0..5).map(|n| message(n.to_string())).collect()).await.unwrap();
    let held = caller.receive_one().await;
    assert_eq!(begin(&caller, &purge).await.total, 4);
    until_async("a part to be done", LIMIT, async || {
        let told = run(&caller, purge.clone()).await;
        anyhow::ensure!((told.state(), told.processed) == (TaskState::Waiting, 3), "{told:?}");
        Ok(())
    })
    .await;
    caller.send_body("later").await;
    broker.kill();
    broker.restart();
    caller = broker.caller().await;
    until_async("the task to be over", LIMIT, async || {
        let told = run(&caller, purge.clone()).await;
        anyhow::ensure!((told.state(), told.processed) == (TaskState::Over, 4), "{told:?}");
        Ok(())
    })
    .await;
    run(&caller, purge).await;
    let left: Vec<_> = caller.peek(&[]).await.into_iter().map(|message| message.id).collect();
    assert_eq!((left.len(), &left[0]), (2, &delivered(&held).id));
    assert_eq!(
        acts(&broker),
        [(0, 0, false), (3, 3, false), (1, 4, true)],
        "the end of the repetition is no act"
    );
}

/// What the log says of tasks: changed now, processed in all, over.
fn acts(broker: &Broker) -> Vec<(u64, u64, bool)> {
    let log = broker.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let acts = lines.filter(|line| line["message"] == "audit" && line["act"] == "task");
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    acts.map(|act| (number(&act["changed"]), number(&act["processed"]), act["over"] == true)).collect()
}

/// Promise: a broker that comes back with an empty volume in the middle of a task does not begin it anew.
#[tokio::test]
async fn task_of_which_the_record_is_lost_is_forgotten() {
    let mut broker = Broker::start(QueueSettings { max_attempts: 1, ..settings() });
    let caller = broker.caller().await;
    dead(&caller, 2).await;
    assert_eq!(begin(&caller, &redrive("t1", 0)).await.total, 2);
    broker.kill();
    std::fs::remove_dir_all(broker.data()).unwrap();
    broker.restart();
    let caller = broker.caller().await;
    dead(&caller, 3).await;
    assert_eq!(run(&caller, redrive("t1", 0)).await.state(), TaskState::Forgotten);
    assert_eq!(caller.stats().await.dead, 3);
}

/// Promise: what the operator must not ask is refused, with what to do; what is forgotten is never begun again.
#[tokio::test]
async fn senseless_and_forgotten_tasks_do_nothing() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    dead(&caller, 3).await;
    let senseless = RunTaskRequest { work: None, ..redrive("t1", 0) };
    let refused = caller.shard.clone().run_task(senseless).await.unwrap_err();
    assert!(failure(&refused).to_string().contains("work is missing"), "{refused:?}");
    for number in 0..66_u64 {
        let one = RunTaskRequest {
            created: Some(timestamp(1_764_000_000_000 + number)),
            cancel: true,
            begun: false,
            ..redrive("ended", 0)
        };
        assert_eq!(run(&caller, one).await.state(), TaskState::Over);
    }
    assert_eq!(begin(&caller, &redrive("ended", 0)).await.state(), TaskState::Forgotten);
    assert_eq!(caller.stats().await.dead, 3);
}
