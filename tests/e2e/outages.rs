//! What is killed here, every test needs: these run alone, one after the other, after the others.

mod backups;

use std::time::Duration;

use ackwell_tests::caller::{delivered, message, reject};
use ackwell_tests::cluster::{self, Kubectl, Namespace, PortForward, Signal, kill_process};
use ackwell_tests::wait::{now, until, until_async};
use serde_json::{Value, json};

use crate::load::Load;
use crate::manifests::ORDERS;
use crate::queue::{LIMIT, broker, patch, text, wait_up_to_date};

const OPERATORS: &str = "app.kubernetes.io/name=ackwell";
/// A lease runs out after 15 s, and is tried for every 2 s; the new leader then reads everything once.
const HANDOVER: Duration = Duration::from_secs(40);
const SOME: usize = 1000;

fn operators() -> Kubectl {
    cluster::installed();
    Kubectl::in_namespace("ackwell-system")
}

/// The pod that holds the lease.
fn leader(operators: &Kubectl) -> Value {
    until("a leader", HANDOVER, || {
        let lease = operators.get("lease", "ackwell-operator")?;
        operators.get("pod", text(&lease["spec"]["holderIdentity"]))
    })
}

/// How long a change takes to be taken up, from now.
fn time_to_act(namespace: &Namespace, attempts: u32) -> Duration {
    let started = now();
    patch(namespace, &json!({"delivery": {"maxAttempts": attempts}}));
    wait_up_to_date(namespace);
    started.elapsed()
}

/// Promise: another operator goes on within seconds, whether the process or its whole pod is gone, in the middle of
/// whatever the first did; who sends and receives notices nothing.
#[test]
#[ignore = "ends what other tests need: cargo xtask test --only e2e runs it after them"]
fn killed_leader_is_followed_within_seconds() {
    let (operators, namespace) = (operators(), Namespace::new("leader"));
    namespace.queue(ORDERS);
    let load = Load::start(&namespace);

    patch(&namespace, &json!({"storage": {"size": "384Mi"}}));
    kill_process(&operators, &leader(&operators), "ackwell-operator").unwrap();
    println!("the leader's process killed: a change is done after {:?}", time_to_act(&namespace, 3));

    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    let gone = leader(&operators);
    kill_process(&operators, &gone, "ackwell-operator").unwrap();
    operators.expect(&["delete", "pod", text(&gone["metadata"]["name"]), "--grace-period=0", "--force"]);
    let took = time_to_act(&namespace, 4);
    println!("the leader's pod killed: a change is done after {took:?}");
    assert!(took < HANDOVER, "{took:?}");
    assert_ne!(leader(&operators)["metadata"]["uid"], gone["metadata"]["uid"]);

    let queue = namespace.get("queues.ackwell.dev", "orders").unwrap();
    assert_eq!(queue["status"]["storage"]["floor"], "512Mi");
    assert_eq!(load.finish().refused, Vec::<String>::new());
}

/// Promise: a redrive and a purge are done once and whole, though the operator that does them is killed, and a broker, while messages
/// flow.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "ends what other tests need: cargo xtask test --only e2e runs it after them"]
async fn tasks_are_done_once_though_the_leader_and_a_broker_die() {
    let (operators, namespace) = (operators(), Namespace::new("tasks"));
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let dead = make_dead(&namespace).await;
    let load = Load::start(&namespace);
    let redrive = json!({"redrive": {"maxPerSecond": 30, "maxMessages": dead - 20}});
    order(&namespace, "redrive", &redrive);
    until("the redrive to be in the middle", LIMIT, || {
        let processed = task(&namespace, "redrive")?["processed"].as_u64().unwrap_or_default();
        anyhow::ensure!(processed >= 30, "{processed}");
        Ok(())
    });
    kill_process(&operators, &leader(&operators), "ackwell-operator").unwrap();
    let pod = namespace.get("pod", "ackwell-orders-0").unwrap();
    kill_process(&namespace, &pod, "ackwelld").unwrap();
    assert_eq!(done(&namespace, "redrive"), (dead - 20, dead - 20));
    let purge = json!({"purge": {"target": "DeadLetter"}});
    order(&namespace, "purge", &purge);
    kill_process(&operators, &leader(&operators), "ackwell-operator").unwrap();
    assert_eq!(done(&namespace, "purge"), (20, 20));
    load.wait_flows();
    load.finish();
    for ordinal in 0..2 {
        let forward = PortForward::start(&namespace, &format!("ackwell-orders-{ordinal}"), 7400);
        let stats = forward.caller("orders").await.stats().await;
        assert_eq!((stats.dead, stats.ready), (0, 0), "all that was redriven came, and the rest is gone");
    }
}

/// Dead messages in both shards.
async fn make_dead(namespace: &Namespace) -> u64 {
    let mut count = 0;
    for ordinal in 0..2 {
        let forward = PortForward::start(namespace, &format!("ackwell-orders-{ordinal}"), 7400);
        let caller = forward.caller("orders").await;
        caller.send((0..100).map(|n| message(format!("dead {n}"))).collect()).await.unwrap();
        while caller.stats().await.ready > 0 {
            let deliveries = caller.receive(100, Duration::ZERO).await.unwrap();
            caller.settle(deliveries.iter().map(reject).collect()).await.unwrap();
        }
        count += caller.stats().await.dead;
    }
    count
}

fn order(namespace: &Namespace, name: &str, work: &Value) {
    let mut spec = work.clone();
    spec["queueName"] = json!("orders");
    let (api, kind) = ("ackwell.dev/v1alpha1", "QueueTask");
    namespace.apply(
        &json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string(),
    );
}

fn task(namespace: &Namespace, name: &str) -> anyhow::Result<Value> {
    Ok(namespace.get("queuetasks.ackwell.dev", name)?["status"].take())
}

/// What a task did, and what there was, once it is done.
fn done(namespace: &Namespace, name: &str) -> (u64, u64) {
    let status = until("the task to be over", LIMIT, || {
        let status = task(namespace, name)?;
        anyhow::ensure!(!["", "Pending", "Running"].contains(&text(&status["state"])), "{status}");
        Ok(status)
    });
    assert_eq!(status["state"], "Succeeded", "{status}");
    let [processed, total] = ["processed", "total"].map(|field| status[field].as_u64().unwrap());
    (processed, total)
}

/// Promise: a leader that stood still while its lease ran out sets nothing back when it wakes up, and ends.
#[test]
#[ignore = "ends what other tests need: cargo xtask test --only e2e runs it after them"]
fn leader_that_wakes_up_late_does_no_harm() {
    let (operators, namespace) = (operators(), Namespace::new("sleeper"));
    namespace.queue(ORDERS);
    let load = Load::start(&namespace);
    let sleeper = leader(&operators);
    cluster::signal_process(&sleeper, "ackwell-operator", Signal::STOP).unwrap();
    // As it would have it, brokers have the template of before. That it does not know better takes that it cannot read on. What takes
    // longer than a minute is not for here: then the kubelet kills who does not answer.
    patch(&namespace, &json!({"terminationGracePeriodSeconds": 45}));
    wait_up_to_date(&namespace);
    let was = made_of(&namespace);

    cluster::signal_process(&sleeper, "ackwell-operator", Signal::CONT).unwrap();
    let name = text(&sleeper["metadata"]["name"]);
    let ended = until("it to end, and to say why", LIMIT, || {
        let pod = operators.get("pod", name)?;
        let ended = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        anyhow::ensure!(ended.is_object(), "{}", pod["status"]["containerStatuses"]);
        Ok(ended.clone())
    });
    assert!(text(&ended["message"]).contains("lost the lease"), "{ended}");
    load.wait_flows();
    wait_up_to_date(&namespace);
    assert_eq!(made_of(&namespace), was);
    assert_eq!(load.finish().refused, Vec::<String>::new());
}

/// The broker, and how often anybody has changed what it is made from.
fn made_of(namespace: &Namespace) -> (Value, Value, (String, u64)) {
    let set = namespace.get("statefulset", "ackwell-orders").unwrap()["metadata"].take();
    (set["uid"].clone(), set["generation"].clone(), broker(namespace, 0))
}

/// Promise: a broker image that does not run reaches one broker each of two Queues, and none when it is taken back.
#[test]
#[ignore = "ends what other tests need: cargo xtask test --only e2e runs it after them"]
fn bad_image_stops_at_two_brokers_and_is_taken_back() {
    let (operators, namespace) = (operators(), Namespace::new("bad-image"));
    for name in ["logs", "mails"] {
        namespace.apply(&ORDERS.replace("name: orders", &format!("name: {name}")));
    }
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let load = Load::start(&namespace);
    let bad = BadImage::roll_out(&operators);
    let with_it = || -> anyhow::Result<Vec<Value>> {
        let mut pods = namespace.list("pods", "app.kubernetes.io/component=broker")?;
        pods.retain(|pod| text(&pod["spec"]["containers"][0]["image"]).ends_with(":none"));
        Ok(pods)
    };
    until("two Queues to fail with it", LIMIT, || {
        let queues = namespace.list("queues.ackwell.dev", "")?;
        let failing = queues.iter().filter(|queue| ready_reason(queue) == "PodFailing").count();
        anyhow::ensure!(failing == 2, "{failing} of 2");
        Ok(())
    });
    let waiting = namespace.list("queues.ackwell.dev", "").unwrap();
    let serves = waiting.iter().filter(|queue| ready_reason(queue) == "AllShardsReady").count();
    assert_eq!((with_it().unwrap().len(), serves), (2, 1), "the third Queue waits");
    drop(bad);
    until("no broker to have it", LIMIT, || {
        let left = with_it()?.len();
        anyhow::ensure!(left == 0, "{left} brokers");
        Ok(())
    });
    namespace.wait("queues.ackwell.dev --all", "condition=Ready", LIMIT);
    wait_up_to_date(&namespace);
    load.finish();
}

fn ready_reason(queue: &Value) -> &str {
    let conditions = queue["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|one| one["type"] == "Ready").map_or("", |ready| text(&ready["reason"]))
}

/// Operators that give brokers an image that does not exist, until it is dropped.
struct BadImage<'a>(&'a Kubectl);

impl<'a> BadImage<'a> {
    fn roll_out(operators: &'a Kubectl) -> Self {
        let mut deployment = operators.list("deployment", OPERATORS).unwrap().remove(0);
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array_mut().unwrap();
        let image = args.iter_mut().find(|arg| text(arg).starts_with("--broker-image=")).unwrap();
        *image = json!("--broker-image=localhost/ackwell/ackwelld:none");
        let patch =
            json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}]);
        let (name, patch) =
            (format!("deployment/{}", text(&deployment["metadata"]["name"])), patch.to_string());
        operators.expect(&["patch", &name, "--type=json", "--patch", &patch]);
        Self(operators)
    }
}

impl Drop for BadImage<'_> {
    fn drop(&mut self) {
        self.0.expect(&["rollout", "undo", "deployment", "--selector", OPERATORS]);
        self.0.expect(&["rollout", "status", "deployment", "--selector", OPERATORS, "--timeout=50s"]);
    }
}

const BROKERS: [&str; 2] = ["ackwell-orders-0", "ackwell-kept-0"];

fn container(namespace: &Namespace, pod: &str) -> anyhow::Result<Value> {
    Ok(namespace.get("pod", pod)?["status"]["containerStatuses"][0].take())
}

/// Promise: a node that loses all its processes at once, under load, and comes back, has every message that was confirmed,
/// and none that was acked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "ends what other tests need: cargo xtask test --only e2e runs it after them"]
async fn node_that_crashes_keeps_what_was_confirmed() {
    let namespace = Namespace::new("node");
    namespace.queue(&format!("{ORDERS}---\n{}", ORDERS.replace("name: orders", "name: kept")));
    let kept = {
        let forward = PortForward::start(&namespace, "ackwell-kept-0", 7400);
        let messages = (0..SOME).map(|number| message(format!("kept {number}"))).collect();
        forward.caller("kept").await.send(messages).await.unwrap()
    };
    let load = Load::start(&namespace);
    let before = BROKERS.map(|pod| container(&namespace, pod).unwrap());
    cluster::crash_node();
    let ledger = load.cut();
    // What the Queues say may be of the time before.
    until("the brokers to be other processes", LIMIT, || {
        for (pod, before) in BROKERS.iter().zip(&before) {
            let now = container(&namespace, pod)?;
            anyhow::ensure!(now["containerID"] != before["containerID"] && now["ready"] == true, "{now}");
        }
        Ok(())
    });
    wait_up_to_date(&namespace);
    namespace.wait("queues.ackwell.dev --all", "condition=Ready", LIMIT);

    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    let mut left = ledger.stored();
    until_async("what was confirmed to come", LIMIT, async || {
        for delivery in caller.receive(SOME.try_into()?, Duration::from_secs(1)).await? {
            let message = delivered(&delivery);
            assert!(!ledger.is_acked(&message.id), "{} was acked", message.id);
            left.remove(&message.id);
        }
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    let forward = PortForward::start(&namespace, "ackwell-kept-0", 7400);
    let there = forward.caller("kept").await.peek(&[]).await;
    assert_eq!((there.len(), kept.len()), (SOME, SOME));
    for (number, (message, sent)) in there.iter().zip(&kept).enumerate() {
        assert_eq!((&message.id, &message.body), (&sent.id, &format!("kept {number}").into()));
    }
}
