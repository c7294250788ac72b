//! Deleting a Queue never hangs and keeps its messages.

use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_tests::caller::{delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::{self, until_async};
use serde_json::json;

use crate::load::Load;
use crate::manifests::ORDERS;
use crate::operations::two_shards;
use crate::queue::{LIMIT, patch, text};

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

/// Promise: whoever deletes a Queue in the middle of its work and makes it again has lost nothing that was confirmed, and its callers
/// have waited.
#[test]
fn queue_deleted_under_load_goes_on_when_it_is_made_again() {
    let namespace = Namespace::new("delete-load");
    namespace.queue(&two_shards());
    let load = Load::start(&namespace);
    namespace.expect(&["delete", "queues.ackwell.dev", "orders", "--timeout=20s"]);
    for ordinal in [0, 1] {
        namespace.wait(&format!("pod/ackwell-orders-{ordinal}"), "delete", GONE);
    }
    namespace.queue(&two_shards());
    load.wait_flows();
    assert_eq!(load.finish().refused, Vec::<String>::new());
}

/// Promise: a Queue that says so takes its volumes with it; until then a change of mind counts.
#[test]
fn queue_that_says_delete_takes_its_volumes_with_it() {
    let namespace = Namespace::new("take-all");
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  deletionPolicy: Delete\n"));
    let claim = || namespace.get("persistentvolumeclaim", "data-ackwell-orders-0").unwrap();
    let volume = format!("persistentvolume/{}", text(&claim()["spec"]["volumeName"]));
    // Both ways: the StatefulSet controller owns the claims that go with their set.
    for (policy, owners) in [("Retain", 0), ("Delete", 1)] {
        patch(&namespace, &json!({"deletionPolicy": policy}));
        wait::until(&format!("the claim to have {owners} owners"), LIMIT, || {
            let has = claim()["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(has == owners, "{has}");
            Ok(())
        });
    }
    namespace.expect(&["delete", "queues.ackwell.dev", "orders", "--timeout=20s"]);
    namespace.wait("persistentvolumeclaim/data-ackwell-orders-0", "delete", GONE);
    namespace.wait(&volume, "delete", GONE);
}

/// Promise: a namespace with Queues in it goes like any other, whatever state they are in, and the operators do not make
/// anything in it again.
#[test]
fn namespace_with_queues_is_deleted() {
    let namespace = Namespace::new("goes");
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let other = |name, change: (&str, &str)| {
        namespace
            .apply(&ORDERS.replace("name: orders", &format!("name: {name}")).replace(change.0, change.1));
    };
    other("stopped", ("spec:\n", "spec:\n  suspend: true\n"));
    other("pending", ("size: 256Mi", "size: 256Mi, className: none-such"));
    namespace.wait_object("pod/ackwell-pending-0", "create");
    namespace.expect(&["delete", "namespace", namespace.namespace(), "--timeout=55s"]);
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
    patch(&namespace, &json!({"limits": {"maxMessageBytes": 1024}}));
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
