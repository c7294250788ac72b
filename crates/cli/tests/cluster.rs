//! Commands that ask a cluster, with a kubectl that answers from files: what is asked for, and what is made of the answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes down how it was called, and answers with the file of the first argument that has one.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> "$ANSWERS/calls"
for argument in "$@"; do
  file="$ANSWERS/$(echo "$argument" | tr '/:' '__')"
  [ -f "$file" ] && exec cat "$file"
done
echo "Error from server (Forbidden): $*" >&2
exit 1
"#;

struct Cluster(TempDir);

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubectl = folder.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = Self(folder);
        cluster.answer("queues.ackwell.dev", &queue());
        cluster.answer("pods", &list(&[pod()]));
        cluster.answer("persistentvolumeclaims", &list(&[claim()]));
        cluster.answer("events", &list(&[event()]));
        cluster
    }

    fn answer(&self, argument: &str, answer: &Value) {
        self.answer_text(argument, &answer.to_string());
    }

    fn answer_text(&self, argument: &str, answer: &str) {
        fs::write(self.0.path().join(argument.replace(['/', ':'], "_")), answer).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.path().display(), std::env::var_os("PATH").unwrap().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ackwell"));
        command
            .args(arguments)
            .env("PATH", path)
            .env("ANSWERS", self.path())
            .current_dir(self.path())
            .output()
            .unwrap()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path().join("calls")).unwrap()
    }
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "items": items})
}

fn queue() -> Value {
    json!({
        "apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue",
        "metadata": {"namespace": "shop", "name": "orders", "managedFields": [{"manager": "helm"}]},
        "spec": {"shards": 1},
        "status": {
            "messages": {"ready": 12, "inFlight": 3, "delayed": 0, "dead": 1}, "oldestReadySeconds": 90,
            "conditions": [{"type": "Ready", "status": "True", "reason": "AllShardsReady", "message": "",
                "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        },
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "ackwell-orders-0"}, "spec": {"nodeName": "node-a",
            "containers": [{"env": [{"name": "KEY", "value": "hunter2"}]}]},
        "status": {"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 2, "state": {"running": {}}}]},
    })
}

fn claim() -> Value {
    json!({
        "metadata": {"name": "data-ackwell-orders-0"},
        "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}},
    })
}

fn event() -> Value {
    json!({
        "type": "Normal", "reason": "ShardsReady", "message": "all serve", "lastTimestamp": "2026-01-02T03:04:06Z",
        "involvedObject": {"kind": "Queue", "name": "orders"},
    })
}

const METRICS: &str = "/api/v1/namespaces/shop/pods/ackwell-orders-0:7410/proxy/metrics";

/// Promise: one command shows how a queue is, and asks for nothing but what it shows.
#[test]
fn status_is_a_tree_of_what_the_cluster_says() {
    let cluster = Cluster::new();
    cluster.answer_text(METRICS, "ackwell_consumers{namespace=\"shop\",queue=\"orders\"} 4\n");
    let shown = cluster.run(&["status", "shop/orders"]);
    assert!(shown.status.success(), "{shown:?}");
    let expected = "\
shop/orders  12 ready (oldest 1m30s), 3 in flight, 0 delayed, 1 dead
├─ conditions
│  └─ Ready           True     AllShardsReady     since 2026-01-02T03:04:05Z
├─ shards 1 of 1 ready
│  └─ ackwell-orders-0  Running, ready  node-a  restarts 2
│     └─ data-ackwell-orders-0  Bound  10Gi
├─ traffic  0.0 sent/s, 0.0 acked/s, 0.0 failed/s, 4 consumers
└─ last events
   └─ 2026-01-02T03:04:06Z  Normal  ShardsReady  Queue orders: all serve
";
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), expected);
    assert!(
        cluster.calls().lines().all(|call| call.starts_with("get ") && call.ends_with("--namespace shop"))
    );
}

/// Promise: without the right to reach brokers there is a status all the same; scripts get it as YAML too.
#[test]
fn status_without_brokers_lacks_rates() {
    let cluster = Cluster::new();
    let shown = cluster.run(&["status", "orders", "-n", "shop", "-o", "yaml"]);
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    let status: Value = serde_yaml_ng::from_str(&text).unwrap();
    assert_eq!(
        (&status["traffic"], &status["shards"][0]["volume"]["size"]),
        (&Value::Null, &json!("10Gi")),
        "{text}"
    );
}

/// What kubectl says is told: nobody has to guess which right is missing.
#[test]
fn refusal_of_the_cluster_is_told() {
    let cluster = Cluster::new();
    fs::remove_file(cluster.path().join("events")).unwrap();
    let refused = cluster.run(&["status", "orders", "-n", "shop"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Forbidden"), "{refused:?}");
}

/// Promise: the bundle has what can be had, names what cannot, and has no secrets.
#[test]
fn bundle_has_no_secrets_and_names_what_is_missing() {
    let cluster = Cluster::new();
    cluster.answer_text("logs", "a line of a log\n");
    let made = cluster.run(&["debug-bundle", "shop/orders", "--to", "bundle"]);
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    let folder = cluster.path().join("bundle");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert!(!read("queue.yaml").contains("managedFields"));
    assert!(!read("pods.yaml").contains("hunter2") && read("pods.yaml").contains("node-a"));
    assert_eq!(read("ackwell-orders-0.log"), "a line of a log\n");
    assert!(read("missing.txt").contains("statefulsets.yaml") && read("missing.txt").contains("Forbidden"));
    assert!(!cluster.calls().contains("secret"), "{}", cluster.calls());
    let again = cluster.run(&["debug-bundle", "shop/orders", "--to", "bundle"]);
    assert_eq!(again.status.code(), Some(1), "a bundle never mixes with another");
}

/// Promise: shells and man pages know every command.
#[test]
fn completion_and_man_pages_are_written() {
    let cluster = Cluster::new();
    let script = String::from_utf8(cluster.run(&["completion", "bash"]).stdout).unwrap();
    assert!(script.contains("debug-bundle") && script.contains("--dry-run"));
    assert!(cluster.run(&["man", "pages"]).status.success());
    for page in ["ackwell.1", "ackwell-send.1", "ackwell-status.1"] {
        assert!(cluster.path().join("pages").join(page).exists(), "{page}");
    }
}
