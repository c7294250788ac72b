//! A Queue that serves is backed up into a claim, and another one begins with that.

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell_proto::duration;
use ackwell_proto::v1::message::Available;
use ackwell_proto::v1::{Message, State};
use ackwell_tests::caller::message;
use ackwell_tests::cluster::{Namespace, PortForward, kill_process};
use ackwell_tests::wait::until;
use serde_json::{Value, json};

use crate::load::Load;
use crate::manifests::ORDERS;
use crate::queue::{LIMIT, text};

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: backups}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 256Mi}}
";
/// In each shard.
const MESSAGES: usize = 300;

/// Promise: what is in a Queue that serves is in its backup, though a broker is killed meanwhile; and in a Queue of another number of shards
/// before anybody can send there. A backup that is not there is named, and a Queue that waits for it is not ready.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the processes of the cluster: cargo xtask test --only e2e runs it after the others"]
async fn queue_is_backed_up_and_another_begins_with_it() {
    let namespace = Namespace::new("backups");
    namespace.apply(CLAIM);
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let mut sent = BTreeSet::new();
    for ordinal in 0..2 {
        sent.extend(put_off(&namespace, ordinal).await);
    }
    let load = Load::start(&namespace);
    let spec = json!({"queueName": "orders", "backup": {"claimName": "backups", "path": "orders/1"}});
    namespace.apply(
        &json!({
            "apiVersion": "ackwell.dev/v1alpha1", "kind": "QueueTask", "metadata": {"name": "nightly"}, "spec": spec,
        })
        .to_string(),
    );
    let pod = namespace.get("pod", "ackwell-orders-1").unwrap();
    kill_process(&namespace, &pod, "ackwelld").unwrap();
    let status = until("the backup to be over", LIMIT, || {
        let status = namespace.get("queuetasks.ackwell.dev", "nightly")?["status"].take();
        anyhow::ensure!(!["", "Pending", "Running"].contains(&text(&status["state"])), "{status}");
        Ok(status)
    });
    assert_eq!(status["state"], "Succeeded", "{status}");
    assert!(status["processed"].as_u64().unwrap() >= sent.len() as u64, "{status}");
    load.wait_flows();
    load.finish();

    namespace.apply(&begins_with("lost", "orders/2"));
    until("the Queue without a backup to say so", LIMIT, || {
        let (stalled, ready) =
            (condition(&namespace, "lost", "Stalled")?, condition(&namespace, "lost", "Ready")?);
        anyhow::ensure!(
            text(&stalled["reason"]) == "RestoreFailed" && ready["status"] == "False",
            "{stalled}"
        );
        Ok(())
    });
    namespace.expect(&["delete", "queues.ackwell.dev", "lost", "--timeout=50s"]);

    namespace.apply(&begins_with("copies", "orders/1"));
    namespace.wait("queues.ackwell.dev/copies", "condition=Ready", LIMIT);
    let restore = namespace.get("queues.ackwell.dev", "copies").unwrap()["status"]["restore"].take();
    assert_eq!((&restore["state"], &restore["messages"]), (&json!("Done"), &status["processed"]));
    let mut there = BTreeSet::new();
    for ordinal in 0..3 {
        let forward = PortForward::start(&namespace, &format!("ackwell-copies-{ordinal}"), 7400);
        for message in forward.caller("copies").await.peek(&[State::Delayed]).await {
            assert!(there.insert(message.id.clone()), "{} is there twice", message.id);
        }
    }
    assert_eq!(there, sent);
}

/// Stores messages for later in a shard; their ids.
async fn put_off(namespace: &Namespace, ordinal: u32) -> Vec<String> {
    let forward = PortForward::start(namespace, &format!("ackwell-orders-{ordinal}"), 7400);
    let delay = Some(Available::Delay(duration(Duration::from_hours(1).as_millis().try_into().unwrap())));
    let later = |n| Message { available: delay, ..message(format!("later {n}")) };
    let sent = forward.caller("orders").await.send((0..MESSAGES).map(later).collect()).await.unwrap();
    sent.into_iter().map(|sent| sent.id).collect()
}

fn begins_with(name: &str, path: &str) -> String {
    let from = json!({"restoreFrom": {"claimName": "backups", "path": path}});
    let queue = json!({
        "apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name},
        "spec": {"shards": 3, "storage": {"size": "256Mi"}, "bootstrap": from, "clients": [{"verbs": ["peek"]}]},
    });
    queue.to_string()
}

fn condition(namespace: &Namespace, queue: &str, type_: &str) -> anyhow::Result<Value> {
    let queue = namespace.get("queues.ackwell.dev", queue)?;
    let conditions = queue["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|one| one["type"] == type_).ok_or_else(|| anyhow::anyhow!("no {type_} yet"))
}
