//! `docs/reference/metrics.md` is exactly what brokers, sidecars and operators export. Alerts are written against it.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_tests::caller::{ack, message, nack, reject, release};
use ackwell_tests::processes::{Broker, Operator, Sidecar, settings};

const DOCUMENT: &str = include_str!("../../docs/reference/metrics.md");
/// Of Prometheus' own making.
const OF_HISTOGRAMS: &str = "le";
const SOON: Duration = Duration::from_secs(20);

/// The metrics of one process.
struct Exported {
    /// Rows as the document has them, but for the labels.
    rows: BTreeMap<String, (String, String)>,
    /// Label names of those that have samples.
    labels: BTreeMap<String, BTreeSet<String>>,
    /// What each line says.
    values: BTreeMap<String, f64>,
}

impl Exported {
    fn parse(answer: &str) -> Self {
        let (_, text) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
        let mut exported = Self { rows: BTreeMap::new(), labels: BTreeMap::new(), values: BTreeMap::new() };
        let mut help = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').expect("a help has a text").1;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a name");
                exported.rows.insert(documented_name(name, kind), (kind.to_owned(), help.to_owned()));
            } else if !line.starts_with('#') {
                exported.add_sample(line);
            }
        }
        exported
    }

    fn add_sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        // Not in values: no label of ours has a comma in it.
        let names = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != OF_HISTOGRAMS);
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let family = family.filter(|family| self.rows.contains_key(*family)).unwrap_or(name);
        self.labels.entry(family.to_owned()).or_default().extend(names);
        self.values.insert(series.to_owned(), value.parse().expect("a value is a number"));
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.values.keys()))
    }
}

/// In `OpenMetrics` the name of a counter has its suffix only in the samples.
fn documented_name(name: &str, kind: &str) -> String {
    if kind == "counter" && !name.ends_with("_total") { format!("{name}_total") } else { name.to_owned() }
}

/// The rows below a heading: name, kind, labels, meaning.
fn documented(heading: &str) -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let section = DOCUMENT.split(&format!("\n## {heading}\n")).nth(1).expect("the document has the heading");
    let section = section.split("\n## ").next().expect("a split has a first part");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels, cells[3].to_owned()))
    };
    rows.map(row).collect()
}

/// Nothing is exported that is not documented, and the other way round.
#[track_caller]
fn assert_documented(heading: &str, exported: &Exported) {
    let documented = documented(heading);
    let expected: BTreeMap<_, _> = documented
        .iter()
        .map(|(name, (kind, _, meaning))| (name.clone(), (kind.clone(), meaning.clone())))
        .collect();
    let rows = exported.rows.iter().map(|(name, (kind, help))| {
        let labels = exported.labels.get(name).into_iter().flatten().map(|label| format!("`{label}`"));
        format!("| `{name}` | {kind} | {} | {help} |\n", labels.collect::<Vec<_>>().join(", "))
    });
    assert!(expected == exported.rows, "{heading} exports\n{}", rows.collect::<String>());
    for (name, labels) in &exported.labels {
        assert_eq!(*labels, documented[name].1, "labels of {name}");
    }
}

/// Promise: every metric of a broker is documented, and counts what it says.
#[tokio::test]
async fn metrics_of_a_broker_are_documented_and_count() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    for body in ["acked", "nacked", "released", "rejected", "held", "waits"] {
        caller.send_body(body).await;
    }
    let deliveries = caller.receive(5, SOON).await.unwrap();
    let settlements = vec![
        ack(&deliveries[0]),
        nack(&deliveries[1], Some(SOON)),
        release(&deliveries[2]),
        reject(&deliveries[3]),
    ];
    caller.settle(settlements).await.unwrap();
    let failure = caller.try_send(message(vec![0; 2 << 20])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::MessageTooLarge);
    let results = caller.send(vec![message("fits"), message(vec![0; 2 << 20])]).await.unwrap();
    assert!(results[1].error.is_some());
    let exported = Exported::parse(&broker.metrics());
    assert_documented("Broker", &exported);
    let queue = "namespace=\"shop\",queue=\"orders\"";
    for (name, label, value) in [
        ("ackwell_messages", ",state=\"ready\"", 3.0),
        ("ackwell_messages", ",state=\"delayed\"", 1.0),
        ("ackwell_messages", ",state=\"in_flight\"", 1.0),
        ("ackwell_messages", ",state=\"dead\"", 1.0),
        ("ackwell_sent_total", "", 7.0),
        ("ackwell_deliveries_total", "", 5.0),
        ("ackwell_outcomes_total", ",outcome=\"ack\"", 1.0),
        ("ackwell_outcomes_total", ",outcome=\"nack\"", 1.0),
        ("ackwell_outcomes_total", ",outcome=\"release\"", 1.0),
        ("ackwell_outcomes_total", ",outcome=\"reject\"", 1.0),
        ("ackwell_outcomes_total", ",outcome=\"ack_timeout\"", 0.0),
        ("ackwell_died_total", ",reason=\"rejected\"", 1.0),
        ("ackwell_limit_in_flight", "", 100_000.0),
    ] {
        assert_eq!(exported.value(&format!("{name}{{{queue}{label}}}")), value, "{name}{label}");
    }
    for (series, value) in [
        ("ackwell_calls_total{method=\"Queues/Send\",result=\"OK\"}", 7.0),
        ("ackwell_calls_total{method=\"Queues/Send\",result=\"MESSAGE_TOO_LARGE\"}", 1.0),
        ("ackwell_refused_items_total{reason=\"MESSAGE_TOO_LARGE\"}", 1.0),
        ("ackwell_store_open", 1.0),
        ("ackwell_disk_full", 0.0),
        ("ackwell_store_failures_total", 0.0),
    ] {
        assert_eq!(exported.value(series), value, "{series}");
    }
    for series in [
        "ackwell_commit_seconds_count",
        "ackwell_store_log_bytes",
        "ackwell_store_replay_bytes",
        "ackwell_checkpoints_total",
        "ackwell_checkpoint_seconds_total",
        "ackwell_volume_free_bytes",
    ] {
        assert!(exported.value(series) > 0.0, "{series}");
    }
}

/// Promise: every metric of a sidecar is documented, and counts what it says.
#[tokio::test]
async fn metrics_of_a_sidecar_are_documented_and_count() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    caller.send_body("held").await;
    caller.receive_one().await;
    caller.queue("oders").send(vec![message("x")]).await.unwrap_err();
    let exported = Exported::parse(&sidecar.metrics());
    assert_documented("Sidecar", &exported);
    for (series, value) in [
        ("ackwell_sidecar_calls_total{method=\"Queues/Send\",result=\"OK\"}", 1.0),
        ("ackwell_sidecar_calls_total{method=\"Queues/Send\",result=\"QUEUE_NOT_FOUND\"}", 1.0),
        ("ackwell_sidecar_held_deliveries{namespace=\"shop\",queue=\"orders\"}", 1.0),
        ("ackwell_sidecar_shards{namespace=\"shop\",queue=\"orders\"}", 1.0),
        ("ackwell_sidecar_failing_shards{namespace=\"shop\",queue=\"orders\"}", 0.0),
    ] {
        assert_eq!(exported.value(series), value, "{series}");
    }
}

/// Promise: every metric of an operator is documented, whether it leads or not. What it says of Queues is absent without any;
/// its own tests have these.
#[test]
fn metrics_of_an_operator_are_documented() {
    let exported = Exported::parse(&Operator::start().metrics());
    let documented = documented("Operator");
    for (name, (kind, help)) in &exported.rows {
        let row = documented.get(name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!((kind, help), (&row.0, &row.2), "{name}");
        assert_eq!(exported.labels[name], row.1, "labels of {name}");
    }
    assert!(exported.rows.len() > 5, "{:?}", exported.rows);
    for series in ["ackwell_operator_leader", "ackwell_operator_reconcile_errors_total{class=\"bug\"}"] {
        assert_eq!(exported.value(series), 0.0, "{series}");
    }
}
