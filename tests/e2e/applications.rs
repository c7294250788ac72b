//! Applications that use a client library: replaced, crashing, and over a socket of their own, while messages flow.

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell_tests::cluster::{Followed, Namespace, PortForward};
use ackwell_tests::wait::until;
use serde_json::{Value, json};

use crate::manifests::ORDERS;
use crate::queue::text;

const LIMIT: Duration = Duration::from_mins(3);
/// Longer than any test here: what comes back before does so because its holder is known to be gone.
const ACK_TIMEOUT: &str = "ackTimeoutSeconds: 600, maxAttempts: 2";

/// Sends one message after the other until it is to end. What its calls throw, it prints.
const PRODUCER: &str = r#"
import json, signal, threading
import ackwell
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with ackwell.Client() as client:
    while not stop.wait(0.02):
        try:
            print(json.dumps({"sent": client.send("orders", "work").id}), flush=True)
        except Exception as error:
            print(json.dumps({"failed": repr(error)}), flush=True)
"#;

/// Works on several messages at a time, and holds some more.
pub(crate) const WORKER: &str = r#"
import json, time
import ackwell
def handle(delivery):
    time.sleep(0.1)
    print(json.dumps({"processed": delivery.id, "attempts": delivery.message.attempts}), flush=True)
with ackwell.Client() as client:
    client.consume("orders", handle, concurrency=8, prefetch=8)
"#;

/// Dies of one message, and works on the others.
const CRASHER: &str = r#"
import json, os
import ackwell
def handle(delivery):
    if delivery.body == b"poison":
        os._exit(1)
    print(json.dumps({"processed": delivery.id, "attempts": delivery.message.attempts}), flush=True)
with ackwell.Client() as client:
    client.consume("orders", handle)
"#;

/// Sends one message, and says by which way.
const SOCKET_SENDER: &str = r#"
import json, os, signal
import ackwell
with ackwell.Client() as client:
    sent = client.send("orders", "by socket").id
print(json.dumps({"sent": sent, "address": os.environ["ACKWELL_ADDRESS"]}), flush=True)
signal.pause()
"#;

/// Promise: producers and consumers may be replaced at any time: no producer sees an error, every message is worked on once, and
/// none counts an attempt.
#[test]
fn rolling_restarts_under_load_show_no_error_and_count_no_attempt() {
    let namespace = queue("restarted");
    let (sent, processed) = (follow(&namespace, "producer"), follow(&namespace, "worker"));
    namespace.apply(&deployment("producer", PRODUCER));
    namespace.apply(&deployment("worker", WORKER));
    for _ in 0..2 {
        wait_more(&processed, "processed");
        let both = ["deployment/producer", "deployment/worker"];
        namespace.expect(&["rollout", "restart", both[0], both[1]]);
        for one in both {
            namespace.expect(&["rollout", "status", one, "--timeout=55s"]);
        }
        wait_more(&sent, "sent");
    }
    namespace.expect(&["scale", "deployment/producer", "--replicas=0"]);
    namespace.wait("pod --selector=app=producer", "delete", LIMIT);
    assert_eq!(sent.lines_with("failed"), Vec::<Value>::new());
    wait_processed(&processed, &ids(&sent, "sent"));
    let lines = processed.lines_with("processed");
    let blamed: Vec<_> = lines.iter().filter(|line| line["attempts"] != 0).collect();
    assert_eq!((blamed.len(), lines.len()), (0, ids(&processed, "processed").len()), "{blamed:?}");
}

/// Promise: an application that dies of a message gets it back as soon as it is started again, and after its attempts it is Dead; no
/// other message is blamed, and the sidecar outlives all of it.
#[test]
fn application_that_dies_of_a_message_is_rid_of_it() {
    let namespace = queue("crashing");
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    for body in ["first", "poison", "second", "third"] {
        let _ = forward.command_line(&["send", "orders", "--body", body]).exits(0);
    }
    let processed = follow(&namespace, "crasher");
    namespace.apply(&deployment("crasher", CRASHER).replace("replicas: 2", "replicas: 1"));
    let dead = until("the message to be Dead", LIMIT, || {
        let peek = ["peek", "orders", "--state", "dead", "--body", "--output", "json"];
        forward.command_line(&peek).json().pop().ok_or_else(|| anyhow::anyhow!("none is Dead"))
    });
    assert_eq!((text(&dead["body"]), text(&dead["deadReason"])), ("poison", "MAX_ATTEMPTS"));
    let outcomes: Vec<_> =
        dead["history"].as_array().unwrap().iter().map(|one| text(&one["outcome"])).collect();
    assert_eq!(outcomes, ["consumer-lost", "consumer-lost"]);
    until("the others to be worked on", LIMIT, || {
        let lines = processed.lines_with("processed");
        anyhow::ensure!(lines.len() == 3, "{lines:?}");
        Ok(())
    });
    let blamed = processed.lines_with("processed").iter().filter(|line| line["attempts"] != 0).count();
    assert_eq!(blamed, 0);
    let pod = &namespace.list("pods", "app=crasher").unwrap()[0]["status"];
    assert_eq!(pod["initContainerStatuses"][0]["restartCount"], 0, "{}", pod["initContainerStatuses"]);
}

/// Promise: with its annotation a pod's applications find the sidecar at a socket in their file system, without a setting.
#[test]
fn pod_with_a_unix_socket_is_served_over_it() {
    let namespace = queue("socket");
    let sent = follow(&namespace, "sender");
    let annotation = "ackwell.dev/queues: orders, ackwell.dev/unix-socket: \"true\"";
    let sender = deployment("sender", SOCKET_SENDER).replace("ackwell.dev/queues: orders", annotation);
    namespace.apply(&sender.replace("replicas: 2", "replicas: 1"));
    let line = until("it to be sent", LIMIT, || {
        sent.lines_with("sent").pop().ok_or_else(|| anyhow::anyhow!("{:?}", sent.lines()))
    });
    assert_eq!(line["address"], "unix:/var/run/ackwell-socket/sidecar.sock");
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let received = forward.command_line(&["receive", "orders", "--output", "json"]).json();
    assert_eq!((&received[0]["id"], &received[0]["body"]), (&line["sent"], &json!("by socket")));
}

fn queue(name: &str) -> Namespace {
    let namespace = Namespace::new(name);
    namespace.queue(&ORDERS.replace("maxAttempts: 2", ACK_TIMEOUT));
    namespace
}

/// Two pods that run a Python program, in the image of an example that has the client.
pub(crate) fn deployment(name: &str, program: &str) -> String {
    let security =
        "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}";
    let command = json!(["python3", "-c", program]);
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}, ackwell.dev/inject: \"true\"}}
      annotations: {{ackwell.dev/queues: orders}}
    spec:
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: app
        image: localhost/ackwell/example-orders-sender:dev
        command: {command}
        env: [{{name: PYTHONPATH, value: /app}}]
        securityContext: {security}
"
    )
}

pub(crate) fn follow(namespace: &Namespace, name: &str) -> Followed {
    Followed::start(namespace, &format!("app={name}"), "app")
}

/// Until a hundred more lines have this field.
pub(crate) fn wait_more(followed: &Followed, field: &str) {
    let before = followed.lines_with(field).len();
    until(&format!("100 more than {before} {field}"), LIMIT, || {
        let now = followed.lines_with(field).len();
        anyhow::ensure!(now >= before + 100, "{now}");
        Ok(())
    });
}

fn wait_processed(processed: &Followed, sent: &BTreeSet<String>) {
    until("everything sent to be processed", LIMIT, || {
        let missing: Vec<_> = sent.difference(&ids(processed, "processed")).cloned().collect();
        anyhow::ensure!(
            missing.is_empty(),
            "{} of {} missing, like {}",
            missing.len(),
            sent.len(),
            missing[0]
        );
        Ok(())
    });
}

pub(crate) fn ids(followed: &Followed, field: &str) -> BTreeSet<String> {
    followed.lines_with(field).iter().map(|line| text(&line[field]).to_owned()).collect()
}
