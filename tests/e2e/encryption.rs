//! A Queue whose stores are sealed.

use ackwell_tests::caller::{ack, delivered};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait::until;
use serde_json::json;

use crate::manifests::ORDERS;
use crate::queue::{LIMIT, patch, wait_condition, wait_up_to_date};

const FIRST: (&str, &str) = ("k1", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
const SECOND: (&str, &str) = ("k2", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");

fn secret(keys: &[(&str, &str)]) -> String {
    let keys: serde_json::Map<_, _> = keys.iter().map(|(id, key)| ((*id).to_owned(), json!(key))).collect();
    let metadata = json!({"name": "orders-keys"});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}).to_string()
}

/// A new process, at once instead of when its turn comes after several failures.
fn replace(namespace: &Namespace) {
    namespace.expect(&["delete", "pod", "ackwell-orders-0", "--timeout=60s"]);
}

/// Promise: a sealed Queue whose key is taken away says which one it needs and loses nothing; when it is back, and a newer one with
/// it, everything is there. What is sealed with which key cannot be changed afterwards.
#[tokio::test]
async fn sealed_queue_survives_the_loss_and_the_change_of_its_key() {
    let namespace = Namespace::new("sealed");
    namespace.apply(&secret(&[FIRST]));
    namespace.apply(&format!("{ORDERS}  encryption: {{secretName: orders-keys}}\n"));
    wait_up_to_date(&namespace);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    caller.send_body("before").await;
    drop(forward);

    namespace.expect(&["delete", "secret", "orders-keys"]);
    replace(&namespace);
    let message = wait_condition(&namespace, "Stalled", "True/EncryptionKeyMissing");
    assert!(message.contains("orders-keys") && message.contains("k1"), "{message}");

    namespace.apply(&secret(&[SECOND]));
    replace(&namespace);
    until("the broker to name the key among others", LIMIT, || {
        let message = wait_condition(&namespace, "Stalled", "True/EncryptionKeyMissing");
        anyhow::ensure!(message.contains("not among those given (k2)"), "{message}");
        Ok(())
    });

    namespace.expect(&["delete", "secret", "orders-keys"]);
    namespace.apply(&secret(&[FIRST, SECOND]));
    replace(&namespace);
    wait_up_to_date(&namespace);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    let delivery = caller.receive_one().await;
    assert_eq!(delivered(&delivery).body, "before");
    caller.settle_one(ack(&delivery)).await.unwrap();
    caller.send_body("after").await;
    assert_eq!(delivered(&caller.receive_one().await).body, "after");

    let patched = std::panic::catch_unwind(|| patch(&namespace, &json!({"encryption": null})));
    assert!(patched.is_err(), "what is sealed stays sealed");
}
