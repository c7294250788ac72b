//! Commands that work with a cluster, against a real API server. Operator, kubelet and brokers are played by what the tests
//! write into objects.
//!
//! `cargo xtask test --only e2e` provides the binaries; `CLUSTER_BIN` says where they are.

#[path = "cluster/plane.rs"]
mod plane;

use std::fs;
use std::io::{BufRead, BufReader};

use plane::{Ended, Shop, until};
use serde_json::{Value, json};

/// Long enough for anything here; a test that works does not wait so long.
const WAIT: &str = "3m";

/// What nobody may see in a bundle.
const SECRET: &str = "hunter2";

fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "ackwell", "app.kubernetes.io/component": "broker",
        "app.kubernetes.io/instance": "orders", "ackwell.dev/queue": "orders",
    })
}

fn queue() -> Value {
    json!({
        "apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "orders"},
        "spec": {"storage": {"size": "1Gi"}},
    })
}

fn pod() -> Value {
    let env = json!([{"name": "PLAIN", "value": SECRET}]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ackwell-orders-0", "labels": labels()},
        "spec": {"nodeName": "node-a", "containers": [{"name": "broker", "image": "broker:1", "env": env}]},
    })
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-ackwell-orders-0", "labels": labels()},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn event(namespace: &str, about: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{about}.1")}, "type": "Warning",
        "reason": "PodFailing", "message": message, "lastTimestamp": "2026-01-02T03:04:06Z",
        "involvedObject": {"kind": "Queue", "namespace": namespace, "name": about},
    })
}

/// As the operator writes it.
fn status(shop: &Shop, conditions: &[(&str, &str)]) {
    let condition = |(kind, status): &(&str, &str)| {
        json!({"type": kind, "status": status, "reason": "Because", "message": "so it is",
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let conditions: Vec<_> = conditions.iter().map(condition).collect();
    let generation = shop.get("queue", "orders")["metadata"]["generation"].clone();
    let messages = json!({"ready": 12, "inFlight": 3, "delayed": 0, "dead": 1});
    shop.patch("queue", "orders", &json!({"status": {
        "observedGeneration": generation, "messages": messages, "oldestReadySeconds": 90, "conditions": conditions,
    }}));
}

/// As the kubelet writes it.
fn pod_is_ready(shop: &Shop) {
    let ready = json!({"type": "Ready", "status": "True"});
    let container = json!({"name": "broker", "ready": true, "restartCount": 2, "image": "broker:1", "imageID": "",
        "state": {"running": {}}});
    shop.patch(
        "pod",
        "ackwell-orders-0",
        &json!({"status": {
            "phase": "Running", "conditions": [ready], "containerStatuses": [container],
        }}),
    );
}

fn shop_with_a_queue(name: &str) -> Shop {
    let shop = Shop::new(name);
    shop.create(&[queue(), pod(), claim()]);
    pod_is_ready(&shop);
    shop.patch(
        "pvc",
        "data-ackwell-orders-0",
        &json!({"status": {"phase": "Bound", "capacity": {"storage": "512Mi"}}}),
    );
    status(&shop, &[("Ready", "False")]);
    shop
}

/// Promise: one command shows how a queue is, and only that queue.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn status_is_a_tree_of_what_the_cluster_says() {
    let shop = shop_with_a_queue("status");
    shop.create(&[
        event(&shop.namespace, "orders", "no\u{1b}[2J node fits"),
        event(&shop.namespace, "orders-eu", "not ours"),
    ]);
    let shown = shop.run(&["status", "orders"]);
    let expected = "\
/orders  12 ready (oldest 1m30s), 3 in flight, 0 delayed, 1 dead
├─ conditions
│  └─ Ready           False    Because            since 2026-01-02T03:04:05Z  so it is
├─ shards 1 of 1 ready
│  └─ ackwell-orders-0  Running, ready  node-a  restarts 2
│     └─ data-ackwell-orders-0  Bound  512Mi, shall have 1Gi
├─ traffic  unknown: the brokers could not be asked, or no queue was named
└─ last events
   └─ 2026-01-02T03:04:06Z  Warning PodFailing  Queue orders: no\\u{1b}[2J node fits
";
    assert_eq!((shown.code, shown.stdout), (0, format!("{}{expected}", shop.namespace)), "{}", shown.stderr);
    let listed = shop.run(&["status", "--output", "yaml"]);
    let listed: Value = serde_yaml_ng::from_str(&listed.stdout).unwrap();
    assert_eq!(
        (&listed["name"], &listed["shards"][0]["volume"]["wanted"]),
        (&json!("orders"), &json!("1Gi"))
    );
}

/// Promise: what is not there is said, with what to do; and scripts can tell.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn queue_that_is_not_there_is_code_3() {
    let shop = Shop::new("nothing");
    for (args, says) in [(&["status", "orders"][..], "there is no queue orders"), (&["status"], "no queues")]
    {
        let shown = shop.run(args);
        assert_eq!((shown.code, shown.stdout.as_str()), (3, ""), "{shown:?}");
        assert!(shown.stderr.contains(says) && shown.stderr.contains(&shop.namespace), "{shown:?}");
    }
    for command in ["suspend", "restart", "debug-bundle"] {
        let refused = shop.run(&[command, "orders"]);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("there is no queue orders"), "{refused:?}");
    }
    let elsewhere = shop.run(&["status", "shop/orders"]);
    assert!(elsewhere.stderr.contains("use one of them"), "{elsewhere:?}");
}

/// Promise: a person sees what their rights let them see, and which right is missing for the rest; they change nothing
/// that they may not change.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn rights_are_those_of_the_person() {
    let shop = shop_with_a_queue("rights");
    shop.restrict(&json!([{"apiGroups": ["ackwell.dev"], "resources": ["queues"], "verbs": ["get"]}]));
    let shown = shop.run(&["status", "orders"]);
    assert_eq!(shown.code, 1);
    assert!(shown.stdout.contains("12 ready") && shown.stdout.contains("shards 0 of 1"), "{shown:?}");
    for kind in ["pods", "persistentvolumeclaims", "events"] {
        let told = format!("{kind} could not be had: {kind} is forbidden: User \"{}\"", shop.namespace);
        assert!(shown.stderr.contains(&told), "{shown:?}");
    }
    let refused = shop.run(&["suspend", "orders"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot patch resource"), "{refused:?}");
    assert_ne!(shop.get("queue", "orders")["spec"]["suspend"], true);
}

/// Promise: suspending is done when the operator says so of this change, not before; and can be ended.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn suspend_waits_for_the_operator() {
    let shop = shop_with_a_queue("suspended");
    status(&shop, &[("Suspended", "True"), ("Reconciling", "False")]);
    let mut waiting = shop.start(&["suspend", "orders", "--wait", WAIT]);
    until("the spec to say so", || {
        let queue = shop.get("queue", "orders");
        if queue["spec"]["suspend"] == true { Ok(()) } else { Err(queue) }
    });
    assert!(waiting.try_wait().unwrap().is_none(), "the status is that of the spec before");
    status(&shop, &[("Suspended", "True"), ("Reconciling", "False")]);
    let ended = Ended::new(&waiting.wait_with_output().unwrap());
    assert!(ended.code == 0 && ended.stdout.contains("have stopped"), "{ended:?}");
    let refused = shop.run(&["restart", "orders"]);
    assert!(refused.code == 1 && refused.stderr.contains("suspended"), "{refused:?}");

    let late = shop.run(&["suspend", "orders", "--end", "--wait", "0s"]);
    assert!(late.code == 1 && late.stderr.contains("not done within 0s"), "{late:?}");
    assert_eq!(shop.get("queue", "orders")["spec"]["suspend"], false);
    status(&shop, &[("Suspended", "False"), ("Ready", "True")]);
    let json = shop.run(&["suspend", "orders", "--end", "--wait", WAIT, "--output", "json"]);
    assert_eq!((json.code, json.stdout.as_str()), (0, "{\"suspend\":false}\n"));
}

/// Promise: a restart is done when the pods are those that were asked for, and serve.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn restart_waits_for_new_pods() {
    let shop = shop_with_a_queue("restarted");
    status(&shop, &[("Ready", "True")]);
    let mut waiting = shop.start(&["restart", "orders", "--wait", WAIT, "--output", "json"]);
    let asked = || shop.get("queue", "orders")["metadata"]["annotations"]["ackwell.dev/restarted-at"].clone();
    until("the annotation", || if asked().is_string() { Ok(()) } else { Err(asked()) });
    assert!(waiting.try_wait().unwrap().is_none(), "the pod is the old one");
    // As the operator does it, by another pod.
    let annotations = json!({"ackwell.dev/restarted-at": asked()});
    shop.patch("pod", "ackwell-orders-0", &json!({"metadata": {"annotations": annotations}}));
    let ended = Ended::new(&waiting.wait_with_output().unwrap());
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &told["restartedAt"]), (0, &asked()), "{ended:?}");
    shop.patch("queue", "orders", &json!({"metadata": {"annotations": {"ackwell.dev/paused": "yes"}}}));
    let refused = shop.run(&["restart", "orders"]);
    assert!(refused.code == 1 && refused.stderr.contains("ackwell.dev/paused"), "{refused:?}");
}

/// Promise: a redrive of a queue of a cluster is a task that the operator does; who ordered it sees how far it is and how it ended.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn redrive_makes_a_task_and_waits_for_it() {
    let shop = shop_with_a_queue("tasks");
    let mut ordering = shop.start(&["redrive", "orders", "--max", "7", "--rate", "5", "-o", "json"]);
    until("the task", || {
        let names = shop.names("queuetasks");
        if names.len() == 1 { Ok(()) } else { Err(names) }
    });
    let name = shop.names("queuetasks").remove(0);
    let spec = shop.get("queuetask", &name)["spec"].take();
    assert!(name.starts_with("redrive-orders-"), "{name}");
    assert_eq!(
        (&spec["queueName"], &spec["redrive"]),
        (&json!("orders"), &json!({"maxMessages": 7, "maxPerSecond": 5}))
    );
    let progress =
        |state: &str, processed: u32| json!({"status": {"state": state, "processed": processed, "total": 7}});
    shop.patch("queuetask", &name, &progress("Running", 3));
    let mut said = BufReader::new(ordering.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line == format!("{name}: running, 3 of 7")), "it says how far it is");
    shop.patch("queuetask", &name, &progress("Succeeded", 7));
    let ended = Ended::new(&ordering.wait_with_output().unwrap());
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (ended.code, &told["state"], &told["processed"]),
        (0, &json!("Succeeded"), &json!(7)),
        "{ended:?}"
    );

    let made = shop.run(&["purge", "orders", "--state", "dead", "--older-than", "7d", "--wait", "0s"]);
    assert!(made.code == 0 && made.stdout.contains("pending"), "{made:?}");
    let purge = shop.names("queuetasks").into_iter().find(|name| name.starts_with("purge-")).unwrap();
    let spec = shop.get("queuetask", &purge)["spec"]["purge"].take();
    assert_eq!(spec, json!({"target": "DeadLetter", "olderThanSeconds": 604_800}));
    let late = shop.run(&["redrive", "orders", "--wait", "1s"]);
    assert!(late.code == 1 && late.stderr.contains("goes on"), "{late:?}");
}

/// Promise: what a task cannot do is refused before one is made; so is what a person may not order.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn tasks_that_cannot_be_are_refused_before_they_are_made() {
    let shop = shop_with_a_queue("no-tasks");
    for args in [
        &["redrive", "orders", "--dry-run"][..],
        &["redrive", "orders", "--header", "a=b"],
        &["purge", "orders", "--state", "delayed"],
        &["purge", "orders", "--all", "--max", "3"],
    ] {
        let refused = shop.run(args);
        assert!(refused.code == 2 && refused.stderr.contains("a task of a cluster"), "{refused:?}");
    }
    let nobody = shop.run(&["redrive", "logs"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("there is no queue logs"), "{nobody:?}");
    shop.restrict(&json!([{"apiGroups": ["ackwell.dev"], "resources": ["queues"], "verbs": ["get"]}]));
    let refused = shop.run(&["redrive", "orders"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot create resource"), "{refused:?}");
    assert_eq!(shop.names("queuetasks"), Vec::<String>::new());
}

/// Promise: the bundle has what can be had, names what cannot, and has no secrets.
#[test]
#[ignore = "needs the control plane: cargo xtask test --only e2e"]
fn bundle_has_no_secrets_and_names_what_is_missing() {
    let shop = shop_with_a_queue("bundle");
    let of_queue = json!({"name": "ackwell-orders", "labels": labels()});
    shop.create(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": of_queue, "stringData": {"key": SECRET}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": of_queue, "data": {"queue.json": "settings"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"key": SECRET}}),
        event(&shop.namespace, "orders", "no node fits"),
    ]);
    let made = shop.run(&["debug-bundle", "orders", "--to", "bundle"]);
    // No kubelet runs here.
    assert_eq!((made.code, made.stdout.as_str()), (1, "bundle\n"), "{made:?}");
    let folder = shop.folder().join("bundle");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    for (file, says) in [
        ("queue.yaml", "oldestReadySeconds"),
        ("pods.yaml", "node-a"),
        ("persistentvolumeclaims.yaml", "512Mi"),
        ("configmaps.yaml", "settings"),
        ("events.yaml", "no node fits"),
        ("version.txt", "gitVersion"),
        ("missing.txt", "ackwell-orders-0.log: "),
        ("missing.txt", "ackwell-orders-0.metrics: "),
    ] {
        assert!(read(file).contains(says), "{file}: {}", read(file));
    }
    assert_eq!(read("missing.txt").lines().count(), 2, "{}", read("missing.txt"));
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap().contains(SECRET), "{}", path.display());
    }
    let again = shop.run(&["debug-bundle", "orders", "--to", "bundle"]);
    assert!(again.code == 1 && again.stderr.contains("make bundle"), "a bundle never mixes with another");
}
