//! What tests ask and change of the Queue `orders` in a namespace.

use std::time::Duration;

use ackwell_tests::cluster::Namespace;
use ackwell_tests::wait;
use serde_json::{Value, json};

/// A broker is replaced, or a volume has grown, well within this.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// Merges `spec` into that of the Queue.
pub(crate) fn patch(namespace: &Namespace, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    namespace.expect(&["patch", "queues.ackwell.dev", "orders", "--type=merge", "--patch", &patch]);
}

/// `Status/Reason` of a condition that is about the newest spec.
pub(crate) fn condition(namespace: &Namespace, type_: &str) -> anyhow::Result<String> {
    let (status, reason, _) = finding(namespace, type_)?;
    Ok(format!("{status}/{reason}"))
}

/// Waits for a condition like `True/AllShardsReady`; its message.
pub(crate) fn wait_condition(namespace: &Namespace, type_: &str, wanted: &str) -> String {
    wait::until(&format!("{type_} to be {wanted}"), LIMIT, || {
        let (status, reason, message) = finding(namespace, type_)?;
        anyhow::ensure!(format!("{status}/{reason}") == wanted, "{status}/{reason}: {message}");
        Ok(message)
    })
}

/// Until nothing is left to do.
pub(crate) fn wait_up_to_date(namespace: &Namespace) {
    wait_condition(namespace, "Ready", "True/AllShardsReady");
    wait_condition(namespace, "Reconciling", "False/UpToDate");
}

fn finding(namespace: &Namespace, type_: &str) -> anyhow::Result<(String, String, String)> {
    let queue = namespace.get("queues.ackwell.dev", "orders")?;
    let (seen, newest) = (&queue["status"]["observedGeneration"], &queue["metadata"]["generation"]);
    anyhow::ensure!(seen == newest, "an old status");
    let conditions = queue["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == type_).unwrap_or(&Value::Null);
    Ok(["status", "reason", "message"].map(|field| text(&found[field]).to_owned()).into())
}

/// The text of a field; empty where there is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Which process a broker's pod runs: its uid, and how often its container was started again.
pub(crate) fn broker(namespace: &Namespace, ordinal: u32) -> (String, u64) {
    let pod = namespace.get("pod", &format!("ackwell-orders-{ordinal}")).unwrap();
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
    (text(&pod["metadata"]["uid"]).to_owned(), restarts)
}
