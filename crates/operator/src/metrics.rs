//! Metrics of the operator, in the Prometheus text format.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ackwell_api::conditions::types;
use ackwell_api::{Queue, TaskState};
use kube::ResourceExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, &'static str); N];
/// Of a Queue: as many as there are Queues, times what is told of each.
type QueueLabels<const N: usize> = [(&'static str, String); N];

/// Upper bounds of the reconcile duration: a visit that writes nothing takes under a millisecond, one that waits for a
/// struggling API server up to a minute.
const RECONCILE_SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0, 60.0];

/// What `QueueTasks` do, and how they end.
const WORKS: [&str; 3] = ["redrive", "purge", "backup"];
const TASK_ENDS: [&str; 4] = ["succeeded", "failed", "rejected", "cancelled"];

/// All metrics of this process. Cheap to update from everywhere.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<Labels<1>, Counter>,
    errors: Family<Labels<1>, Counter>,
    applies: Family<Labels<2>, Counter>,
    seconds: Histogram,
    leader: Gauge<i64>,
    undecodable: Counter<u64, AtomicU64>,
    tasks: Family<Labels<2>, Counter>,
    conditions: Family<QueueLabels<3>, Gauge<i64>>,
    shards: Family<QueueLabels<2>, Gauge<i64>>,
    ready_shards: Family<QueueLabels<2>, Gauge<i64>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("ackwell_operator"),
            reconciles: Family::default(),
            errors: Family::default(),
            applies: Family::default(),
            seconds: Histogram::new(RECONCILE_SECONDS),
            leader: Gauge::default(),
            undecodable: Counter::default(),
            tasks: Family::default(),
            conditions: Family::default(),
            shards: Family::default(),
            ready_shards: Family::default(),
        };
        metrics.register();
        metrics.begin();
        metrics
    }

    /// What did not happen yet is 0, not absent: otherwise nobody sees the first time.
    fn begin(&self) {
        for result in ["ok", "error"] {
            _ = self.reconciles.get_or_create(&[("result", result)]);
        }
        for class in ["transient", "waiting", "user", "bug"] {
            _ = self.errors.get_or_create(&[("class", class)]);
        }
        for (work, state) in WORKS.into_iter().flat_map(|work| TASK_ENDS.map(|state| (work, state))) {
            _ = self.tasks.get_or_create(&[("work", work), ("state", state)]);
        }
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "reconciles",
            "Visits to Queues and QueueTasks, by result",
            self.reconciles.clone(),
        );
        registry.register("reconcile_errors", "Failed visits, by class of error", self.errors.clone());
        registry.register("applies", "Child objects, by kind and outcome", self.applies.clone());
        registry.register(
            "reconcile_duration_seconds",
            "How long visits take; one to a task that runs takes about a second",
            self.seconds.clone(),
        );
        registry.register("leader", "1 on the replica that reconciles", self.leader.clone());
        let unreadable = "Queues and QueueTasks that could not be read";
        registry.register("undecodable_objects", unreadable, self.undecodable.clone());
        registry.register("tasks", "QueueTasks that are over, by work and end", self.tasks.clone());
        let condition = "Conditions of Queues: 1 True, 0 False, -1 Unknown";
        registry.register("queue_condition", condition, self.conditions.clone());
        registry.register("queue_shards", "Shards that the Queue asks for", self.shards.clone());
        registry.register("queue_ready_shards", "Shards that serve", self.ready_shards.clone());
        let build = Family::<Labels<1>, Gauge<i64>>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "Always 1; the label is the operator's version", build);
    }

    pub(crate) fn reconciled(&self, took: Duration, error_class: Option<&'static str>) {
        let result = if error_class.is_some() { "error" } else { "ok" };
        self.reconciles.get_or_create(&[("result", result)]).inc();
        self.seconds.observe(took.as_secs_f64());
        if let Some(class) = error_class {
            self.errors.get_or_create(&[("class", class)]).inc();
        }
    }

    pub(crate) fn applied(&self, kind: &'static str, outcome: &'static str) {
        self.applies.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leader.set(leading.into());
    }

    pub(crate) fn undecodable(&self) {
        self.undecodable.inc();
    }

    /// A `QueueTask` is over.
    pub(crate) fn task_ended(&self, work: &'static str, state: TaskState) {
        let state = match state {
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Cancelled => "cancelled",
            TaskState::Pending | TaskState::Running => return,
        };
        self.tasks.get_or_create(&[("work", work), ("state", state)]).inc();
    }

    /// What the Queue says of itself.
    pub(crate) fn visited(&self, queue: &Queue) {
        let of_queue = labels(queue.namespace().unwrap_or_default(), queue.name_any());
        self.shards.get_or_create(&of_queue).set(queue.spec.shards.into());
        let Some(status) = &queue.status else { return };
        self.ready_shards.get_or_create(&of_queue).set(status.ready_shards.into());
        for condition in &status.conditions {
            let value = match condition.status.as_str() {
                "True" => 1,
                "False" => 0,
                _ => -1,
            };
            self.conditions.get_or_create(&with_condition(&of_queue, &condition.type_)).set(value);
        }
    }

    /// A Queue is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let of_queue = labels(namespace.to_owned(), name.to_owned());
        self.shards.remove(&of_queue);
        self.ready_shards.remove(&of_queue);
        for condition in types::ALL {
            self.conditions.remove(&with_condition(&of_queue, condition));
        }
    }

    /// Everything, as `/metrics` answers it.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels(namespace: String, name: String) -> QueueLabels<2> {
    [("namespace", namespace), ("queue", name)]
}

fn with_condition(of_queue: &QueueLabels<2>, condition: &str) -> QueueLabels<3> {
    let [namespace, queue] = of_queue.clone();
    [namespace, queue, ("condition", condition.to_owned())]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/reference/metrics.md");

    fn queue() -> Queue {
        let queue = serde_json::json!({
            "apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue",
            "metadata": {"namespace": "shop", "name": "orders"},
            "spec": {"shards": 3, "storage": {"size": "1Gi"}},
            "status": {"readyShards": 2, "conditions": types::ALL.map(|kind| serde_json::json!({
                "type": kind, "status": if kind == "Ready" { "False" } else { "Unknown" },
                "reason": "X", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
            }))},
        });
        serde_json::from_value(queue).unwrap()
    }

    /// Promise: the document lists every metric and no other; a running operator is asked, too, by `tests/it/metrics.rs`.
    #[test]
    fn documented_metrics_are_those_there_are() {
        let metrics = Metrics::new();
        metrics.applied("StatefulSet", "applied");
        metrics.visited(&queue());
        let text = metrics.text().unwrap();
        let first_word =
            |line: &str, before: &str| Some(line.strip_prefix(before)?.split([' ', '`']).next()?.to_owned());
        let exported: BTreeSet<_> = text.lines().filter_map(|line| first_word(line, "# TYPE ")).collect();
        let section = DOCUMENT.split("\n## Operator\n").nth(1).unwrap();
        let documented = section.lines().filter_map(|line| first_word(line, "| `"));
        // The suffix of counters is in the samples.
        let documented: BTreeSet<_> =
            documented.map(|name| name.strip_suffix("_total").unwrap_or(&name).to_owned()).collect();
        assert_eq!(exported, documented);
    }

    /// Promise: alerts see conditions as they are, and nothing of a Queue that is gone.
    #[test]
    fn conditions_are_told_until_the_queue_is_gone() {
        let metrics = Metrics::new();
        metrics.visited(&queue());
        let text = metrics.text().unwrap();
        for line in [
            r#"ackwell_operator_queue_condition{namespace="shop",queue="orders",condition="Ready"} 0"#,
            r#"ackwell_operator_queue_condition{namespace="shop",queue="orders",condition="Available"} -1"#,
            r#"ackwell_operator_queue_shards{namespace="shop",queue="orders"} 3"#,
            r#"ackwell_operator_queue_ready_shards{namespace="shop",queue="orders"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.forget("shop", "orders");
        assert!(!metrics.text().unwrap().contains("orders"));
    }

    /// Alerts are written against these names.
    #[test]
    fn text_has_the_documented_names() {
        let metrics = Metrics::new();
        metrics.reconciled(Duration::from_millis(2), Some("transient"));
        metrics.applied("StatefulSet", "unchanged");
        metrics.leading(true);
        let text = metrics.text().unwrap();
        for line in [
            r#"ackwell_operator_reconciles_total{result="error"} 1"#,
            r#"ackwell_operator_reconcile_errors_total{class="transient"} 1"#,
            r#"ackwell_operator_applies_total{kind="StatefulSet",outcome="unchanged"} 1"#,
            "ackwell_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
