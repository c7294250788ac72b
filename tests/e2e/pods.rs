//! Pods with an injected sidecar: from their first second to their graceful end.

use std::time::Duration;

use ackwell_tests::caller::delivered;
use ackwell_tests::cluster::{Namespace, PortForward};

use crate::manifests::{ORDERS, idle_pod, job};

const DONE: Duration = Duration::from_mins(2);

/// Promise: a Job with a sidecar completes, and its application can send with its first instruction.
#[tokio::test]
async fn job_sends_in_its_first_second_and_completes() {
    let namespace = Namespace::new("job");
    namespace.queue(ORDERS);
    // Sent once, without waiting or retrying for a connection: a sidecar that is not up yet makes the Job fail.
    namespace.apply(&job("sender", &["send", "orders", "--body", "from a job"]));
    namespace.wait("job/sender", "condition=Complete", DONE);
    let pods = namespace.list("pods", "batch.kubernetes.io/job-name=sender").unwrap();
    let sidecars = pods[0]["status"]["initContainerStatuses"].as_array().map(Vec::len);
    assert_eq!((pods.len(), sidecars), (1, Some(1)), "one pod, one sidecar");

    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    assert_eq!(delivered(&forward.caller("orders").await.receive_one().await).body, "from a job");
}

/// Promise: a pod may be applied together with its Queue; it waits for the broker, not in vain.
#[test]
fn pod_applied_with_its_queue_sends_once_the_broker_is_up() {
    let namespace = Namespace::new("together");
    namespace.apply(&format!("{ORDERS}---\n{}", job("sender", &["send", "orders", "--body", "early"])));
    namespace.wait("job/sender", "condition=Complete", DONE);
}

/// Promise: a consumer that ends gracefully gives back what it holds, and no attempt is counted.
#[tokio::test]
async fn consumer_that_ends_gracefully_loses_no_attempt() {
    let namespace = Namespace::new("graceful");
    namespace.queue(ORDERS);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let direct = forward.caller("orders").await;
    namespace.apply(&idle_pod("consumer"));
    namespace.pod_ready("consumer");
    let id = direct.send_body("held").await;
    let through = PortForward::start(&namespace, "consumer", 7400);
    let held = through.caller("orders").await.receive_one().await;
    assert_eq!(delivered(&held).id, id);

    namespace.expect(&["delete", "pod", "consumer", "--timeout=60s"]);
    let again = direct.receive_one().await;
    assert_eq!((&delivered(&again).id, delivered(&again).attempts), (&id, 0));
    assert!(delivered(&again).history.is_empty());
}
