//! `QueueTasks`: the shards that do them are played; and their rules, put to the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ackwell_api::names::PAUSED_ANNOTATION;
use ackwell_api::{QueueTask, ShardTaskState, TaskState as Is};
use ackwell_proto::v1::run_task_request::Work;
use ackwell_proto::v1::{RunTaskRequest, RunTaskResponse, TaskState};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::world::{World, until};

/// Messages that a task finds in a shard.
const FOUND: u64 = 5;
/// Of these in one call.
const PART: u64 = 2;
/// What tasks with a bound may do: more than there is in one shard, less than in two.
pub(crate) const MAX: u64 = 7;
/// A task that waits for its turn is not looked at so soon, unless it is woken.
const UNPROMPTED_S: i64 = 15;
/// Begins the names of namespaces in which nothing is ever done.
const STUCK: &str = "stuck";

/// What was ordered first, and how much of it is done.
struct Record {
    order: (Option<Work>, Option<prost_types::Timestamp>, u64),
    done: u64,
    is_over: bool,
}

/// By namespace and uid, and by what is left of the bound: so that shards with different ones are told apart.
static RECORDS: Mutex<BTreeMap<(String, String, u64), Record>> = Mutex::new(BTreeMap::new());

fn records() -> MutexGuard<'static, BTreeMap<(String, String, u64), Record>> {
    RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a task, as a shard does it.
pub(crate) fn work_on(request: &RunTaskRequest) -> RunTaskResponse {
    let namespace = request.queue.split('/').next().unwrap_or_default().to_owned();
    let part = if namespace.starts_with(STUCK) { 0 } else { PART };
    let max = if request.max_messages == 0 { FOUND } else { FOUND.min(request.max_messages) };
    let order = (request.work.clone(), request.created, request.max_per_second);
    let mut records = records();
    let key = (namespace, request.uid.clone(), request.max_messages);
    assert!(!request.begun || records.contains_key(&key), "what a shard was not asked has not begun there");
    let record =
        records.entry(key).or_insert_with(|| Record { order: order.clone(), done: 0, is_over: false });
    assert_eq!(record.order, order, "a task is ordered once");
    record.is_over |= request.cancel;
    if request.begun && !record.is_over {
        record.done = (record.done + part).min(max);
        record.is_over = record.done == max;
    }
    let state = if record.is_over { TaskState::Over } else { TaskState::Running };
    RunTaskResponse { state: state.into(), total: max, processed: record.done, failed: 0 }
}

/// Shards were told what is left of a bound, and always the same.
pub(crate) fn assert_once(namespace: &str) {
    let mut bounds: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (of, uid, bound) in records().keys() {
        if of == namespace {
            bounds.entry(uid.clone()).or_default().insert(*bound);
        }
    }
    for bounds in bounds.into_values() {
        let is_right = bounds == [0].into() || bounds == [MAX, MAX - FOUND].into();
        assert!(is_right, "{namespace}: {bounds:?}");
    }
}

async fn world(name: &str, spec: Value) -> World {
    let world = World::new(name, Faults::default()).await;
    world.change(&spec).await.unwrap();
    world.until_settled().await;
    world
}

fn redrive() -> Value {
    json!({"queueName": "orders", "redrive": {}})
}

async fn task(world: &World, name: &str) -> QueueTask {
    world.api::<QueueTask>().get(name).await.unwrap()
}

/// `Status/Reason` of a condition.
fn condition(task: &QueueTask, type_: &str) -> String {
    let conditions = task.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|one| one.type_ == type_);
    found.map_or_else(String::new, |one| format!("{}/{}", one.status, one.reason))
}

/// Promise: who waits for a task learns by its conditions how it ended, and people by its numbers and events what it did.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn task_tells_how_far_it_is_and_how_it_ended() {
    let world = world("told", json!({"shards": 2, "storage": {"size": "1Gi"}})).await;
    world.order("all", &redrive()).await.unwrap();
    let status = world.until_over("all").await;
    assert_eq!((status.state, status.processed, status.total, status.failed), (Is::Succeeded, 10, 10, 0));
    assert!(status.start_time.is_some() && status.completion_time >= status.start_time);
    let shards: Vec<_> = status.shards.iter().map(|shard| (shard.ordinal, shard.state)).collect();
    assert_eq!(shards, [(0, ShardTaskState::Done), (1, ShardTaskState::Done)]);
    let done = task(&world, "all").await;
    for (type_, is) in
        [("Complete", "True"), ("Failed", "False"), ("Reconciling", "False"), ("Stalled", "False")]
    {
        assert_eq!(condition(&done, type_), format!("{is}/Done"), "{type_}");
    }
    assert_eq!(done.owner_references()[0].name, "orders", "it goes with its Queue");
    until("both events", async || {
        let about = ListParams::default().fields("involvedObject.kind=QueueTask");
        let events = world.api::<Event>().list(&about).await.unwrap();
        let reasons: BTreeSet<_> = events.items.into_iter().filter_map(|event| event.reason).collect();
        if reasons == ["TaskStarted".to_owned(), "TaskSucceeded".to_owned()].into() {
            Ok(())
        } else {
            Err(reasons)
        }
    })
    .await;

    let selected = ListParams::default().fields("spec.queueName=orders");
    assert_eq!(world.api::<QueueTask>().list(&selected).await.unwrap().items.len(), 1);
    let others = ListParams::default().fields("spec.queueName=logs");
    assert!(world.api::<QueueTask>().list(&others).await.unwrap().items.is_empty());
}

/// Promise: without its Queue a task is refused for good, and says so; nothing waits for what may never come.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn task_without_a_queue_is_rejected() {
    let world = World::new("rejected", Faults::default()).await;
    world.order("early", &redrive()).await.unwrap();
    let status = world.until_over("early").await;
    assert_eq!((status.state, status.processed), (Is::Rejected, 0));
    let rejected = task(&world, "early").await;
    assert_eq!(condition(&rejected, "Failed"), "True/QueueMissing");
    assert_eq!(condition(&rejected, "Stalled"), "True/QueueMissing");
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_settled().await;
    assert_eq!(task(&world, "early").await.status.unwrap().state, Is::Rejected);
}

/// Promise: a task ends when it is told to, wherever it is; the next one comes only then; and all go with their Queue.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn task_is_cancelled_and_others_wait_for_it() {
    let world = world(STUCK, json!({"storage": {"size": "1Gi"}})).await;
    world.order("first", &redrive()).await.unwrap();
    until("the first to begin", async || {
        let first = task(&world, "first").await.status.unwrap_or_default();
        if first.state == Is::Running && first.total == 5 { Ok(()) } else { Err(first) }
    })
    .await;
    let age = |task: &QueueTask| task.metadata.creation_timestamp.clone();
    let first = age(&task(&world, "first").await);
    until("a later second, as ages are whole ones", async || {
        let second = world.order("second", &redrive()).await.unwrap();
        if age(&second) > first {
            return Ok(());
        }
        world.api::<QueueTask>().delete("second", &DeleteParams::default()).await.unwrap();
        Err(age(&second))
    })
    .await;
    for name in ["second", "third"] {
        world.order(name, &redrive()).await.unwrap();
        until("it to wait", async || {
            let waits = task(&world, name).await;
            let is = condition(&waits, "Reconciling");
            if is == "True/Waiting" { Ok(()) } else { Err(is) }
        })
        .await;
    }
    for (name, was) in [("second", Is::Pending), ("first", Is::Running)] {
        assert_eq!(task(&world, name).await.status.unwrap().state, was);
        world.order(name, &json!({"cancel": true})).await.unwrap();
        assert_eq!(world.until_over(name).await.state, Is::Cancelled);
        assert_eq!(condition(&task(&world, name).await, "Failed"), "True/Cancelled");
    }
    let next = until("the third to begin", async || {
        let third = task(&world, "third").await.status.unwrap_or_default();
        if third.state == Is::Running { Ok(third) } else { Err(third) }
    })
    .await;
    let over = task(&world, "first").await.status.unwrap().completion_time.unwrap();
    let waited = next.start_time.unwrap().0.as_second() - over.0.as_second();
    assert!(waited < UNPROMPTED_S, "the end of the one before wakes it: {waited} s");
    world.delete().await;
    until("all tasks to go", async || {
        let left = world.api::<QueueTask>().list(&ListParams::default()).await.unwrap().items;
        if left.is_empty() { Ok(()) } else { Err(left.len()) }
    })
    .await;
}

/// Promise: nothing is begun while a Queue is paused or suspended; it goes on by itself afterwards.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn task_waits_for_a_queue_that_stands_still() {
    let world = world("still", json!({"storage": {"size": "1Gi"}})).await;
    world.annotate(PAUSED_ANNOTATION, Some("true")).await;
    world.until_condition("Reconciling", "False/Paused").await;
    world.order("all", &redrive()).await.unwrap();
    let says = async |word: &str| {
        until(&format!("it to wait: {word}"), async || {
            let status = task(&world, "all").await.status.unwrap_or_default();
            let said = status.conditions.iter().any(|one| one.message.contains(word));
            if said && status.state == Is::Pending { Ok(()) } else { Err(status) }
        })
        .await;
    };
    says("is paused").await;
    // While it is paused, so that there is no moment in which it may begin.
    world.change(&json!({"suspend": true})).await.unwrap();
    world.annotate(PAUSED_ANNOTATION, None).await;
    says("is suspended").await;
    world.change(&json!({"suspend": false})).await.unwrap();
    assert_eq!(world.until_over("all").await.state, Is::Succeeded);
}

/// Promise: the API server refuses what cannot be meant, and what would make another task of one that may have begun; and nothing
/// else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn every_rule_of_tasks_refuses_what_it_is_for() {
    let mut world = World::new("task-rules", Faults::default()).await;
    world.kill_operator();
    let cases: Value = serde_json::from_str(include_str!("../../../api/tests/tasks.json")).unwrap();
    let cases_of = |list: &str| cases[list].as_array().unwrap().clone();
    let gone =
        async || world.api::<QueueTask>().delete("a", &DeleteParams::default()).await.map(drop).unwrap();
    for case in cases_of("accepted") {
        world.order("a", &case["spec"]).await.unwrap_or_else(|error| panic!("{}: {error}", case["because"]));
        gone().await;
    }
    for case in cases_of("refused") {
        let refused =
            world.order("a", &case["spec"]).await.expect_err(&case["because"].to_string()).to_string();
        assert!(refused.contains(case["message"].as_str().unwrap()), "{}: {refused}", case["because"]);
    }
    for case in cases_of("acceptedChanges") {
        world.order("a", &case["from"]).await.unwrap();
        world.order("a", &case["to"]).await.unwrap_or_else(|error| panic!("{}: {error}", case["because"]));
        gone().await;
    }
    for case in cases_of("refusedChanges") {
        world.order("a", &case["from"]).await.unwrap();
        let refused =
            world.order("a", &case["to"]).await.expect_err(&case["because"].to_string()).to_string();
        assert!(refused.contains(case["message"].as_str().unwrap()), "{}: {refused}", case["because"]);
        gone().await;
    }
}
