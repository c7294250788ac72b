//! What is not a fault: growth that cannot be, hands off, and moments that nobody chose.

use std::future::ready;
use std::time::Duration;

use ackwell_api::names::{BROKER_CONTAINER, PAUSED_ANNOTATION, RESTARTED_ANNOTATION};
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::broker::SLOW;
use crate::faults::{Fault, Faults};
use crate::node::{LIMITED_CLASS, UNREADY};
use crate::world::{World, until};

/// Long enough for a visit, and shorter than it takes to hear of something late.
const BETWEEN_CHANGES: Duration = Duration::from_millis(700);

async fn world(name: &str, storage: serde_json::Value) -> World {
    let world = World::new(name, Faults::default()).await;
    world.change(&json!({"storage": storage})).await.unwrap();
    world.until_settled().await;
    world
}

async fn requested(world: &World) -> String {
    let claim = world.api::<PersistentVolumeClaim>().get("data-ackwell-orders-0").await.unwrap();
    claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
}

/// Promise: a class without expansion is said, everything serves on, and the size can be set back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn growth_that_the_class_refuses_is_stalled_and_taken_back() {
    let world = world("unsupported", json!({"size": "1Gi", "className": "fixed"})).await;
    world.change(&json!({"storage": {"size": "2Gi"}})).await.unwrap();
    world.until_condition("Stalled", "True/ExpansionUnsupported").await;
    world.until_condition("Ready", "True/AllShardsReady").await;
    assert_eq!(requested(&world).await, "1Gi");
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_condition("Stalled", "False/UpToDate").await;
}

/// Promise: what the storage cannot do is quoted; the size can be set to what is possible, and to what there was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn growth_that_is_infeasible_is_stalled_and_taken_back() {
    let world = world("infeasible", json!({"size": "1Gi", "className": LIMITED_CLASS})).await;
    let pods = world.uids::<Pod>().await;
    for (size, ends) in [("1Gi", "True/ExpansionAbandoned"), ("3Gi", "True/VolumesBound")] {
        world.change(&json!({"storage": {"size": "100Ti"}})).await.unwrap();
        world.until_condition("Stalled", "True/ExpansionInfeasible").await;
        world.until_condition("Ready", "True/AllShardsReady").await;
        let below = world.change(&json!({"storage": {"size": "512Mi"}})).await.unwrap_err().to_string();
        assert!(below.contains("storage.size cannot shrink below what all volumes have"), "{below}");
        world.change(&json!({"storage": {"size": size}})).await.unwrap();
        world.until_condition("StorageHealthy", ends).await;
        world.until_condition("Stalled", "False/UpToDate").await;
    }
    world.until_settled().await;
    assert_eq!(requested(&world).await, "3Gi");
    assert_eq!(world.queue().await.status.unwrap().storage.unwrap().floor.unwrap().0, "3Gi");
    assert_eq!(world.uids::<Pod>().await, pods);
}

/// Promise: asking for new pods replaces each broker once; making the set anew for a growth later replaces none.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn restart_replaces_each_broker_once() {
    let world = World::new("restart", Faults::default()).await;
    world.change(&json!({"shards": 2, "storage": {"size": "1Gi"}})).await.unwrap();
    world.until_settled().await;
    let before = world.uids::<Pod>().await;
    world.annotate(RESTARTED_ANNOTATION, Some("2026-01-01T00:00:00Z")).await;
    until("both brokers to be new", async || {
        let now = world.uids::<Pod>().await;
        let is_new = now.len() == 2 && now.iter().all(|(name, uid)| before.get(name) != Some(uid));
        if is_new { Ok(()) } else { Err(now) }
    })
    .await;
    world.until_settled().await;
    let after = world.uids::<Pod>().await;
    world.change(&json!({"storage": {"size": "2Gi"}})).await.unwrap();
    world.until_settled().await;
    assert_eq!(requested(&world).await, "2Gi");
    assert_eq!(world.uids::<Pod>().await, after);
}

/// Promise: the quota's own words reach the status.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn growth_that_a_quota_refuses_is_stalled_in_its_words() {
    let world = world("refused", json!({"size": "1Gi"})).await;
    let sizes = json!({"requests.storage": "1Gi"});
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": sizes}});
    let quotas = world.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    // No controller for quotas runs here.
    let used = Patch::Merge(json!({"status": {"hard": sizes, "used": sizes}}));
    quotas.patch_status("small", &PatchParams::default(), &used).await.unwrap();
    world.change(&json!({"storage": {"size": "2Gi"}})).await.unwrap();
    world.until_condition("Stalled", "True/ExpansionRefused").await;
    world.until_condition("Ready", "True/AllShardsReady").await;
    let stalled = world.queue().await.status.unwrap().conditions.swap_remove(2).message;
    assert!(stalled.contains("exceeded quota: small"), "{stalled}");
    quotas.delete("small", &DeleteParams::default()).await.unwrap();
    world.until_condition("Stalled", "False/UpToDate").await;
    world.until_settled().await;
    assert_eq!(requested(&world).await, "2Gi");
}

/// Promise: the same for a quota that refuses the pods, and the Queue goes on by itself when there is room.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn pods_that_a_quota_refuses_are_said_in_its_words() {
    let world = World::new("no-pods", Faults::default()).await;
    let none = json!({"pods": "0"});
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": none}});
    let quotas = world.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    // No controller for quotas runs here.
    let used = Patch::Merge(json!({"status": {"hard": none, "used": none}}));
    quotas.patch_status("none", &PatchParams::default(), &used).await.unwrap();
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_condition("Ready", "False/PodsRefused").await;
    let ready = world.queue().await.status.unwrap().conditions.swap_remove(0).message;
    assert!(ready.contains("exceeded quota: none"), "{ready}");
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    world.until_settled().await;
}

/// Promise: while it is paused, nothing that anybody changes is set right; afterwards all of it is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn paused_queue_is_left_alone() {
    let world = world("paused", json!({"size": "1Gi"})).await;
    world.annotate(PAUSED_ANNOTATION, Some("")).await;
    world.until_condition("Reconciling", "False/Paused").await;
    world
        .change(&json!({"shards": 2, "storage": {"size": "2Gi"}, "delivery": {"maxAttempts": 3}}))
        .await
        .unwrap();
    world.until_condition("Ready", "Unknown/Paused").await;
    let sets = world.api::<StatefulSet>();
    assert_eq!(sets.get("ackwell-orders").await.unwrap().spec.unwrap().replicas, Some(1));
    assert_eq!(requested(&world).await, "1Gi");
    world.annotate(PAUSED_ANNOTATION, None).await;
    world.until_settled().await;
    assert_eq!(sets.get("ackwell-orders").await.unwrap().spec.unwrap().replicas, Some(2));
    assert_eq!(requested(&world).await, "2Gi");
}

/// Promise: an application that does not get ready is said, and stands in the way of nothing that brokers do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn unready_application_holds_up_no_broker() {
    let world = World::new("unready", Faults::default()).await;
    let containers = json!([{"name": "worker", "image": "worker:1"}]);
    let template = json!({"metadata": {"labels": {UNREADY: "yes"}}, "spec": {"containers": containers}});
    world.change(&json!({"shards": 3, "storage": {"size": "1Gi"}, "template": template})).await.unwrap();
    world.until_condition("Ready", "False/ApplicationUnready").await;
    world.until_condition("Available", "True/MinimumShards").await;
    assert_eq!(world.queue().await.status.unwrap().ready_shards, 3);
    world.change(&json!({"shards": 1})).await.unwrap();
    until("one pod to be left", async || {
        let pods = world.uids::<Pod>().await;
        if pods.len() == 1 { Ok(()) } else { Err(pods) }
    })
    .await;
    world.change(&json!({"template": {"metadata": {"labels": {UNREADY: null}}}})).await.unwrap();
    world.until_settled().await;
    let service = world.api::<Service>().get("ackwell-orders").await.unwrap().spec.unwrap();
    assert_eq!(service.publish_not_ready_addresses, Some(true));
}

/// Promise: what is no pod is said in the status, with its place, and changes nothing of what runs; the rest of the Queue is
/// followed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn template_that_is_no_pod_is_stalled() {
    let world = world("no-pod", json!({"size": "1Gi"})).await;
    let pods = world.uids::<Pod>().await;
    for (container, told) in [
        (json!({"name": "worker", "imagee": "worker:1"}), "containers[0].imagee"),
        (json!({"name": "worker", "image": "worker:1", "ports": [{"containerPort": 99_999}]}), "99999"),
    ] {
        world.change(&json!({"template": {"spec": {"containers": [container]}}})).await.unwrap();
        until("the Queue to be stalled", async || {
            let queue = world.queue().await;
            let stalled = queue.status.clone().unwrap_or_default().conditions.swap_remove(2);
            let is_it = stalled.status == "True" && stalled.message.contains(told);
            if is_it { Ok(()) } else { Err(stalled) }
        })
        .await;
    }
    world.change(&json!({"storage": {"size": "2Gi"}, "shards": 2})).await.unwrap();
    until("a second pod and larger volumes", async || {
        let found = (world.uids::<Pod>().await.len(), requested(&world).await);
        if found == (2, "2Gi".to_owned()) { Ok(()) } else { Err(found) }
    })
    .await;
    let now = world.uids::<Pod>().await;
    assert_eq!(now.get("ackwell-orders-0"), pods.get("ackwell-orders-0"));
    world.change(&json!({"template": null})).await.unwrap();
    world.until_settled().await;
}

/// Promise: `kubectl scale` and autoscalers find shards and pods by the scale subresource.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn scale_subresource_tells_and_sets_shards() {
    let world = world("scale", json!({"size": "1Gi"})).await;
    let queues = world.api::<ackwell_api::Queue>();
    let scale = queues.get_scale("orders").await.unwrap();
    let status = scale.status.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, status.replicas), (Some(1), 1));
    let selector = ListParams::default().labels(&status.selector.unwrap());
    assert_eq!(world.api::<Pod>().list(&selector).await.unwrap().items.len(), 1);
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    queues.patch_scale("orders", &PatchParams::default(), &patch).await.unwrap();
    world.until_settled().await;
    assert_eq!(world.queue().await.status.unwrap().ready_shards, 2);
}

/// Promise: a Queue that is deleted in the moment in which its set is made anew leaves no pods behind.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn queue_that_is_deleted_while_its_set_is_made_anew_leaves_no_pods() {
    let mut world = world("window", json!({"size": "1Gi"})).await;
    world.kill_operator();
    world.api::<StatefulSet>().delete("ackwell-orders", &orphan()).await.unwrap();
    until("the set to go", async || {
        match world.api::<StatefulSet>().get_opt("ackwell-orders").await.unwrap() {
            None => Ok(()),
            Some(set) => Err(set.metadata),
        }
    })
    .await;
    world.delete().await;
    assert_eq!(world.uids::<Pod>().await.len(), 1, "the pod belongs to nobody");
    world.start_operator(Faults::default());
    until("the pod to go", async || {
        let pods = world.uids::<Pod>().await;
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    })
    .await;
    assert_eq!(world.uids::<PersistentVolumeClaim>().await.len(), 1, "its volume is kept");
}

/// Promise: whoever waits until everything is gone (`kubectl delete --cascade=foreground`) waits for nobody but garbage
/// collection: nothing is made again meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn queue_that_is_deleted_in_the_foreground_goes() {
    let world = world("foreground", json!({"size": "1Gi"})).await;
    delete_in_the_foreground(&world).await;
}

/// The same by an operator that hears of its set's end before it hears that the Queue is to go.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn queue_that_is_heard_of_late_goes() {
    let world = World::new("foreground-late", Faults::late("queues")).await;
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_settled().await;
    delete_in_the_foreground(&world).await;
}

async fn delete_in_the_foreground(world: &World) {
    let (queues, sets) = (world.api::<ackwell_api::Queue>(), world.api::<StatefulSet>());
    let since = sets.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    queues.delete("orders", &DeleteParams::foreground()).await.unwrap();
    until("the Queue to go", async || match queues.get_metadata_opt("orders").await.unwrap() {
        None => Ok(()),
        Some(queue) => Err(queue.metadata),
    })
    .await;
    // The set's controller may make a pod in the moment in which its set goes: that one goes a little later.
    until("everything but its volume to go", async || {
        let left = (world.uids::<StatefulSet>().await, world.uids::<Pod>().await);
        if left.0.is_empty() && left.1.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    let events = sets.watch(&WatchParams::default().timeout(1), &since).await.unwrap();
    let made = events.try_filter(|event| ready(matches!(event, WatchEvent::Added(_))));
    assert_eq!(made.try_collect::<Vec<_>>().await.unwrap().len(), 0, "a set was made again");
    assert_eq!(world.uids::<PersistentVolumeClaim>().await.len(), 1, "its volume is kept");
}

/// Promise: a Queue that is deleted and made again at once gets a set of its own and keeps the volume; that of the earlier Queue is
/// left to garbage collection, which does not wait for anybody.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn queue_that_is_made_again_at_once_has_its_own_set() {
    let world = world("at-once", json!({"size": "1Gi"})).await;
    let (sets, claims) = (world.uids::<StatefulSet>().await, world.uids::<PersistentVolumeClaim>().await);
    world.api::<ackwell_api::Queue>().delete("orders", &DeleteParams::background()).await.unwrap();
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    until("a set of its own", async || {
        let now = world.uids::<StatefulSet>().await;
        if !now.is_empty() && now != sets { Ok(()) } else { Err(now) }
    })
    .await;
    world.until_settled().await;
    assert_eq!(world.uids::<PersistentVolumeClaim>().await, claims);
}

/// Promise: whoever changes the number of shards again and again, however late the operator hears of what it did and of what brokers
/// say, leaves no two
/// brokers with different ideas of where messages belong.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn shards_that_are_changed_again_and_again_agree() {
    let world = World::new(&format!("{SLOW}-again"), Faults::late("statefulsets")).await;
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_settled().await;
    for shards in [2, 4, 1, 3, 2, 5, 1, 4, 3, 2] {
        world.change(&json!({"shards": shards})).await.unwrap();
        // Not waited for: the moments of the changes, as people choose them.
        tokio::time::sleep(BETWEEN_CHANGES).await;
    }
    world.until_settled().await;
    until("two pods to be left", async || {
        let pods = world.uids::<Pod>().await;
        if pods.len() == 2 { Ok(()) } else { Err(pods) }
    })
    .await;
    world.assert_consistent();
}

/// Promise: the network lets in whom the Queue lets in, and the operator; an eviction takes one broker of several at a time, and
/// nothing keeps a single one on its node.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn network_and_evictions_are_limited_as_the_queue_is() {
    let world = world("limits", json!({"size": "1Gi"})).await;
    assert_eq!(reached_from(&world).await, [&*world.namespace, "none"]);
    let budgets = world.api::<PodDisruptionBudget>();
    assert!(budgets.get_opt("ackwell-orders").await.unwrap().is_none());
    let grants = json!([{"namespace": "web", "verbs": ["send"]}]);
    world.change(&json!({"shards": 2, "clients": grants})).await.unwrap();
    world.until_settled().await;
    assert_eq!(reached_from(&world).await, [&*world.namespace, "none", "web"]);
    let budget = budgets.get("ackwell-orders").await.unwrap().spec.unwrap();
    assert_eq!(budget.max_unavailable, Some(IntOrString::Int(1)));
    world.change(&json!({"shards": 1})).await.unwrap();
    world.until_settled().await;
    until("no budget", async || budgets.get_opt("ackwell-orders").await.unwrap().map_or(Ok(()), Err)).await;
    assert_eq!(reached_from(&world).await, [&*world.namespace, "none", "web"]);
}

/// Promise: a policy that somebody else gave this name is left alone and named, and the Queue does without.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn foreign_policy_is_named_and_the_queue_serves() {
    let world = World::new("foreign", Faults::default()).await;
    let foreign = json!({"metadata": {"name": "ackwell-orders"}, "spec": {"podSelector": {}}});
    let policies = world.api::<NetworkPolicy>();
    policies.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
    world.change(&json!({"storage": {"size": "1Gi"}})).await.unwrap();
    world.until_condition("Stalled", "True/OwnershipConflict").await;
    world.until_condition("Ready", "True/AllShardsReady").await;
    let labels = policies.get("ackwell-orders").await.unwrap().metadata.labels;
    assert_eq!(labels, None, "it is as it was");
}

/// The namespaces whose pods the network lets through to messages, sorted.
async fn reached_from(world: &World) -> Vec<String> {
    let policy = world.api::<NetworkPolicy>().get("ackwell-orders").await.unwrap();
    let messages = policy.spec.unwrap().ingress.unwrap().swap_remove(0);
    let labels = messages.from.unwrap().into_iter().map(|peer| peer.namespace_selector.unwrap().match_labels);
    let mut namespaces: Vec<_> =
        labels.map(|labels| labels.unwrap()["kubernetes.io/metadata.name"].clone()).collect();
    namespaces.sort();
    namespaces
}

fn orphan() -> DeleteParams {
    DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..DeleteParams::default() }
}

/// Promise: a set that somebody deleted without its pods is there again, and they never notice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn set_that_was_deleted_by_hand_is_made_again_around_its_pods() {
    let world = world("by-hand", json!({"size": "1Gi"})).await;
    let (pods, sets) = (world.uids::<Pod>().await, world.uids::<StatefulSet>().await);
    world.api::<StatefulSet>().delete("ackwell-orders", &orphan()).await.unwrap();
    until("another set", async || {
        let now = world.uids::<StatefulSet>().await;
        if !now.is_empty() && now != sets { Ok(()) } else { Err(now) }
    })
    .await;
    world.until_settled().await;
    assert_eq!(world.uids::<Pod>().await, pods);
}

/// Promise: two operators at once, as when one that was paused wakes up, come to one end and replace nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn two_operators_at_once_do_no_harm() {
    let world = world("two", json!({"size": "1Gi"})).await;
    let pods = world.uids::<Pod>().await;
    let _other = crate::operator::Operator::start(&world.namespace, &Faults::at(usize::MAX, Fault::Fail));
    world.change(&json!({"storage": {"size": "2Gi"}, "delivery": {"maxAttempts": 3}})).await.unwrap();
    world.until_settled().await;
    world.final_state().await;
    assert_eq!(world.uids::<Pod>().await, pods);
}

/// Promise: no Queue is sealed afterwards, and none that is sealed is laid open; a broker that has not the key of its store is told, with
/// the Secret that it belongs into.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn sealing_is_decided_at_the_beginning_and_a_missing_key_is_told() {
    let encryption = json!({"secretName": "orders-keys"});
    for (name, before, after) in [("sealed", &encryption, &json!(null)), ("clear", &json!(null), &encryption)]
    {
        let world = World::new(name, Faults::default()).await;
        world.change(&json!({"storage": {"size": "1Gi"}, "encryption": before})).await.unwrap();
        world.until_settled().await;
        let refused = world.change(&json!({"encryption": after})).await.unwrap_err().to_string();
        assert!(refused.contains("can only be given when the Queue is made"), "{refused}");
    }
    let world = World::new("keyless", Faults::default()).await;
    world.change(&json!({"storage": {"size": "1Gi"}, "encryption": encryption})).await.unwrap();
    world.until_settled().await;
    let end = json!({"exitCode": 66, "message": "the store is sealed with the key k1"});
    let broker = json!({
        "name": BROKER_CONTAINER,
        "ready": false,
        "image": "",
        "imageID": "",
        "restartCount": 1,
        "state": {"terminated": end},
    });
    let unready = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = Patch::Merge(json!({"status": {"conditions": [unready], "containerStatuses": [broker]}}));
    world.api::<Pod>().patch_status("ackwell-orders-0", &PatchParams::default(), &status).await.unwrap();
    world.until_condition("Stalled", "True/EncryptionKeyMissing").await;
    let stalled = world.queue().await.status.unwrap().conditions.swap_remove(2).message;
    assert!(stalled.contains("the Secret orders-keys") && stalled.ends_with("with the key k1"), "{stalled}");
}
