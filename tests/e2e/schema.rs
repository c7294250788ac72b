//! The rules of a Queue, put to the API server: each refuses what it is for, and nothing else.
//!
//! The same cases, without a cluster, are tests of `ackwell-api`.

use ackwell_tests::cluster::Namespace;
use serde_json::{Value, json};

const ACCEPTED: &str = include_str!("../../crates/api/tests/accepted.json");
const REFUSED: &str = include_str!("../../crates/api/tests/refused.json");
const REFUSED_CHANGES: &str = include_str!("../../crates/api/tests/refused_changes.json");

/// Promise: the API server refuses what the CLI refuses, and says where.
#[test]
fn every_rule_refuses_and_names_the_field() {
    let namespace = Namespace::new("refused");
    for case in cases(REFUSED) {
        let refused = namespace.dry_run(&manifest(&case["patch"]));
        let text = format!("{:#}", refused.expect_err(&case["because"].to_string()));
        let field = case["path"].as_str().unwrap().rsplit('.').next().unwrap();
        let message = case["message"].as_str().unwrap_or_default();
        assert!(text.contains(field) && text.contains(message), "{}: {text}", case["because"]);
    }
}

/// Promise: no rule is stricter than it says.
#[test]
fn the_limits_themselves_are_accepted() {
    let namespace = Namespace::new("accepted");
    for case in cases(ACCEPTED) {
        let accepted = namespace.dry_run(&manifest(&case["patch"]));
        accepted.unwrap_or_else(|error| panic!("{}: {error:#}", case["because"]));
    }
}

/// Promise: what cannot be done to existing volumes is refused when it is asked for.
#[test]
fn changes_that_volumes_cannot_follow_are_refused() {
    let namespace = Namespace::new("refused-changes");
    for case in cases(REFUSED_CHANGES) {
        namespace.apply(&manifest(&case["from"]));
        let refused = namespace.dry_run(&manifest(&case["to"]));
        let text = format!("{:#}", refused.expect_err(&case["because"].to_string()));
        assert!(text.contains(case["message"].as_str().unwrap()), "{}: {text}", case["because"]);
        namespace.expect(&["delete", "queues.ackwell.dev", "orders"]);
    }
}

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

/// The smallest Queue, with `patch` merged into it.
fn manifest(patch: &Value) -> String {
    let mut manifest = json!({
        "apiVersion": "ackwell.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "orders"},
        "spec": {"storage": {"size": "1Gi"}},
    });
    merge(&mut manifest, patch);
    manifest.to_string()
}

/// JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return *target = patch.clone() };
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().map(|target| target.remove(name))),
            _ => merge(&mut target[name.as_str()], value),
        }
    }
}
