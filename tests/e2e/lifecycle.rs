//! Deleting a Queue never hangs and keeps its messages.

use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_tests::caller::{delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::until_async;

use crate::manifests::ORDERS;

/// Pods end within their grace period; nothing else is waited for.
const GONE: Duration = Duration::from_mins(1);

/// Promise: a deleted Queue is gone at once, its volume stays, and a Queue of the same name serves what it holds.
#[tokio::test]
async fn recreated_queue_serves_the_old_messages() {
    let namespace = Namespace::new("recreate");
    namespace.queue(ORDERS);
    let id = {
        let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
        forward.caller("orders").await.send_body("kept").await
    };
    let claim = namespace.get("persistentvolumeclaim", "data-ackwell-orders-0").unwrap();

    namespace.expect(&["delete", "queues.ackwell.dev", "orders", "--timeout=20s"]);
    namespace.wait("pod/ackwell-orders-0", "delete", GONE);
    let kept = namespace.get("persistentvolumeclaim", "data-ackwell-orders-0").unwrap();
    assert_eq!(kept["metadata"]["uid"], claim["metadata"]["uid"]);
    assert!(kept["metadata"]["deletionTimestamp"].is_null());

    namespace.queue(ORDERS);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let delivery = forward.caller("orders").await.receive_one().await;
    assert_eq!((&delivered(&delivery).id, delivered(&delivery).body.as_ref()), (&id, b"kept".as_slice()));
}

/// Promise: deleting waits for nobody, not even for a broker that cannot start or an operator that is away.
#[test]
fn queue_that_never_ran_is_deleted_at_once() {
    let namespace = Namespace::new("delete");
    let broken = ORDERS.replace("size: 256Mi", "size: 256Mi, className: none-such");
    assert_ne!(broken, ORDERS);
    namespace.apply(&broken);
    namespace.wait_object("pod/ackwell-orders-0", "create");
    namespace.expect(&["delete", "queues.ackwell.dev", "orders", "--timeout=20s"]);
    namespace.wait("pod/ackwell-orders-0", "delete", GONE);
}

/// Promise: changed settings reach the running broker; its pod stays.
#[tokio::test]
async fn changed_setting_reaches_the_broker_without_a_restart() {
    let namespace = Namespace::new("settings");
    namespace.queue(ORDERS);
    let before = namespace.get("pod", "ackwell-orders-0").unwrap();
    let patch = r#"{"spec": {"limits": {"maxMessageBytes": 1024}}}"#;
    namespace.expect(&["patch", "queues.ackwell.dev", "orders", "--type=merge", "--patch", patch]);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    until_async("the limit to apply", Duration::from_secs(30), async || {
        let sent = caller.try_send(message(vec![0; 1025])).await;
        anyhow::ensure!(
            sent.as_ref().is_err_and(|error| error.reason == Reason::MessageTooLarge),
            "{sent:?}"
        );
        Ok(())
    })
    .await;
    let after = namespace.get("pod", "ackwell-orders-0").unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
}
