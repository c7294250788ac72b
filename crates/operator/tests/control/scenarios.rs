//! Each write of each scenario is spoiled in each way, and each kind of object is heard of late. The end is always that of the
//! run in which nothing was.

use ackwell_api::QueueTask;
use futures::StreamExt;
use futures::stream::iter;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use crate::faults::{Fault, Faults};
use crate::node::BROKEN;
use crate::tasks;
use crate::world::{World, until};

/// Runs at the same time: most of their time they wait for the control plane.
const PARALLEL: usize = 8;

/// What an operator can hear of too late to act on it.
const HEARD_OF: [&str; 5] = ["queues", "queuetasks", "statefulsets", "pods", "persistentvolumeclaims"];

/// What somebody does to a Queue.
struct Scenario {
    name: &'static str,
    /// The spec there is when it begins, settled.
    before: Option<Value>,
    acts: Vec<Act>,
    /// Brokers that run before run on: nothing restarts.
    keeps_pods: bool,
}

enum Act {
    /// Changes the spec, and waits until all of it is done.
    Change(Value),
    /// Changes the spec, and waits until the pod of shard 1 is one of the new template.
    Break(Value),
    /// Makes a `QueueTask` of this name, and waits until it is over.
    Order(&'static str, Value),
    /// The same, and waits until it is gone.
    OrderAndForget(&'static str, Value),
    /// Deletes the Queue, and waits until only its volumes are left.
    Delete,
}

fn two_shards() -> Value {
    json!({"shards": 2, "storage": {"size": "1Gi"}})
}

async fn survives_every_fault(scenario: Scenario) {
    let undisturbed = Run::new(&scenario, "plain", Faults::default()).await;
    undisturbed.play(&scenario).await;
    let expected = undisturbed.world.final_state().await;
    let writes = undisturbed.world.faults.writes();
    let faults = (1..=writes).flat_map(|number| Fault::ALL.map(|fault| (number, fault)));
    let runs = faults.map(|(number, fault)| spoiled(&scenario, number, fault, &expected));
    let spoiled: usize =
        iter(runs).buffer_unordered(PARALLEL).map(usize::from).fold(0, async |a, b| a + b).await;
    println!("{}: {writes} writes, {spoiled} of {} runs spoiled", scenario.name, writes * Fault::ALL.len());
    assert!(writes == 0 || spoiled > 0, "no fault was met");
    let late =
        async |plural| disturbed(&scenario, &format!("late-{plural}"), Faults::late(plural), &expected).await;
    iter(HEARD_OF).map(late).buffer_unordered(PARALLEL).collect::<()>().await;
    let more = undisturbed.world.faults.seen();
    assert_eq!(more.len(), writes, "a Queue that is done costs no writes: {:?}", &more[writes..]);
}

/// Whether there was a write to be spoiled: a run may need fewer.
async fn spoiled(scenario: &Scenario, number: usize, fault: Fault, expected: &Value) -> bool {
    let name = format!("{number}-{}", format!("{fault:?}").to_lowercase());
    let faults = Faults::at(number, fault);
    disturbed(scenario, &name, faults.clone(), expected).await;
    faults.writes() >= number
}

async fn disturbed(scenario: &Scenario, name: &str, faults: Faults, expected: &Value) {
    let run = Run::new(scenario, name, faults).await;
    run.play(scenario).await;
    until(
        &format!("{} {name}: the same end; writes {:?}", scenario.name, run.world.faults.seen()),
        async || {
            let state = run.world.state().await;
            let differences = json_patch::diff(expected, &state);
            if differences.is_empty() { Ok(()) } else { Err(differences.to_string()) }
        },
    )
    .await;
}

struct Run {
    world: World,
}

impl Run {
    async fn new(scenario: &Scenario, name: &str, faults: Faults) -> Self {
        let world = World::new(&format!("{}-{name}", scenario.name), faults).await;
        if let Some(before) = &scenario.before {
            world.change(before).await.unwrap();
            world.until_settled().await;
        }
        Self { world }
    }

    async fn play(&self, scenario: &Scenario) {
        let (claims, pods) =
            (self.world.uids::<PersistentVolumeClaim>().await, self.world.uids::<Pod>().await);
        self.world.faults.arm();
        for act in &scenario.acts {
            self.act(act).await;
        }
        self.world.assert_consistent();
        tasks::assert_once(&self.world.namespace);
        let claims_after = self.world.uids::<PersistentVolumeClaim>().await;
        assert!(claims.iter().all(|claim| claims_after.iter().any(|one| one == claim)), "a volume is gone");
        if scenario.keeps_pods {
            assert_eq!(
                self.world.uids::<Pod>().await,
                pods,
                "{}: a broker was restarted",
                self.world.namespace
            );
        }
    }

    async fn act(&self, act: &Act) {
        match act {
            Act::Change(spec) => {
                self.world.change(spec).await.unwrap();
                self.world.until_settled().await;
            }
            Act::Break(spec) => {
                let old = self.world.uids::<Pod>().await;
                self.world.change(spec).await.unwrap();
                until("shard 1 to have the broken template", async || {
                    let now = self.world.uids::<Pod>().await;
                    let replaced = now
                        .get("ackwell-orders-1")
                        .is_some_and(|uid| Some(uid) != old.get("ackwell-orders-1"));
                    if replaced { Ok(()) } else { Err(now) }
                })
                .await;
            }
            Act::Order(name, spec) => {
                self.world.order(name, spec).await.unwrap();
                self.world.until_over(name).await;
            }
            Act::OrderAndForget(name, spec) => {
                self.world.order(name, spec).await.unwrap();
                until(&format!("{name} to go"), async || {
                    match self.world.api::<QueueTask>().get_opt(name).await.unwrap() {
                        None => Ok(()),
                        Some(task) => Err(task.status),
                    }
                })
                .await;
            }
            Act::Delete => {
                self.world.delete().await;
                until("everything but volumes to go", async || {
                    let state = self.world.state().await;
                    let kinds = state.as_object().unwrap().keys();
                    let left: Vec<_> =
                        kinds.filter(|name| !name.starts_with("PersistentVolumeClaim/")).collect();
                    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn create() {
    let acts = vec![Act::Change(two_shards())];
    survives_every_fault(Scenario { name: "create", before: None, acts, keeps_pods: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn change_of_settings() {
    let acts = vec![Act::Change(json!({"delivery": {"maxAttempts": 3}}))];
    survives_every_fault(Scenario { name: "settings", before: Some(two_shards()), acts, keeps_pods: true })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn growth() {
    let acts = vec![Act::Change(json!({"storage": {"size": "2Gi"}}))];
    survives_every_fault(Scenario { name: "grow", before: Some(two_shards()), acts, keeps_pods: true }).await;
}

/// The set must not take its volumes with it when it is made anew.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn growth_of_volumes_that_go_with_their_queue() {
    let before = json!({"shards": 2, "storage": {"size": "1Gi"}, "deletionPolicy": "Delete"});
    let acts = vec![Act::Change(json!({"storage": {"size": "2Gi"}}))];
    survives_every_fault(Scenario { name: "grow-delete", before: Some(before), acts, keeps_pods: true })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn suspend_and_resume() {
    let acts = vec![Act::Change(json!({"suspend": true})), Act::Change(json!({"suspend": false}))];
    survives_every_fault(Scenario { name: "suspend", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

/// By one shard and by several: they come at once, and go one by one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn scale_out_and_in() {
    let acts = [4, 2].map(|shards| Act::Change(json!({"shards": shards}))).into();
    survives_every_fault(Scenario { name: "scale", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn rollout() {
    let acts = vec![Act::Change(json!({"terminationGracePeriodSeconds": 90}))];
    survives_every_fault(Scenario { name: "roll", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

/// A Queue becomes Embedded, and is itself again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn template_comes_and_goes() {
    let containers = json!([{"name": "worker", "image": "worker:1"}]);
    let acts = [json!({"spec": {"containers": containers}}), Value::Null]
        .map(|template| Act::Change(json!({"template": template})))
        .into();
    survives_every_fault(Scenario { name: "embed", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

/// Nobody deletes pods by hand.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn bad_template_and_its_revert() {
    let node = |value: Option<&str>| json!({"scheduling": {"nodeSelector": {BROKEN: value}}});
    let acts = vec![Act::Break(node(Some("yes"))), Act::Change(node(None))];
    survives_every_fault(Scenario { name: "revert", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn delete_and_make_again() {
    let acts = vec![Act::Delete, Act::Change(two_shards())];
    survives_every_fault(Scenario { name: "again", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

/// What was done is done once, however often it is asked for: with bounds for all shards, without, and when it is forgotten.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn task() {
    let bounded = json!({"queueName": "orders", "redrive": {"maxMessages": tasks::MAX, "maxPerSecond": 100}});
    let unbounded = json!({"queueName": "orders", "purge": {"target": "All"}, "ttlSecondsAfterFinished": 1});
    let acts = vec![Act::Order("bounded", bounded), Act::OrderAndForget("unbounded", unbounded)];
    survives_every_fault(Scenario { name: "task", before: Some(two_shards()), acts, keeps_pods: true }).await;
}

/// Its pod is made once, and what it said last is told.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn backup() {
    let backup = json!({"queueName": "orders", "backup": {"claimName": "backups", "path": "orders/1"}});
    let acts = vec![Act::Order("nightly", backup)];
    survives_every_fault(Scenario { name: "backup", before: Some(two_shards()), acts, keeps_pods: false })
        .await;
}

/// A Queue that begins with a backup opens when that is restored.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
async fn restore() {
    let from = json!({"restoreFrom": {"claimName": "backups", "path": "orders/1"}});
    let acts = vec![Act::Change(json!({"shards": 2, "storage": {"size": "1Gi"}, "bootstrap": from}))];
    survives_every_fault(Scenario { name: "restore", before: None, acts, keeps_pods: false }).await;
}
