//! Golden manifests. `cargo insta review` shows what a change does to them.

use std::collections::BTreeSet;

use ackwell_api::{
    AccessMode, BackoffPolicy, Client, DeletionPolicy, Encryption, ExpiredPolicy, QueueSpec, Verb, names,
};
use insta::{assert_snapshot, assert_yaml_snapshot};
use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration, TopologySpreadConstraint};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::identity::Published;
use crate::queue_controller::fixtures::queue;
use crate::queue_controller::validate::validate;
use crate::traces::Traces;

/// One change of a spec.
type Edit = fn(&mut QueueSpec);

fn image() -> BrokerImage {
    BrokerImage { image: "registry.example/ackwelld@sha256:1234".to_owned(), pull_policy: None, traces: None }
}

fn children(edit: impl FnOnce(&mut QueueSpec)) -> Children {
    let observed = Observed::default();
    let published = Published { issuer: "https://kubernetes.default.svc".to_owned(), keys: "{}".to_owned() };
    let plan = validate(&queue(edit), &observed).unwrap().with_access(published, "ackwell-system/ackwell");
    let reach = Reach::Namespaces(BTreeSet::from(["ackwell-system".to_owned(), "keda".to_owned()]));
    Children { network_policy: network_policy(&plan, &observed, &reach), ..build(&plan, &observed, &image()) }
}

fn json_of(children: &Children) -> Value {
    json!({
        "ServiceAccount": children.service_account,
        "ConfigMap": children.config_map,
        "ShardsService": children.shards_service,
        "Service": children.service,
        "NetworkPolicy": children.network_policy,
        "PodDisruptionBudget": children.disruption_budget,
        "StatefulSet": children.stateful_set,
    })
}

/// Promise: asking for new pods changes the template and nothing else; whatever was written, it stays short.
#[test]
fn restart_changes_the_template_alone() {
    let mut asked = queue(|_| {});
    asked.annotations_mut().insert(names::RESTARTED_ANNOTATION.to_owned(), "5".repeat(1000));
    let plan = validate(&asked, &Observed::default()).unwrap();
    let template = |plan| build(plan, &Observed::default(), &image());
    let unasked = validate(&queue(|_| {}), &Observed::default()).unwrap();
    let patch = json_patch::diff(&json_of(&template(&unasked)), &json_of(&template(&plan)));
    let expected = json!([{
        "op": "add",
        "path": "/StatefulSet/spec/template/metadata/annotations",
        "value": {"ackwell.dev/restarted-at": "5".repeat(64)},
    }]);
    assert_eq!(json!(patch), expected);
}

/// Promise: where traces go is told to brokers by their environment alone, and Kubernetes finds what is named before it is used.
#[test]
fn traces_change_the_environment_alone() {
    let plan = validate(&queue(|_| {}), &Observed::default()).unwrap();
    let template = |image: &BrokerImage| json_of(&build(&plan, &Observed::default(), image));
    let traces = Traces { endpoint: "http://$(NODE_IP):4317".to_owned(), ratio: 0.01 };
    let telling = BrokerImage { traces: Some(traces), ..image() };
    let patch = json_patch::diff(&template(&image()), &template(&telling));
    let lines: Vec<_> = patch.0.iter().map(ToString::to_string).collect();
    assert_snapshot!(lines.join("\n"));
}

/// What `edit` changes in all children: JSON patch operations, one a line.
fn changes(edit: impl FnOnce(&mut QueueSpec)) -> String {
    let patch = json_patch::diff(&json_of(&children(|_| {})), &json_of(&children(edit)));
    let lines: Vec<_> = patch.0.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn everything(spec: &mut QueueSpec) {
    spec.shards = 3;
    spec.storage.class_name = Some("fast".to_owned());
    spec.storage.access_mode = AccessMode::ReadWriteOncePod;
    spec.deletion_policy = DeletionPolicy::Delete;
    spec.termination_grace_period_seconds = 120;
    spec.resources.limits = None;
    encryption(spec);
    hot(spec);
    scheduling(spec);
}

fn encryption(spec: &mut QueueSpec) {
    spec.encryption = Some(Encryption { secret_name: "orders-keys".to_owned() });
}

/// Settings that are pushed.
fn hot(spec: &mut QueueSpec) {
    spec.delivery.ack_timeout_seconds = 60;
    spec.delivery.max_processing_seconds = 7200;
    spec.delivery.max_attempts = 3;
    spec.delivery.backoff.policy = BackoffPolicy::Linear;
    spec.limits.max_messages = 1000;
    spec.limits.max_bytes.0 = "512Mi".to_owned();
    spec.limits.max_message_bytes.0 = "2Mi".to_owned();
    spec.limits.max_in_flight = 10;
    spec.retention.dead_seconds = 60;
    spec.retention.dedup_window_seconds = 0;
    spec.retention.expired = ExpiredPolicy::Drop;
    spec.clients = vec![Client {
        service_account: Some("api".to_owned()),
        namespace: Some("web".to_owned()),
        verbs: vec![Verb::Send],
    }];
}

fn scheduling(spec: &mut QueueSpec) {
    let scheduling = &mut spec.scheduling;
    scheduling.node_selector.insert("disk".to_owned(), "fast".to_owned());
    scheduling.tolerations =
        vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }];
    scheduling.topology_spread_constraints = vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "DoNotSchedule".to_owned(),
        ..TopologySpreadConstraint::default()
    }];
    scheduling.priority_class_name = Some("high".to_owned());
    scheduling.image_pull_secrets = vec![LocalObjectReference { name: "registry".to_owned() }];
    scheduling.affinity = Some(k8s_openapi::api::core::v1::Affinity::default());
}

/// What a Queue with nothing but a size is made of.
#[test]
fn smallest_queue_is_golden() {
    assert_yaml_snapshot!(json_of(&children(|_| {})));
}

/// What a Queue with every field is made of.
#[test]
fn largest_queue_is_golden() {
    assert_yaml_snapshot!(json_of(&children(everything)));
}

/// An application of one container.
fn embedded(spec: &mut QueueSpec) {
    let template = json!({"spec": {"containers": [{"name": "worker", "image": "worker:1"}]}});
    spec.template = Some(serde_json::from_value(template).unwrap());
}

fn embedded_everything(spec: &mut QueueSpec) {
    everything(spec);
    let template = json!({
        "metadata": {"labels": {"app": "worker"}, "annotations": {"ackwell.dev/queues": "mails, web/logs"}},
        "spec": {
            "serviceAccountName": "worker",
            "automountServiceAccountToken": true,
            "enableServiceLinks": true,
            "securityContext": {"runAsNonRoot": true, "fsGroup": 1000},
            "initContainers": [{"name": "prepare", "image": "worker:1"}],
            "containers": [{
                "name": "worker",
                "image": "worker:1",
                "env": [{"name": "ADDRESS", "value": "$(ACKWELL_ADDRESS)"}],
                "ports": [{"containerPort": 8080, "name": "http"}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            }],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    });
    spec.template = Some(serde_json::from_value(template).unwrap());
}

/// What a template of one container makes of the smallest Queue.
#[test]
fn smallest_embedded_queue_is_golden() {
    let Children { service, stateful_set, .. } = children(embedded);
    let template = stateful_set.spec.unwrap().template;
    assert_yaml_snapshot!(json!({"Service": service.spec, "template": template}));
}

/// The pods of a Queue with every field, and a template with what it may have.
#[test]
fn largest_embedded_queue_is_golden() {
    let set = children(embedded_everything).stateful_set.spec.unwrap();
    assert_yaml_snapshot!(json!(set.template));
}

/// Promise: the broker starts before the application and the sidecar, and ends after them; it listens where nobody else does.
#[test]
fn embedded_broker_is_the_first_native_sidecar() {
    let pod = children(embedded_everything).stateful_set.spec.unwrap().template.spec.unwrap();
    let init_containers = pod.init_containers.unwrap();
    let names: Vec<_> = init_containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, [names::BROKER_CONTAINER, "ackwell-sidecar", "prepare"]);
    let native = init_containers.iter().map(|container| container.restart_policy.as_deref());
    assert_eq!(native.collect::<Vec<_>>(), [Some("Always"), Some("Always"), None]);
    let args = |index: usize| init_containers[index].args.clone().unwrap();
    assert!(args(0).contains(&"--listen=$(POD_IP):7400".to_owned()), "{:?}", args(0));
    assert!(args(1).contains(&"0.0.0.0:7411".to_owned()), "{:?}", args(1));
    let ours = |volume: &&k8s_openapi::api::core::v1::VolumeMount| {
        volume.name == names::DATA_VOLUME || volume.name.starts_with("ackwell")
    };
    for container in pod.containers.iter().chain(&init_containers[2..]) {
        assert_eq!(container.volume_mounts.iter().flatten().filter(ours).count(), 0, "{}", container.name);
    }
}

/// Names of queues are the user's, and told where they are wrong.
#[test]
fn annotation_that_names_no_queue_is_an_error_of_the_user() {
    let wrong = queue(|spec| {
        embedded(spec);
        let metadata = &mut spec.template.as_mut().unwrap().metadata;
        metadata.annotations.insert(names::QUEUES_ANNOTATION.to_owned(), "Mails".to_owned());
    });
    let error = validate(&wrong, &Observed::default()).unwrap_err();
    assert_eq!(error.class(), crate::queue_controller::error::Class::User);
    assert!(
        error.to_string().starts_with("spec.template.metadata: annotation ackwell.dev/queues:"),
        "{error}"
    );
}

/// Each field of the spec changes exactly what it is for.
#[test]
fn each_option_alone_is_golden() {
    let options: [(&str, Edit); 10] = [
        ("shards", |spec| spec.shards = 3),
        ("storage.className", |spec| spec.storage.class_name = Some("fast".to_owned())),
        ("storage.accessMode", |spec| spec.storage.access_mode = AccessMode::ReadWriteOncePod),
        ("encryption", encryption),
        ("storage.size", |spec| spec.storage.size.0 = "2Gi".to_owned()),
        ("suspend", |spec| spec.suspend = true),
        ("deletionPolicy", |spec| spec.deletion_policy = DeletionPolicy::Delete),
        ("terminationGracePeriodSeconds", |spec| spec.termination_grace_period_seconds = 120),
        ("resources", |spec| spec.resources.limits = None),
        ("scheduling", scheduling),
    ];
    let text: Vec<_> = options.iter().map(|(name, edit)| format!("# {name}\n{}\n", changes(edit))).collect();
    assert_snapshot!(text.join("\n"));
}

/// Changing delivery, limits, retention or clients restarts nothing.
#[test]
fn hot_settings_change_no_pod() {
    let text = changes(hot);
    let (config, reached): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.contains("/ConfigMap/data/queue.json"));
    assert_eq!(config.len(), 1, "{text}");
    assert!(reached.iter().all(|line| line.contains("/NetworkPolicy/spec/ingress/0/from/")), "{text}");
}

/// Kubernetes refuses a change of these, and the volumes that exist are what counts.
#[test]
fn fields_that_cannot_change_are_taken_from_the_live_set() {
    let mut live = children(|_| {}).stateful_set;
    let spec = live.spec.as_mut().unwrap();
    spec.service_name = Some("older-name".to_owned());
    spec.pod_management_policy = Some("OrderedReady".to_owned());
    let observed = Observed { stateful_set: Some(live.clone().into()), ..Observed::default() };
    let plan = validate(&queue(|spec| spec.storage.size.0 = "2Gi".to_owned()), &observed).unwrap();
    let built = build(&plan, &observed, &image()).stateful_set.spec.unwrap();
    let live = live.spec.unwrap();
    assert_eq!(built.volume_claim_templates, live.volume_claim_templates);
    assert_eq!((built.service_name, built.selector), (live.service_name, live.selector));
    assert_eq!(built.pod_management_policy, live.pod_management_policy);
}

/// The broker reads this file when it starts.
#[test]
fn config_map_decodes_as_the_brokers_configuration() {
    let text = children(|spec| spec.shards = 2).config_map.data.unwrap().remove(names::CONFIG_KEY).unwrap();
    let config: ackwell_proto::v1::QueueConfig = serde_json::from_str(&text).unwrap();
    assert_eq!((config.namespace.as_str(), config.name.as_str()), ("shop", "orders"));
    assert_eq!(config.shard_addresses, [0, 1].map(|ordinal| names::shard_address("shop", "orders", ordinal)));
    assert_eq!(config.settings.unwrap().max_attempts, 10);
}

/// Garbage collection deletes exactly what the Queue owns.
#[test]
fn every_child_is_owned_and_labelled() {
    let all = json_of(&children(|spec| spec.shards = 2));
    for (kind, child) in all.as_object().unwrap() {
        let owner = &child["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (&json!("uid-1"), &json!(true)), "{kind}");
        assert_eq!(child["metadata"]["labels"], json!(names::labels("orders")), "{kind}");
    }
}
