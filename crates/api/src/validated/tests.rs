//! The same cases are put to a real API server by the tests across processes.

use serde_json::{Value, json};

use super::*;

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn manifest(patch: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "ackwell.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"storage": {"size": "1Gi"}},
    });
    merge(&mut manifest, patch);
    manifest
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

/// What the API server refuses is refused without one, with the place and the reason.
#[test]
fn refused_manifests_are_refused_with_path_and_message() {
    for case in cases(include_str!("../../tests/refused.json")) {
        let error =
            ValidatedQueue::from_manifest(&manifest(&case["patch"])).expect_err(&case["because"].to_string());
        let text = error.to_string();
        for part in ["path", "message"].map(|field| case[field].as_str().unwrap_or_default()) {
            assert!(text.contains(part), "{}: {part:?} is not in {text:?}", case["because"]);
        }
    }
}

/// The limits themselves are allowed.
#[test]
fn accepted_manifests_are_accepted_and_decode_the_same_again() {
    for case in cases(include_str!("../../tests/accepted.json")) {
        let queue = ValidatedQueue::from_manifest(&manifest(&case["patch"]));
        let queue = queue.unwrap_or_else(|error| panic!("{}: {error}", case["because"]));
        assert_eq!(ValidatedQueue::try_from(queue.queue().clone()), Ok(queue));
    }
}

#[test]
fn every_violation_is_listed() {
    let patch = json!({"spec": {"shards": 0, "delivery": {"maxAttempts": 0}}});
    let text = ValidatedQueue::from_manifest(&manifest(&patch)).unwrap_err().to_string();
    assert!(text.contains("spec.shards") && text.contains("spec.delivery.maxAttempts"), "{text}");
}

#[test]
fn other_kinds_are_named() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
    let text = ValidatedQueue::from_manifest(&pod).unwrap_err().to_string();
    assert_eq!(text, "this is Pod of v1, not a Queue of ackwell.dev/v1alpha1");
}

/// Defaults are what docs and the schema say.
#[test]
fn config_of_the_smallest_manifest_has_the_defaults() {
    let config = ValidatedQueue::from_manifest(&manifest(&json!({}))).unwrap().config(Vec::new());
    assert_eq!((config.namespace.as_str(), config.name.as_str(), config.generation), ("shop", "orders", 0));
    let expected = QueueSettings {
        ack_timeout_seconds: 30,
        max_processing_seconds: 1800,
        max_attempts: 10,
        backoff: Some(v1::Backoff {
            policy: v1::BackoffPolicy::Exponential.into(),
            min_seconds: 1,
            max_seconds: 300,
        }),
        max_messages: 0,
        max_bytes: 0,
        max_message_bytes: 1 << 20,
        max_in_flight: 100_000,
        dead_seconds: 1_209_600,
        dedup_window_seconds: 600,
        dead_letter_expired: true,
    };
    assert_eq!(config.settings, Some(expected));
}

/// A broker that finds its old volume again must take the settings of the new Queue.
#[test]
fn generation_grows_over_a_new_queue_of_the_same_name() {
    let made = |created: &str, generation: i64| {
        let metadata = json!({"metadata": {"creationTimestamp": created, "generation": generation}});
        ValidatedQueue::from_manifest(&manifest(&metadata)).unwrap().generation()
    };
    let first = made("2026-01-01T00:00:00Z", 1);
    let changed = made("2026-01-01T00:00:00Z", 900_000);
    let again = made("2026-01-01T00:00:01Z", 1);
    assert!(first < changed && changed < again);
}

/// The API server lets the rest of a pod pass: what is none is found before pods are made of it, and told with its place.
#[test]
fn template_that_is_no_pod_is_refused_with_path() {
    let big = "x".repeat(300_000);
    for (spec, told) in [
        (
            json!({"containers": [{"name": "app", "imagee": "a"}]}),
            "spec.template.spec.containers[0].imagee: is not a field",
        ),
        (
            json!({"containers": [{"name": "app", "env": "all"}]}),
            "spec.template.spec: is not the spec of a pod",
        ),
        (json!({"containers": [{"name": "app", "args": [big]}]}), "it may have at most 262144"),
        (
            json!({"containers": [{"name": "app"}], "volumes": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}),
            "spec.template.spec.volumes: has a more than once",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b", "env": [{"name": "X"}, {"name": "X"}]}]}),
            "spec.template.spec.containers[1].env: has X more than once",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]}]}),
            "spec.template.spec.containers[0].ports: has 80/TCP more than once",
        ),
    ] {
        let manifest = manifest(&json!({"spec": {"template": {"spec": spec}}}));
        let error = ValidatedQueue::from_manifest(&manifest).unwrap_err().to_string();
        assert!(error.contains(told) && error.len() < 2000, "{error}");
    }
    let many: serde_json::Map<_, _> = (0..1000).map(|number| (format!("field{number}"), json!(1))).collect();
    let mut spec = json!({"containers": [{"name": "app"}]});
    spec.as_object_mut().unwrap().extend(many);
    let manifest = manifest(&json!({"spec": {"template": {"spec": spec}}}));
    let error = ValidatedQueue::from_manifest(&manifest).unwrap_err().to_string();
    assert_eq!(error.matches("is not a field").count(), 10);
}

/// What Kubernetes takes in several ways is no mistake.
#[test]
fn template_is_read_as_kubernetes_reads_it() {
    let container = json!({"name": "app", "env": [], "securityContext": {}, "resources": {"limits": {"cpu": 1}},
        "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}], "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": null}});
    let template = json!({"spec": {"containers": [container], "volumes": [{"name": "a", "emptyDir": {}}]}});
    let queue = ValidatedQueue::from_manifest(&manifest(&json!({"spec": {"template": template}}))).unwrap();
    assert_eq!(queue.template().unwrap().spec.containers[0].name, "app");
}

/// A rule that no case breaks could as well not be there. The cases are put to a real API server, too.
#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let crd = serde_json::to_value(<Queue as kube::CustomResourceExt>::crd()).unwrap();
    let mut rules = Vec::new();
    collect_rules(&crd, &mut rules);
    assert!(rules.len() >= 9, "{rules:?}");
    let texts = [include_str!("../../tests/refused.json"), include_str!("../../tests/refused_changes.json")];
    let messages: Vec<String> = texts
        .into_iter()
        .flat_map(cases)
        .filter_map(|case| case["message"].as_str().map(str::to_owned))
        .collect();
    for rule in rules {
        assert!(messages.iter().any(|message| rule.contains(message.as_str())), "no case breaks {rule:?}");
    }
}

/// Messages of all CEL rules.
fn collect_rules(value: &Value, rules: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let own = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            rules.extend(
                own.into_iter().flatten().filter_map(|rule| rule["message"].as_str().map(str::to_owned)),
            );
            fields.values().for_each(|field| collect_rules(field, rules));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_rules(item, rules)),
        _ => {}
    }
}
