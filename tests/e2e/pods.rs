//! Pods with an injected sidecar: from their first second to their graceful end.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ackwell_proto::v1::StatsRequest;
use ackwell_tests::caller::{Caller, ack, delivered};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::{now, until, until_async};
use serde_json::json;

use crate::manifests::{ORDERS, idle_pod, job, stubborn_pod};

const DONE: Duration = Duration::from_mins(2);
/// Long enough for a busy machine to do in it what the test does.
const GRACE: Duration = Duration::from_secs(30);

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

/// Promise: while a pod ends, its application gets no more messages, and can settle what it holds, and send, for all of its grace
/// period. What it still holds when it is killed goes back, and no attempt is counted.
#[tokio::test(flavor = "multi_thread")]
async fn ending_pod_is_served_until_its_application_is_gone() {
    let namespace = Namespace::new("draining");
    // Longer than the grace period: a call to Receive is not extended.
    let orders = ORDERS.replace("maxAttempts: 2", "ackTimeoutSeconds: 120, maxAttempts: 2");
    namespace.queue(&format!("{orders}---\n{}", ORDERS.replace("name: orders", "name: none")));
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let direct = forward.caller("orders").await;
    namespace.apply(&stubborn_pod("consumer", GRACE.as_secs()));
    namespace.pod_ready("consumer");
    let held = direct.send_body("held").await;
    direct.send_body("settled").await;
    let (api, http) =
        (PortForward::start(&namespace, "consumer", 7400), PortForward::start(&namespace, "consumer", 7410));
    let through = api.caller("orders").await;
    let holding = through.receive_one().await;
    assert_eq!(delivered(&holding).id, held);
    let settled = through.receive_one().await;

    let told = now();
    namespace.expect(&["delete", "pod", "consumer", "--wait=false"]);
    until("the sidecar to know that its pod ends", GRACE, || match ready_code(&http).as_str() {
        "503" => Ok(()),
        code => anyhow::bail!("{code}"),
    });
    let others = direct.send_body("for others").await;
    assert_eq!(through.receive(1, Duration::from_secs(1)).await.unwrap().len(), 0);
    through.settle_one(ack(&settled)).await.expect("what it holds it can settle");
    // Nobody but its application extends what was received without a stream.
    through.extend(&holding, DONE).await.expect("and extend");
    let last = through.send_body("last words").await;
    assert!(told.elapsed() < GRACE, "all of this within the grace period: {:?}", told.elapsed());

    namespace.wait("pod/consumer", "delete", DONE);
    assert!(told.elapsed() >= GRACE, "the application does not go before: {:?}", told.elapsed());
    // A connection that answered no pings while this thread waited for kubectl is closed.
    let direct = forward.caller("orders").await;
    let mut left = BTreeSet::from([held, others, last]);
    while !left.is_empty() {
        let again = direct.receive_one().await;
        assert!(left.remove(&delivered(&again).id), "{again:?}");
        assert_eq!((delivered(&again).attempts, delivered(&again).history.len()), (0, 0), "{again:?}");
    }
}

/// What the sidecar answers to a readiness probe.
fn ready_code(http: &PortForward) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http.address())?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    ask().unwrap_or_else(|error| error.to_string())
}

/// Promise: a pod of another namespace is refused, and told why, until `spec.clients` grants what it does; then it is named on
/// its message.
#[tokio::test]
async fn pod_of_another_namespace_is_refused_until_granted() {
    let (namespace, web) = (Namespace::new("granting"), Namespace::new("granted"));
    namespace.queue(ORDERS);
    let orders = format!("{}/orders", namespace.namespace());
    let sender = |name: &str| {
        let job = job(name, &["send", &orders, "--body", name]);
        job.replace("queues: orders", &format!("queues: {orders}"))
    };
    let account = format!("{}/default", web.namespace());
    web.apply(&sender("early"));
    web.wait("job/early", "condition=Failed", DONE);
    let said = web.expect(&["logs", "--selector=batch.kubernetes.io/job-name=early", "--container=app"]);
    assert!(said.contains("PERMISSION_DENIED") && said.contains(&account), "{said}");

    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let stranger = Caller::connect(forward.address(), "orders").await.with_token(&web.token("default"));
    let clients = json!([{"verbs": ["consume"]}, {"namespace": web.namespace(), "verbs": ["send"]}]);
    let patch = json!({"spec": {"clients": clients}}).to_string();
    namespace.expect(&["patch", "queues.ackwell.dev", "orders", "--type=merge", "--patch", &patch]);
    until_async("the grant to take effect", DONE, async || {
        let stats = StatsRequest { queue: "orders".to_owned(), interval: None };
        stranger.admin.clone().stats(stats).await.map(drop).map_err(Into::into)
    })
    .await;
    web.apply(&sender("late"));
    web.wait("job/late", "condition=Complete", DONE);
    let delivery = forward.caller("orders").await.receive_one().await;
    assert_eq!(delivered(&delivery).body, "late");
    assert_eq!(delivered(&delivery).headers["ackwell-sender"], account);
}

/// Promise: a broker takes nothing that crosses the network in the clear, whoever sends it.
#[tokio::test]
async fn plaintext_from_another_pod_is_refused() {
    let namespace = Namespace::new("plaintext");
    namespace.queue(ORDERS);
    let address = format!("ackwell-orders.{}.svc:7400", namespace.namespace());
    namespace.apply(&job("plain", &["send", "orders", "--body", "in the clear", "--address", &address]));
    namespace.wait("job/plain", "condition=Failed", DONE);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    assert!(forward.caller("orders").await.is_empty().await, "nothing was stored");
}
