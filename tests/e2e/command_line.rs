//! `ackwell` as a person uses it on a cluster: with a kubeconfig, against a real operator and real brokers.

use std::fs;

use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::processes::CommandLine;
use ackwell_tests::wait;
use serde_json::Value;

use crate::manifests::ORDERS;
use crate::queue::{LIMIT, broker};

/// What nobody may find in a bundle: a message, and keys of any kind.
const BODY: &str = "a body that is nobody's business";
const PRIVATE: [&str; 2] = [BODY, "PRIVATE KEY"];

fn ackwell(namespace: &Namespace, args: &[&str]) -> CommandLine {
    let place = ["--namespace", namespace.namespace()];
    CommandLine::run("", &[args, &place].concat(), b"")
}

fn status(namespace: &Namespace) -> Value {
    ackwell(namespace, &["status", "orders", "--output", "json"]).exits(0).json().remove(0)
}

/// Promise: status tells what operator, kubelet, storage and brokers know; a bundle has all of it, with logs and metrics, and
/// neither messages nor keys.
#[tokio::test(flavor = "multi_thread")]
async fn person_sees_everything_but_messages_and_keys() {
    let namespace = Namespace::new("command-line");
    namespace.queue(ORDERS);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    forward.caller("orders").await.send_body(BODY).await;
    let shown = wait::until("the operator to have counted the message", LIMIT, || {
        let shown = status(&namespace);
        anyhow::ensure!(shown["messages"]["ready"] == 1 && shown["traffic"].is_object(), "{shown}");
        Ok(shown)
    });
    let shard = &shown["shards"][0];
    assert_eq!(
        (&shard["ready"], &shard["volume"]["phase"]),
        (&Value::from(true), &Value::from("Bound")),
        "{shown}"
    );
    assert_eq!(shown["conditions"].as_array().unwrap().len(), 8, "{shown}");
    assert!(
        shown["events"].as_array().unwrap().iter().any(|event| event["reason"] == "ShardsReady"),
        "{shown}"
    );

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    let made = ackwell(&namespace, &["debug-bundle", "orders", "--to", to.to_str().unwrap()]).exits(0);
    assert_eq!(made.stdout().trim(), to.to_str().unwrap());
    let read = |file: &str| fs::read_to_string(to.join(file)).unwrap();
    assert!(read("ackwell-orders-0.metrics").contains("ackwell_sent_total"));
    assert!(read("ackwell-orders-0.log").contains("serving"));
    let files: Vec<_> = fs::read_dir(&to).unwrap().map(|file| file.unwrap().path()).collect();
    let logs = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")).count();
    assert!(logs >= 3, "of the broker and both operators: {files:?}");
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(!PRIVATE.iter().any(|private| text.contains(private)), "{}", file.display());
    }
}

/// Promise: a restart, and the way to no brokers and back, are done when the command says so.
#[test]
fn person_restarts_and_suspends() {
    let namespace = Namespace::new("restart");
    namespace.queue(ORDERS);
    let before = broker(&namespace, 0);
    let done = |args: &[&str]| drop(ackwell(&namespace, args).exits(0));
    done(&["restart", "orders", "--wait", "5m"]);
    let after = broker(&namespace, 0);
    assert_ne!(after.0, before.0, "another pod");
    done(&["suspend", "orders", "--wait", "5m"]);
    assert!(namespace.list("pods", "ackwell.dev/queue=orders").unwrap().is_empty());
    done(&["suspend", "orders", "--end", "--wait", "5m"]);
    assert_ne!(broker(&namespace, 0).0, after.0);
}
