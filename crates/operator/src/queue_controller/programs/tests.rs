//! The pods of copies, and what theirs mean.

use ackwell_api::BackupPlace;
use insta::assert_yaml_snapshot;
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde_json::{Value, json};

use super::state::Done;
use super::*;
use crate::queue_controller::BrokerImage;
use crate::queue_controller::fixtures::queue;

fn image() -> BrokerImage {
    BrokerImage { image: "registry.example/ackwelld@sha256:1234".to_owned(), pull_policy: None, traces: None }
}

fn owner(kind: &str, name: &str) -> OwnerReference {
    OwnerReference {
        api_version: "ackwell.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: "uid-1".to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// Promise: such a pod runs under the restricted Pod Security Standard, has no token, mounts the claim and what it needs to speak to
/// brokers and nothing else, is not taken for a broker, and goes where brokers may.
#[test]
fn pods_of_copies_are_golden() {
    let queue = queue(|spec| {
        spec.scheduling.node_selector = [("disk".to_owned(), "fast".to_owned())].into();
        spec.scheduling.tolerations = vec![Toleration::default()];
        spec.scheduling.priority_class_name = Some("high".to_owned());
        spec.scheduling.image_pull_secrets = vec![LocalObjectReference { name: "registry".to_owned() }];
    });
    let place = BackupPlace { claim_name: "backups".to_owned(), path: "orders/nightly".to_owned() };
    let program = |kind, owner| Program { kind, queue: &queue, shards: 2, place: &place, owner };
    let backup = program(Kind::Backup, owner("QueueTask", "nightly"));
    let restore = program(Kind::Restore, owner("Queue", "orders"));
    assert_yaml_snapshot!(
        "backup",
        json!([build::pod(&backup, &image()), build::secret(&backup, SecretData::new())])
    );
    let [one, other] = [&backup, &restore].map(|program| json!(build::pod(program, &image())));
    assert_yaml_snapshot!("restore_differs", json!(json_patch::diff(&one, &other)));
}

fn pod(phase: &str, state: &Value) -> Pod {
    let container = json!({"name": "backup", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    serde_json::from_value(json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase, "containerStatuses": [container], "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "claim not found"},
        ]},
    }))
    .unwrap()
}

fn ended(code: u8, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "message": message, "finishedAt": "2026-01-01T00:01:00Z"}})
}

/// Promise: what a pod says reaches people, whatever it is.
#[test]
fn last_words_of_a_pod_are_told() {
    let done = r#"{"messages": 3, "bytes": 9, "shards": [1, 2]}"#;
    assert_eq!(
        Run::of(&pod("Succeeded", &ended(0, done))),
        Run::Done(Done { messages: 3, bytes: 9, shards: vec![1, 2] })
    );
    assert_eq!(Run::of(&pod("Running", &json!({"running": {}}))), Run::Copying);
    let pending = |state: &Value| match Run::of(&pod("Pending", state)) {
        Run::Starting(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(pending(&json!({})).contains("claim not found"));
    let pulling = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    assert!(pending(&pulling).contains("ErrImagePull: no such image"));
    let words = r#"{"reason": "BackupDamaged", "message": "it is cut off", "messages": 0}"#;
    for (code, said, reason, message, is_final) in [
        (67, words, "BackupDamaged", "it is cut off", true),
        (1, words, "BackupDamaged", "it is cut off", false),
        (101, "a line\nthread panicked", "", "thread panicked", false),
        (137, "", "", "did not say why", false),
    ] {
        let Run::Failed { reason: told, message: why, is_final: ended } =
            Run::of(&pod("Failed", &ended(code, said)))
        else {
            panic!("it failed")
        };
        assert_eq!((told.as_str(), ended), (reason, is_final));
        assert!(why.contains(message), "{why}");
    }
}

#[test]
fn failed_pod_is_made_again_after_a_while() {
    let at = |text: &str| Time(text.parse().unwrap());
    for (code, too_early, due) in [
        (1, "2026-01-01T00:01:09Z", "2026-01-01T00:01:10Z"),
        (67, "2026-01-01T00:05:59Z", "2026-01-01T00:06:00Z"),
    ] {
        let pod = pod("Failed", &ended(code, ""));
        let run = Run::of(&pod);
        assert!(!run.is_to_be_tried_again(&pod, &at(too_early)) && run.is_to_be_tried_again(&pod, &at(due)));
    }
    let done = pod("Succeeded", &ended(0, "{}"));
    assert!(!Run::of(&done).is_to_be_tried_again(&done, &at("2026-02-01T00:00:00Z")));
}
