//! Queues whose pods are an application with a broker beside it.

use std::collections::BTreeSet;

use ackwell_tests::caller::delivered;
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::until;
use serde_json::{Value, json};

use crate::applications::{WORKER, deployment, follow, ids, wait_more};
use crate::load::Load;
use crate::manifests::ORDERS;
use crate::operations::two_shards;
use crate::queue::{LIMIT, broker, condition, patch, text, wait_condition, wait_up_to_date};

/// Sends, and works on what comes. Told to end it drains, and then sends its last words: that takes a broker that is still there.
const BOTH: &str = r#"
import json, os, threading
import ackwell
def say(**line):
    print(json.dumps(line), flush=True)
def handle(delivery):
    say(processed=delivery.id, attempts=delivery.message.attempts, by="application")
def send(body):
    try:
        say(sent=client.send("orders", body).id)
    except Exception as error:
        say(failed=repr(error))
def produce():
    while not stop.wait(0.05):
        send("work")
stop = threading.Event()
with ackwell.Client() as client:
    producer = threading.Thread(target=produce)
    if os.environ["SENDS"] == "yes":
        producer.start()
    client.consume("orders", handle, concurrency=2)
    stop.set()
    if producer.ident:
        producer.join()
        send("last words")
"#;

/// Does nothing until it is told to end.
const IDLE: &str = "import signal; signal.sigwait({signal.SIGTERM})";

/// Promise: the application of an Embedded Queue reaches all messages at its own address, and so do pods elsewhere. Its template
/// changes under load, one pod after the other: no call fails, nothing is lost, and no attempt is counted.
#[test]
fn embedded_queue_serves_its_application_and_others_while_it_is_replaced() {
    let namespace = Namespace::new("embedded");
    let (application, others) = (follow(&namespace, "both"), follow(&namespace, "worker"));
    let orders = two_shards().replace("maxAttempts: 2", "ackTimeoutSeconds: 600, maxAttempts: 2");
    namespace.apply(&format!("{orders}  template: {}\n", template("yes", "1")));
    namespace.apply(&deployment("worker", WORKER).replace("replicas: 2", "replicas: 1"));
    wait_up_to_date(&namespace);
    wait_more(&application, "processed");
    wait_more(&others, "processed");

    patch(&namespace, &json!({"template": template("yes", "2")}));
    wait_all(&namespace, "VERSION", "2");
    wait_up_to_date(&namespace);
    wait_more(&application, "processed");
    wait_more(&others, "processed");

    patch(&namespace, &json!({"template": template("no", "2")}));
    wait_all(&namespace, "SENDS", "no");
    wait_up_to_date(&namespace);
    let sent = ids(&application, "sent");
    until("everything sent to be processed", LIMIT, || {
        let processed: BTreeSet<_> =
            [&application, &others].into_iter().flat_map(|one| ids(one, "processed")).collect();
        let missing = sent.difference(&processed).count();
        anyhow::ensure!(missing == 0, "{missing} of {} missing", sent.len());
        Ok(())
    });
    assert_eq!(application.lines_with("failed"), Vec::<Value>::new());
    let lines = [&application, &others].into_iter().flat_map(|one| one.lines_with("processed"));
    let blamed: Vec<_> = lines.filter(|line| line["attempts"] != 0).collect();
    assert_eq!(blamed, Vec::<Value>::new());
}

/// Promise: the broker ends after its application: what that sends on its way out is stored, and there when the pod is back. An
/// application that does not get ready keeps nobody else from the messages.
#[tokio::test]
async fn last_words_of_the_application_are_stored() {
    let namespace = Namespace::new("last-words");
    let application = follow(&namespace, "both");
    namespace.apply(&format!("{ORDERS}  template: {}\n", template("yes", "1")));
    wait_up_to_date(&namespace);
    wait_more(&application, "sent");
    let mut unready = template("no", "2");
    unready["spec"]["containers"][0]["command"] = json!(["python3", "-c", IDLE]);
    unready["spec"]["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["false"]}});
    patch(&namespace, &json!({"template": unready}));
    wait_condition(&namespace, "Ready", "False/ApplicationUnready");
    assert_eq!(condition(&namespace, "Available").unwrap(), "True/MinimumShards");
    assert_eq!(application.lines_with("failed"), Vec::<Value>::new());

    let last = application.lines_with("sent").pop().unwrap();
    // A pod whose application has not been started is Pending though its broker serves, and kubectl forwards to none such.
    namespace.wait("pod/ackwell-orders-0", "jsonpath={.status.phase}=Running", LIMIT);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    loop {
        let delivery = caller.receive_one().await;
        if delivered(&delivery).id == text(&last["sent"]) {
            assert_eq!(delivered(&delivery).body, "last words");
            break;
        }
    }
    namespace.expect(&["delete", "queues.ackwell.dev", "orders", "--timeout=20s"]);
    namespace.wait("pod/ackwell-orders-0", "delete", LIMIT);
    assert!(namespace.get("persistentvolumeclaim", "data-ackwell-orders-0").is_ok(), "its volume stays");
}

/// Promise: a Queue becomes Embedded and is itself again while messages flow; its volumes grow, and it stops for a while, as any.
#[test]
fn template_comes_and_goes_under_load() {
    let namespace = Namespace::new("embed");
    namespace.queue(&two_shards());
    let load = Load::start(&namespace);
    // It sends nothing, and takes nothing away from the load.
    let mut idle = template("no", "1");
    idle["spec"]["containers"][0]["command"] = json!(["python3", "-c", IDLE]);
    for (template, containers) in [(idle, 2), (Value::Null, 0)] {
        patch(&namespace, &json!({"template": template}));
        until("both pods to be replaced", LIMIT, || {
            let pods = namespace.list("pods", "ackwell.dev/queue=orders")?;
            let sidecars =
                |pod: &&Value| pod["spec"]["initContainers"].as_array().map_or(0, Vec::len) == containers;
            let new = pods.iter().filter(sidecars).count();
            anyhow::ensure!(new == 2, "{new} of 2 are new");
            Ok(())
        });
        wait_up_to_date(&namespace);
        load.wait_flows();
        if containers > 0 {
            grows_and_stops(&namespace);
            load.wait_flows();
        }
    }
    let ledger = load.finish();
    assert_eq!(ledger.refused, Vec::<String>::new());
}

fn grows_and_stops(namespace: &Namespace) {
    let uids = || [0, 1].map(|ordinal| broker(namespace, ordinal).0);
    let before = uids();
    patch(namespace, &json!({"storage": {"size": "512Mi"}}));
    until("all volumes to have grown", LIMIT, || {
        let queue = namespace.get("queues.ackwell.dev", "orders")?;
        anyhow::ensure!(queue["status"]["storage"]["floor"] == "512Mi", "{}", queue["status"]["storage"]);
        Ok(())
    });
    wait_up_to_date(namespace);
    assert_eq!(uids(), before, "growing replaces no pod");
    patch(namespace, &json!({"suspend": true}));
    for pod in ["pod/ackwell-orders-0", "pod/ackwell-orders-1"] {
        namespace.wait(pod, "delete", LIMIT);
    }
    patch(namespace, &json!({"suspend": false}));
    wait_up_to_date(namespace);
}

/// A pod template with a Python program, in the image of an example that has the client.
fn template(sends: &str, version: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    let variables = [("PYTHONPATH", "/app"), ("SENDS", sends), ("VERSION", version)];
    json!({
        "metadata": {"labels": {"app": "both"}},
        "spec": {
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "app",
                "image": "localhost/ackwell/example-orders-sender:dev",
                "command": ["python3", "-c", BOTH],
                "env": variables.map(|(name, value)| json!({"name": name, "value": value})),
                "securityContext": security,
            }],
        },
    })
}

/// Until both pods have a variable of this value, and none is about to go.
fn wait_all(namespace: &Namespace, name: &str, value: &str) {
    let wanted = json!({"name": name, "value": value});
    until(&format!("both pods to have {wanted}"), LIMIT, || {
        let pods = namespace.list("pods", "ackwell.dev/queue=orders")?;
        let has = |pod: &&Value| {
            let env = pod["spec"]["containers"][0]["env"].as_array().map(Vec::as_slice).unwrap_or_default();
            env.contains(&wanted) && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let new = pods.iter().filter(has).count();
        anyhow::ensure!(new == 2, "{new} of 2");
        Ok(())
    });
}
