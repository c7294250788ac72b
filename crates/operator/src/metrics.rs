//! Metrics of the operator, in the Prometheus text format.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Upper bounds of the reconcile duration: a visit that writes nothing takes under a millisecond, one that waits for a
/// struggling API server up to a minute.
const RECONCILE_SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0, 60.0];

/// All metrics of this process. Cheap to update from everywhere.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<Labels<1>, Counter>,
    errors: Family<Labels<1>, Counter>,
    applies: Family<Labels<2>, Counter>,
    seconds: Histogram,
    leader: Gauge<i64>,
    undecodable: Counter<u64, AtomicU64>,
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
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("reconciles", "Visits to Queues, by result", self.reconciles.clone());
        registry.register("reconcile_errors", "Failed visits, by class of error", self.errors.clone());
        registry.register("applies", "Child objects, by kind and outcome", self.applies.clone());
        registry.register("reconcile_duration_seconds", "How long visits take", self.seconds.clone());
        registry.register("leader", "1 on the replica that reconciles", self.leader.clone());
        registry.register("undecodable_objects", "Queues that could not be read", self.undecodable.clone());
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

    /// Everything, as `/metrics` answers it.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
