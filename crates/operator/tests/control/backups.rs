//! Backups and restores: the pods that copy are played by the node.

use ackwell_api::{QueueTask, RestoreState, TaskState as Is};
use ackwell_proto::v1::Placement;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::node::{EMPTY_CLAIM, SLOW_CLAIM};
use crate::world::{World, until};

fn on(claim: &str) -> Value {
    json!({"claimName": claim, "path": "orders/1"})
}

fn backup(claim: &str) -> Value {
    json!({"queueName": "orders", "backup": on(claim)})
}

async fn settled(name: &str) -> World {
    let world = World::new(name, Faults::default()).await;
    world.change(&json!({"shards": 2, "storage": {"size": "1Gi"}})).await.unwrap();
    world.until_settled().await;
    world
}

async fn until_gone(world: &World, pod: &str) {
    until("the pod to go", async || match world.api::<Pod>().get_opt(pod).await.unwrap() {
        None => Ok(()),
        Some(pod) => Err(pod.metadata),
    })
    .await;
}

/// Promise: a backup says by its conditions how it ended and where it is, and by its numbers what is in it; it and its pod belong together.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn backup_tells_what_is_in_it() {
    let world = settled("backed-up").await;
    world.order("nightly", &backup("backups")).await.unwrap();
    let status = world.until_over("nightly").await;
    assert_eq!((status.state, status.processed, status.total), (Is::Succeeded, 3, 3));
    assert_eq!(status.shards.iter().map(|shard| shard.processed).collect::<Vec<_>>(), [1, 2]);
    assert!(status.conditions[0].message.contains("9 bytes in orders/1 of the claim backups"));
    let pod = world.api::<Pod>().get("ackwell-nightly-backup").await.unwrap();
    assert_eq!(pod.owner_references()[0].name, "nightly");
    let secret = world.api::<Secret>().get("ackwell-nightly-backup").await.unwrap();
    assert_eq!(secret.owner_references()[0].name, "nightly");
    world.api::<QueueTask>().delete("nightly", &DeleteParams::background()).await.unwrap();
    until_gone(&world, "ackwell-nightly-backup").await;
}

/// Promise: a backup that is cancelled, or deleted, takes its pod with it; one that needs a person ends with what it says.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn backup_ends_when_it_is_told_to() {
    let world = settled("cut-short").await;
    let pod = async |name: &str| {
        until("its pod", async || world.api::<Pod>().get(name).await.map_err(|error| error.to_string())).await
    };
    world.order("slow", &backup(SLOW_CLAIM)).await.unwrap();
    pod("ackwell-slow-backup").await;
    world.order("slow", &json!({"cancel": true})).await.unwrap();
    assert_eq!(world.until_over("slow").await.state, Is::Cancelled);
    until_gone(&world, "ackwell-slow-backup").await;
    world.order("dropped", &backup(SLOW_CLAIM)).await.unwrap();
    pod("ackwell-dropped-backup").await;
    world.api::<QueueTask>().delete("dropped", &DeleteParams::background()).await.unwrap();
    until_gone(&world, "ackwell-dropped-backup").await;
    world.order("stuck", &backup(EMPTY_CLAIM)).await.unwrap();
    let status = world.until_over("stuck").await;
    assert_eq!(status.state, Is::Failed);
    assert!(status.conditions[0].message.contains("there is none"));
}

/// Promise: a Queue whose backup cannot be restored is closed, says so, and opens by itself when it can; it is never one that says
/// that it is ready.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn queue_without_its_backup_stays_closed() {
    let world = World::new("closed", Faults::default()).await;
    let spec =
        json!({"shards": 2, "storage": {"size": "1Gi"}, "bootstrap": {"restoreFrom": on(EMPTY_CLAIM)}});
    world.change(&spec).await.unwrap();
    world.until_condition("Stalled", "True/RestoreFailed").await;
    assert_eq!(world.condition("Ready").await, "False/RestoreFailed");
    assert!(is_closed(&world).await);
    // More shards would be others than those that it is divided by.
    world.change(&json!({"shards": 3})).await.unwrap();
    world.order("early", &json!({"queueName": "orders", "redrive": {}})).await.unwrap();
    until("the task to wait", async || {
        let status = world.api::<QueueTask>().get("early").await.unwrap().status.unwrap_or_default();
        let waits = status.conditions.iter().any(|one| one.message.contains("being restored"));
        if waits && status.state == Is::Pending { Ok(()) } else { Err(status) }
    })
    .await;
    world.until_condition("Stalled", "True/RestoreFailed").await;
    assert!(is_closed(&world).await);
    assert!(world.api::<Pod>().get_opt("ackwell-orders-2").await.unwrap().is_none(), "it waits");

    // As if somebody had repaired the backup.
    let said = json!({"phase": "Succeeded", "containerStatuses": [{
        "name": "program", "ready": false, "image": "", "imageID": "", "restartCount": 0,
        "state": {"terminated": {"exitCode": 0, "message": r#"{"messages": 7}"#}},
    }]});
    until("its pod to succeed", async || {
        let patch = Patch::Merge(json!({"status": said}));
        let pods = world.api::<Pod>();
        let patched = pods.patch_status("ackwell-orders-restore", &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| error.to_string())?;
        let restore = world.queue().await.status.and_then(|status| status.restore);
        match restore {
            Some(restore) if restore.state == RestoreState::Done => Ok(restore),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.until_settled().await;
    assert!(!is_closed(&world).await);
    let restore = world.queue().await.status.unwrap().restore.unwrap();
    assert_eq!((restore.messages, restore.completion_time.is_some()), (Some(7), true));
    assert!(world.api::<Pod>().get_opt("ackwell-orders-2").await.unwrap().is_some(), "then it grows");
    assert_eq!(world.until_over("early").await.state, Is::Succeeded);
}

/// Promise: a backup is never restored over what an earlier Queue left, which may be another one or half of it: that is said, with what to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn kept_volumes_are_not_restored_over() {
    let world = settled("restored-over").await;
    world.delete().await;
    until_gone(&world, "ackwell-orders-0").await;
    until_gone(&world, "ackwell-orders-1").await;
    let spec = json!({"shards": 2, "storage": {"size": "1Gi"}, "bootstrap": {"restoreFrom": on("backups")}});
    world.change(&spec).await.unwrap();
    world.until_condition("Stalled", "True/RestoreFailed").await;
    let conditions = world.queue().await.status.unwrap().conditions;
    let stalled = conditions.iter().find(|one| one.type_ == "Stalled").unwrap();
    assert!(stalled.message.contains("make the Queue without spec.bootstrap"), "{stalled:?}");
    world.until_condition("Available", "True/MinimumShards").await;
    assert_eq!(config(&world).await["restoring"], true);
    assert!(
        world.api::<Pod>().get_opt("ackwell-orders-restore").await.unwrap().is_none(),
        "nothing is tried"
    );
}

/// Whether brokers that start now let nobody in.
async fn is_closed(world: &World) -> bool {
    let config = config(world).await;
    let placement: Option<Placement> = serde_json::from_value(config["placement"].clone()).unwrap();
    assert!(placement.is_some_and(|placement| placement.to >= 2));
    config["restoring"] == true
}

/// What brokers start with.
async fn config(world: &World) -> Value {
    let map = world.api::<ConfigMap>().get("ackwell-orders").await.unwrap();
    serde_json::from_str(&map.data.unwrap()["queue.json"]).unwrap()
}
