//! The examples, applied as their READMEs say, while things are killed under them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use ackwell_tests::cluster::{Followed, Namespace, PortForward, kill_process};
use ackwell_tests::wait;
use serde_json::Value;

/// Senders take 10 to 12 s by themselves; a broker that was killed, and a worker that is replaced, add to that.
const LIMIT: Duration = Duration::from_mins(4);
/// So many messages are through, or wait in the queue, before anything is killed: it happens in the middle, and would
/// be noticed.
const SOME: usize = 100;

/// One of `examples/`: a queue and two applications.
struct Example {
    queue: &'static str,
    sender: &'static str,
    consumer: &'static str,
}

const ORDERS: Example = Example { queue: "orders", sender: "sender", consumer: "worker" };
const LOGS: Example = Example { queue: "logs", sender: "shipper", consumer: "indexer" };
const NOTIFICATIONS: Example = Example { queue: "notifications", sender: "sender", consumer: "worker" };

/// Promise: whatever is killed, every order that was accepted is booked, whole.
#[test]
fn orders_survive_a_killed_broker_and_a_deleted_worker() {
    survives_kills(&ORDERS);
}

/// Promise: the same for batches of log lines.
#[test]
fn logs_survive_a_killed_broker_and_a_deleted_indexer() {
    survives_kills(&LOGS);
}

/// Promise: the same for notifications, some of them delayed.
#[test]
fn notifications_survive_a_killed_broker_and_a_deleted_worker() {
    survives_kills(&NOTIFICATIONS);
}

/// Promise: the graceful end of a consumer loses no attempt and no message.
#[test]
fn order_worker_that_is_replaced_loses_no_attempt() {
    let namespace = Namespace::new("replaced");
    let run = Run::start(
        &namespace,
        &ORDERS,
        &[
            (r#"COUNT, value: "1000""#, r#"COUNT, value: "200""#),
            (r#"{name: POISON, value: ""}"#, r#"{name: WORK_MS, value: "300"}"#),
        ],
    );
    run.wait_processed(50);
    run.delete_consumer();
    run.wait_all_processed();
    let processed = run.processed.lines_with("processed");
    let blamed: Vec<_> = processed.iter().filter(|line| line["attempts"] != 0).collect();
    assert!(blamed.is_empty(), "{blamed:?}");
}

/// Promise: an order that cannot be booked is set aside, seen, and booked after the fix, on one command.
#[test]
fn poisonous_order_is_booked_after_the_fix() {
    let namespace = Namespace::new("fixed");
    let run = Run::start(
        &namespace,
        &ORDERS,
        &[
            (r#"COUNT, value: "1000""#, r#"COUNT, value: "20""#),
            (r#"{name: POISON, value: ""}"#, r"{name: POISON, value: CDNOW-000007}"),
        ],
    );
    run.wait_processed(19);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let all = r#"{"spec": {"clients": [{"verbs": ["send", "consume", "peek", "admin"]}]}}"#;
    namespace.expect(&["patch", "queues.ackwell.dev", "orders", "--type=merge", "--patch", all]);
    let dead = wait::until("the order to be Dead", LIMIT, || {
        let peek = ["peek", "orders", "--state", "dead", "--body", "--output", "json"];
        forward.command_line(&peek).json().pop().ok_or_else(|| anyhow::anyhow!("none is Dead"))
    });
    assert_eq!(dead["deadReason"], "MAX_ATTEMPTS");
    assert!(
        dead["history"][0]["reason"].as_str().is_some_and(|reason| reason.contains("payment refused")),
        "{dead}"
    );

    namespace.expect(&["set", "env", "deployment/orders-worker", "POISON="]);
    namespace.expect(&["rollout", "status", "deployment/orders-worker", "--timeout=55s"]);
    let _ = forward.command_line(&["redrive", "orders"]).exits(0);
    run.wait_all_processed();
}

fn survives_kills(example: &Example) {
    let namespace = Namespace::new(example.queue);
    let run = Run::start(&namespace, example, &[]);
    run.wait_processed(SOME);
    run.scale_consumer(0);
    run.wait_backlog(SOME);
    run.kill_broker();
    run.scale_consumer(1);
    run.wait_processed(run.processed_ids().len() + SOME);
    run.delete_consumer();
    run.wait_all_processed();
    run.assert_bodies_are_whole();
    run.wait_empty();
}

/// A running example.
struct Run<'a> {
    namespace: &'a Namespace,
    example: &'a Example,
    sent: Followed,
    processed: Followed,
}

impl<'a> Run<'a> {
    /// Applies the example, with replacements in its applications' manifest.
    fn start(namespace: &'a Namespace, example: &'a Example, replacements: &[(&str, &str)]) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).join(example.queue);
        let mut app = std::fs::read_to_string(folder.join("app.yaml")).unwrap();
        for (from, to) in replacements {
            assert!(app.contains(from), "app.yaml contains {from}");
            app = app.replace(from, to);
        }
        let follow = |role: &str| Followed::start(namespace, &selector(example, role), role);
        let (sent, processed) = (follow(example.sender), follow(example.consumer));
        namespace.apply(&std::fs::read_to_string(folder.join("queue.yaml")).unwrap());
        namespace.apply(&app);
        Self { namespace, example, sent, processed }
    }

    fn wait_processed(&self, count: usize) {
        wait::until(&format!("{count} processed"), LIMIT, || {
            let processed = self.processed_ids().len();
            anyhow::ensure!(processed >= count, "{processed} processed");
            Ok(())
        });
    }

    /// Until so many accepted messages are stored and nothing more than stored.
    fn wait_backlog(&self, count: usize) {
        wait::until("messages to pile up", LIMIT, || {
            let waiting = self.bodies().len().saturating_sub(self.processed_ids().len());
            anyhow::ensure!(waiting >= count, "{waiting} waiting");
            Ok(())
        });
    }

    fn scale_consumer(&self, replicas: usize) {
        let deployment = format!("deployment/{}-{}", self.example.queue, self.example.consumer);
        self.namespace.expect(&["scale", &deployment, &format!("--replicas={replicas}")]);
    }

    /// Until the sender has said that it is done, and everything that was accepted is processed.
    fn wait_all_processed(&self) {
        let total = wait::until("the sender to be done", LIMIT, || {
            let done = self.sent.lines_with("done").pop();
            done.and_then(|line| line["done"].as_u64())
                .ok_or_else(|| anyhow::anyhow!("{} sent", self.bodies().len()))
        });
        wait::until("everything sent to be processed", LIMIT, || {
            let (sent, processed) = (self.bodies(), self.processed_ids());
            let missing: Vec<_> = sent.keys().filter(|id| !processed.contains(*id)).collect();
            let read = u64::try_from(sent.len())?;
            anyhow::ensure!(read >= total, "{read} of {total} lines of the sender were read");
            anyhow::ensure!(
                missing.is_empty(),
                "{} of {total} missing, like {:?}",
                missing.len(),
                missing[0]
            );
            Ok(())
        });
    }

    /// SIGKILL for the broker's process, in the middle of everything; its container is started again.
    fn kill_broker(&self) {
        let name = format!("ackwell-{}-0", self.example.queue);
        let pod = self.namespace.get("pod", &name).unwrap();
        kill_process(self.namespace, &pod, "ackwelld broker").unwrap();
        let was = (pod["metadata"]["uid"].clone(), restarts(&pod));
        wait::until("the broker to be back", LIMIT, || {
            let pod = self.namespace.get("pod", &name)?;
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            anyhow::ensure!(
                ready && (pod["metadata"]["uid"].clone(), restarts(&pod)) != was,
                "{}",
                pod["status"]
            );
            Ok(())
        });
    }

    fn delete_consumer(&self) {
        let pod = self.namespace.ready_pod(&selector(self.example, self.example.consumer));
        self.namespace.expect(&["delete", "pod", pod["metadata"]["name"].as_str().unwrap(), "--wait=false"]);
    }

    fn assert_bodies_are_whole(&self) {
        let sent = self.bodies();
        for line in self.processed.lines_with("processed") {
            let id = line["processed"].as_str().unwrap();
            // One whose sender was killed before it could say so is not known here.
            if let Some(hash) = sent.get(id) {
                assert_eq!(line["sha256"], hash.as_str(), "body of {id}");
            }
        }
    }

    /// Nothing is left in the queue, and its status says so.
    fn wait_empty(&self) {
        wait::until("the queue to be empty", LIMIT, || {
            let queue = self.namespace.get("queues.ackwell.dev", self.example.queue)?;
            let messages = &queue["status"]["messages"];
            let empty = ["ready", "inFlight", "delayed", "dead"].iter().all(|state| messages[state] == 0);
            anyhow::ensure!(empty, "{messages}");
            Ok(())
        });
    }

    /// Hashes of the bodies that were accepted, by id.
    fn bodies(&self) -> HashMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.sent.lines_with("sent").iter().map(|line| (text(&line["sent"]), text(&line["sha256"]))).collect()
    }

    fn processed_ids(&self) -> HashSet<String> {
        let lines = self.processed.lines_with("processed");
        lines.iter().filter_map(|line| line["processed"].as_str().map(str::to_owned)).collect()
    }
}

fn selector(example: &Example, role: &str) -> String {
    format!("app.kubernetes.io/name={}-{role}", example.queue)
}

fn restarts(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0]["restartCount"].clone()
}
