//! The pod template of an Embedded Queue: what the API server knows of it, and what it is once it was read.
//!
//! The schema names the fields that rules speak of, and lets the rest of a pod's pass: all of it would be many times the rest of
//! the CRD. What is no field of a pod is found when the template is read, before anything is made of it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names::{
    BROKER_CONTAINER, DATA_VOLUME, GRPC_PORT, HTTP_PORT, QUEUES_ANNOTATION, SIDECAR_HTTP_PORT,
};
use crate::rules::Rule;
use crate::schema::Violation;

/// Bytes of a template as JSON: Kubernetes keeps several revisions of it, and has room for a million and a half in an object.
const MAX_BYTES: usize = 256 << 10;
/// Names of what we put into the pod begin so, or are those of the broker and of its volume.
const OWN_PREFIX: &str = "ackwell";
/// What is no field of a pod, or stands twice in a list, is listed so far: it all goes into one condition.
const MAX_UNKNOWN: usize = 10;

const LABELS: Rule = (
    "self.all(key, !key.startsWith('ackwell.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/component', \
     'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by']))",
    "template.metadata.labels may not have app.kubernetes.io/name, component, instance and managed-by, nor ackwell.dev/*: the \
     operator sets them, and finds pods by them",
);
const ANNOTATIONS: Rule = (
    "self.all(key, !key.startsWith('ackwell.dev/') || key == 'ackwell.dev/queues')",
    "template.metadata.annotations may have only ackwell.dev/queues of ackwell.dev/*",
);
const SHARED: Rule = (
    "!(has(self.hostNetwork) && self.hostNetwork) && !(has(self.hostPID) && self.hostPID) && \
     !(has(self.hostIPC) && self.hostIPC) && !(has(self.shareProcessNamespace) && self.shareProcessNamespace)",
    "template.spec may not have hostNetwork, hostPID, hostIPC or shareProcessNamespace: the broker is in the same pod",
);
const SHARED_FIELDS: [&str; 4] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"];
const NAMES: Rule = (
    "!has(self.dnsPolicy) || self.dnsPolicy in ['ClusterFirst', 'ClusterFirstWithHostNet']",
    "template.spec.dnsPolicy must be ClusterFirst: the shards find each other by the names of the cluster",
);
const PLACED: Rule = (
    "!has(self.nodeName) && !has(self.nodeSelector) && !has(self.affinity) && !has(self.tolerations) && \
     !has(self.topologySpreadConstraints) && !has(self.priorityClassName) && !has(self.imagePullSecrets)",
    "template.spec may not have nodeName, nodeSelector, affinity, tolerations, topologySpreadConstraints, priorityClassName \
     or imagePullSecrets: spec.scheduling is for the whole pod",
);
const PLACED_FIELDS: [&str; 7] = [
    "nodeName",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priorityClassName",
    "imagePullSecrets",
];
const ENDED: Rule = (
    "!has(self.terminationGracePeriodSeconds) && !has(self.activeDeadlineSeconds)",
    "template.spec may not have terminationGracePeriodSeconds, since spec.terminationGracePeriodSeconds is for the whole pod, \
     nor activeDeadlineSeconds, since the broker stays",
);
const ENDED_FIELDS: [&str; 2] = ["terminationGracePeriodSeconds", "activeDeadlineSeconds"];
const CONTAINER_NAME: Rule = (
    "self.name != 'broker' && !self.name.startsWith('ackwell')",
    "containers of template.spec may not be named broker or ackwell*: the containers beside them are",
);
const PORT: Rule = (
    "!(self.containerPort in [7400, 7410, 7411])",
    "containers of template.spec may not have ports 7400, 7410 and 7411: the broker and the sidecar listen there",
);
const MOUNT: Rule = (
    "self.name != 'data' && !self.name.startsWith('ackwell')",
    "containers of template.spec may not mount data or ackwell*: these volumes are the broker's",
);
const VOLUME_NAME: Rule = (
    "self.name != 'data' && !self.name.startsWith('ackwell')",
    "volumes of template.spec may not be named data or ackwell*: those of the broker are",
);

/// What the pods of an Embedded Queue are besides the broker, as it was written.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Template {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// The spec of a pod.
    pub spec: Value,
}

/// Labels and annotations of the pods of an Embedded Queue.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct TemplateMetadata {
    /// Besides those of the operator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `ackwell.dev/queues` names other queues that the application uses.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

impl Template {
    /// The pod that it describes; everything that is none.
    pub(crate) fn read(&self) -> Result<PodSpec, Vec<Violation>> {
        let at = "spec.template.spec";
        let bytes = self.spec.to_string().len();
        if bytes > MAX_BYTES {
            let message = format!("has {bytes} bytes as JSON; it may have at most {MAX_BYTES}");
            return Err(vec![Violation::new(at, message)]);
        }
        let spec: PodSpec = serde_json::from_value(self.spec.clone())
            .map_err(|error| vec![Violation::new(at, format!("is not the spec of a pod: {error}"))])?;
        let mut found = Vec::new();
        find_unknown(at, &self.spec, &json!(spec), &mut found);
        found.extend(repeated(at, &self.spec));
        if found.is_empty() { Ok(spec) } else { Err(found) }
    }
}

/// Everything that stands twice in a list whose items the API server tells apart by a field: it answers with a failure of its
/// own when pods are made of that.
fn repeated(at: &str, spec: &Value) -> Vec<Violation> {
    let of_containers = ["initContainers", "containers"].into_iter().flat_map(|list| {
        let of = move |index| format!("{at}.{list}[{index}]");
        let containers = items(&spec[list]).iter().enumerate();
        containers.flat_map(move |(index, container)| twice(&of(index), container, &KEYS_OF_CONTAINER))
    });
    twice(at, spec, &KEYS_OF_POD).into_iter().chain(of_containers).collect()
}

const KEYS_OF_POD: [(&str, &[&str]); 3] =
    [("containers", &["name"]), ("initContainers", &["name"]), ("volumes", &["name"])];
const KEYS_OF_CONTAINER: [(&str, &[&str]); 4] = [
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
];

/// What repeats in the lists of `object`, each with the fields by which its items are told apart.
fn twice(at: &str, object: &Value, lists: &[(&str, &[&str])]) -> Vec<Violation> {
    let in_list = |(list, keys): &(&str, &[&str])| {
        let mut seen = BTreeSet::new();
        let key = |item: &Value| keys.iter().map(|key| shown(&item[*key])).collect::<Vec<_>>().join("/");
        let again: Vec<_> =
            items(&object[*list]).iter().map(key).filter(|key| !seen.insert(key.clone())).collect();
        let violation = |key| Violation::new(format!("{at}.{list}"), format!("has {key} more than once"));
        again.into_iter().take(MAX_UNKNOWN).map(violation).collect::<Vec<_>>()
    };
    lists.iter().flat_map(in_list).collect()
}

/// A port whose protocol is not said is one of TCP.
fn shown(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Null => "TCP".to_owned(),
        other => other.to_string(),
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Everything in `written` that `read`, which was made from it, does not have.
fn find_unknown(path: &str, written: &Value, read: &Value, found: &mut Vec<Violation>) {
    match written {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                match read.get(name) {
                    Some(read) => find_unknown(&path, value, read, found),
                    None if found.len() < MAX_UNKNOWN => {
                        found.push(Violation::new(path, "is not a field that pods have"));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_unknown(&format!("{path}[{index}]"), item, &read[index], found);
            }
        }
        _ => {}
    }
}

/// Every rule that `template` breaks.
pub(crate) fn broken(template: &Template) -> Vec<Violation> {
    let Template { metadata: TemplateMetadata { labels, annotations }, spec } = template;
    let ours = |key: &String| key.starts_with("ackwell.dev/") || OWN_LABELS.contains(&key.as_str());
    let reserved = |key: &String| key.starts_with("ackwell.dev/") && key != QUEUES_ANNOTATION;
    let is_true = |field: &&str| spec[*field] == true;
    let is_set = |field: &&str| !spec[*field].is_null();
    let of_pod = [
        ("metadata.labels", LABELS, labels.keys().any(ours)),
        ("metadata.annotations", ANNOTATIONS, annotations.keys().any(reserved)),
        ("spec", SHARED, SHARED_FIELDS.iter().any(is_true)),
        ("spec", PLACED, PLACED_FIELDS.iter().any(is_set)),
        ("spec", ENDED, ENDED_FIELDS.iter().any(is_set)),
        ("spec", NAMES, spec["dnsPolicy"].as_str().is_some_and(|policy| !policy.starts_with("ClusterFirst"))),
    ];
    let violation = |path: &str, rule: Rule| Violation::new(format!("spec.template.{path}"), rule.1);
    let of_pod = of_pod.into_iter().filter(|(_, _, breaks)| *breaks);
    let of_lists = [("containers", container as Check), ("initContainers", container), ("volumes", volume)];
    let of_lists =
        of_lists.into_iter().flat_map(|(list, check)| of_items(&format!("spec.{list}"), &spec[list], check));
    of_pod
        .map(|(path, rule, _)| violation(path, rule))
        .chain(of_lists.map(|(path, rule)| violation(&path, rule)))
        .collect()
}

const OWN_LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
];

/// What is broken in an item at a path.
type Check = fn(&str, &Value) -> Vec<(String, Rule)>;

fn of_items(path: &str, list: &Value, check: Check) -> Vec<(String, Rule)> {
    items(list)
        .iter()
        .enumerate()
        .flat_map(|(index, item)| check(&format!("{path}[{index}]"), item))
        .collect()
}

fn container(path: &str, container: &Value) -> Vec<(String, Rule)> {
    let has_own_name = is_own(&container["name"], BROKER_CONTAINER);
    let name = has_own_name.then(|| (path.to_owned(), CONTAINER_NAME));
    let ports = of_items(&format!("{path}.ports"), &container["ports"], port);
    let mounts = of_items(&format!("{path}.volumeMounts"), &container["volumeMounts"], mount);
    name.into_iter().chain(ports).chain(mounts).collect()
}

fn port(path: &str, port: &Value) -> Vec<(String, Rule)> {
    let is_own = [GRPC_PORT, HTTP_PORT, SIDECAR_HTTP_PORT].iter().any(|own| port["containerPort"] == *own);
    is_own.then(|| (path.to_owned(), PORT)).into_iter().collect()
}

fn mount(path: &str, mount: &Value) -> Vec<(String, Rule)> {
    is_own(&mount["name"], DATA_VOLUME).then(|| (path.to_owned(), MOUNT)).into_iter().collect()
}

fn volume(path: &str, volume: &Value) -> Vec<(String, Rule)> {
    is_own(&volume["name"], DATA_VOLUME).then(|| (path.to_owned(), VOLUME_NAME)).into_iter().collect()
}

fn is_own(name: &Value, own: &str) -> bool {
    name.as_str().is_some_and(|name| name == own || name.starts_with(OWN_PREFIX))
}

/// The schema of [`Template`].
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["spec"],
        "properties": {
            "metadata": {
                "description": "Labels and annotations of the pods.",
                "type": "object",
                "properties": {
                    "labels": strings("Besides those that the operator sets.", 63, LABELS),
                    "annotations": strings(
                        "ackwell.dev/queues names other queues that the application uses, like \"mails,logs\".",
                        16_384,
                        ANNOTATIONS,
                    ),
                },
            },
            "spec": pod(),
        },
    })
}

fn strings(description: &str, max_length: u32, rule: Rule) -> Value {
    json!({
        "description": description,
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": max_length},
        "x-kubernetes-validations": [validation(rule)],
    })
}

fn pod() -> Value {
    let names = SHARED_FIELDS.map(|field| (field, json!({"type": "boolean"})));
    let anything = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let list = || json!({"type": "array", "maxItems": 64, "items": anything()});
    let elsewhere = [
        ("nodeName", json!({"type": "string"})),
        ("nodeSelector", anything()),
        ("affinity", anything()),
        ("tolerations", list()),
        ("topologySpreadConstraints", list()),
        ("priorityClassName", json!({"type": "string"})),
        ("imagePullSecrets", list()),
        ("terminationGracePeriodSeconds", json!({"type": "integer"})),
        ("activeDeadlineSeconds", json!({"type": "integer"})),
    ];
    let own = [
        ("restartPolicy", json!({"type": "string", "enum": ["Always"]})),
        ("dnsPolicy", json!({"type": "string"})),
        ("containers", containers("The application's containers.", 1)),
        ("initContainers", containers("Run when the broker and the sidecar do.", 0)),
        ("volumes", named("The application's volumes.", VOLUME_NAME, &json!({}))),
    ];
    let of_pod = [SHARED, PLACED, ENDED, NAMES].map(validation);
    let properties: BTreeMap<_, _> = names.into_iter().chain(elsewhere).chain(own).collect();
    json!({
        "description": "The spec of a pod, as Kubernetes has it: containers, initContainers, volumes, serviceAccountName, \
            securityContext and so on.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["containers"],
        "properties": properties,
        "x-kubernetes-validations": of_pod,
    })
}

fn containers(description: &str, least: u32) -> Value {
    let port = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["containerPort"],
        "properties": {"containerPort": {"type": "integer"}},
        "x-kubernetes-validations": [validation(PORT)],
    });
    let properties = json!({
        "ports": {"type": "array", "maxItems": 32, "items": port},
        "volumeMounts": named("What of the pod's volumes it has.", MOUNT, &json!({})),
    });
    let mut list = named(description, CONTAINER_NAME, &properties);
    (list["minItems"], list["maxItems"]) = (json!(least), json!(16));
    list
}

/// A list of things with names, and properties of which a rule speaks.
fn named(description: &str, rule: Rule, properties: &Value) -> Value {
    let mut properties = properties.clone();
    properties["name"] = json!({"type": "string", "maxLength": 63});
    json!({
        "description": description,
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": properties,
            "x-kubernetes-validations": [validation(rule)],
        },
    })
}

fn validation((rule, message): Rule) -> Value {
    json!({"rule": rule, "message": message})
}
