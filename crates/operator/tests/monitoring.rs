//! The chart's alerts and dashboard ask for metrics that exist, and people find out what to do about each alert.
//!
//! `docs/reference/metrics.md` is what there is; `tests/it/metrics.rs` compares it with running processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// Labels that come with the target, not with the metric.
const OF_TARGETS: [&str; 4] = ["namespace", "pod", "instance", "le"];

fn read(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(top.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every metric, with its labels.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let document = read("docs/reference/metrics.md");
    let rows = document.lines().filter(|line| line.starts_with("| `ackwell_"));
    let mut metrics = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let name = cells[1].trim_matches('`');
        if cells[2] == "histogram" {
            for suffix in ["bucket", "sum", "count"] {
                metrics.insert(format!("{name}_{suffix}"), BTreeSet::clone(&labels));
            }
        }
        metrics.insert(name.to_owned(), labels);
    }
    metrics
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_yaml_ng::from_str(&read("charts/ackwell/files/alerts.yaml")).expect("it is YAML");
    let groups = file["groups"].as_array().expect("it has groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("a group has rules").clone()).collect()
}

/// Every expression of a dashboard, wherever it is.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let is_query = |name: &&String| ["expr", "query", "definition"].contains(&name.as_str());
            let queries = fields.iter().filter(|(name, _)| is_query(name));
            found.extend(queries.filter_map(|(_, query)| query.as_str().map(str::to_owned)));
            fields.values().for_each(|field| expressions(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The metrics of a query, each with the labels that it selects by.
fn used(query: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let starts = query.match_indices("ackwell_").map(|(start, _)| start);
    let starts = starts.filter(|start| !query[..*start].ends_with(is_word));
    let name_and_rest = starts.map(|start| {
        let rest = &query[start..];
        rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()))
    });
    let labels = |rest: &str| -> Vec<String> {
        let Some(matchers) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Vec::new();
        };
        let names = matchers.0.split(',').filter_map(|matcher| matcher.split(['=', '!']).next());
        names.map(|name| name.trim().to_owned()).collect()
    };
    name_and_rest.map(|(name, rest)| (name.to_owned(), labels(rest))).collect()
}

#[track_caller]
fn assert_exists(query: &str, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let used = used(query);
    assert!(!used.is_empty(), "{query} asks for nothing of ours");
    for (name, selects_by) in used {
        let labels = metrics.get(&name).unwrap_or_else(|| panic!("no process exports {name}: {query}"));
        for label in selects_by {
            let is_known = labels.contains(&label) || OF_TARGETS.contains(&label.as_str());
            assert!(is_known, "{name} has no label {label}: {query}");
        }
    }
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let metrics = metrics();
    assert!(metrics.len() > 40, "{metrics:?}");
    for alert in alerts() {
        assert_exists(alert["expr"].as_str().expect("an alert has an expression"), &metrics);
    }
}

#[test]
fn dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value =
        serde_json::from_str(&read("charts/ackwell/files/dashboard.json")).expect("it is JSON");
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    queries.retain(|query| query != "prometheus");
    assert!(queries.len() > 40, "{}", queries.len());
    let metrics = metrics();
    queries.iter().for_each(|query| assert_exists(query, &metrics));
}

/// Whoever is woken up finds the alert by its name, and a test has shown that it fires.
#[test]
fn every_alert_has_a_runbook_and_a_test() {
    let (runbooks, tests) = (read("docs/operations.md"), read("tests/prometheus/alerts.yaml"));
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("an alert has a name");
        assert!(
            runbooks.contains(&format!("\n### {name}\n")),
            "docs/operations.md does not tell what to do about {name}"
        );
        let fires = tests.contains(&format!("alertname: {name}\n"));
        let is_silent = tests.contains(&format!("alertname: {name}, exp_alerts: []"));
        assert!(
            fires && is_silent,
            "tests/prometheus/alerts.yaml does not show that {name} fires, and when it does not"
        );
        for annotation in ["summary", "description"] {
            assert!(alert["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
        let severity = alert["labels"]["severity"].as_str().expect("an alert has a severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
    }
}
