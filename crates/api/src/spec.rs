//! What users write: the spec of a Queue. The doc comments are the documentation in the CRD.

#![expect(unreachable_pub, reason = "KubeSchema copies public structs into functions")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::backup::Bootstrap;
use crate::rules;
use crate::status::QueueStatus;
use crate::template::Template;

/// A durable message queue. Brokers store its messages on volumes; applications send and receive through a sidecar.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ackwell.dev",
    version = "v1alpha1",
    kind = "Queue",
    plural = "queues",
    shortname = "aq",
    category = "ackwell",
    namespaced,
    doc = "A durable message queue. Brokers store its messages on volumes; applications send and receive through a sidecar.",
    derive = "PartialEq",
    status = "QueueStatus",
    scale(
        spec_replicas_path = ".spec.shards",
        status_replicas_path = ".status.shards",
        label_selector_path = ".status.selector"
    ),
    validation = rules::NAME,
    validation = rules::SIZE_SHRINKS,
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".spec.shards"),
    printcolumn(
        name = "Backlog",
        type_ = "integer",
        json_path = ".status.messages.ready",
        description = "Messages waiting for a consumer."
    ),
    printcolumn(name = "In-flight", type_ = "integer", json_path = ".status.messages.inFlight"),
    printcolumn(name = "Dead", type_ = "integer", json_path = ".status.messages.dead"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = rules::BYTES_FIT_VOLUME,
    validation = rules::ENCRYPTION_CHANGES,
    validation = rules::BOOTSTRAP_CHANGES
)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Number of brokers, each with its own volume; messages are spread over them. More or fewer at any time.
    #[serde(default = "default_shards")]
    #[schemars(range(min = 1, max = 64), extend("format" = "int32"))]
    pub shards: u32,

    /// The volume of each shard.
    #[x_kube(
        validation = rules::SIZE_MINIMUM,
        validation = rules::CLASS_CHANGES,
        validation = rules::ACCESS_MODE_CHANGES
    )]
    pub storage: Storage,

    /// Seals everything that the shards store: log, state and copies of damaged parts, by AES-256-GCM. It can only be given when
    /// the Queue is made, and not be taken away: what was written in clear would stay on the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,

    /// How messages are handed out and retried. Changes take effect at once; nothing restarts.
    #[serde(default)]
    #[x_kube(validation = rules::PROCESSING_COVERS_ACK, validation = rules::BACKOFF_ORDER)]
    pub delivery: Delivery,

    /// How much each shard takes. Changes take effect at once; nothing restarts.
    #[serde(default)]
    #[x_kube(validation = rules::MESSAGE_BYTES)]
    pub limits: Limits,

    /// How long things are kept. Changes take effect at once; nothing restarts.
    #[serde(default)]
    pub retention: Retention,

    /// What the Queue begins with; absent: nothing. Used while it is new, and never again. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,

    /// Stops the brokers; volumes, messages and `shards` stay. Sends and receives wait until it is false again.
    #[serde(default)]
    pub suspend: bool,

    /// When brokers are replaced.
    #[serde(default)]
    pub rollout: Rollout,

    /// Who may do what with the messages; nobody else may. Empty: the ServiceAccounts of the Queue's namespace may send and
    /// consume. Changes take effect at once; nothing restarts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub clients: Vec<Client>,

    /// What happens to the volumes when the Queue is deleted. Retain keeps them, and a Queue of the same name gets them
    /// back with all messages. Deleting the namespace deletes volumes in any case.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// CPU and memory of each broker. Changes restart the brokers.
    #[serde(default = "default_resources")]
    pub resources: ResourceRequirements,

    /// Where brokers may run. Changes restart the brokers.
    #[serde(default)]
    pub scheduling: Scheduling,

    /// A pod template. With it the Queue is Embedded: each of its pods is the application of the template, with a broker beside
    /// it. The application has the API at `ACKWELL_ADDRESS` (127.0.0.1:7400), with the messages of all shards; it starts after the
    /// broker, and ends before it. Changes replace the pods, one after the other; so does giving or taking the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::template::schema")]
    pub template: Option<Template>,

    /// How long a broker may take to stop. Changes restart the brokers.
    #[serde(default = "default_termination_grace_period_seconds")]
    #[schemars(range(min = 10, max = 3600), extend("format" = "int32"))]
    pub termination_grace_period_seconds: u32,
}

/// The volume of each shard.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each volume, at least 256Mi. It can grow at any time, and nothing restarts. It cannot shrink, but a growth
    /// that failed can be taken back: down to `status.storage.floor`.
    #[schemars(schema_with = "bytes_schema")]
    pub size: Quantity,

    /// StorageClass of the volumes; absent: the cluster's default. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// ReadWriteOncePod lets the cluster guarantee that one pod at a time writes, where the storage supports it.
    /// Cannot be changed.
    #[serde(default)]
    pub access_mode: AccessMode,
}

/// With what the shards' volumes are sealed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Secret of the Queue's namespace with the keys. Each entry is a key: its name is the key's id, its content 32 bytes
    /// in base64, as `openssl rand -base64 32` makes them. The entry whose name comes last, byte by byte, seals what is new; the
    /// others still open what they sealed. A key that is lost takes the messages with it: nobody can read them. Another name restarts
    /// the brokers.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SERVICE_ACCOUNT))]
    pub secret_name: String,
}

/// Access mode of a volume.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// Pods of one node.
    #[default]
    ReadWriteOnce,
    /// One pod.
    ReadWriteOncePod,
}

/// How messages are handed out and retried.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivery {
    /// How long a consumer may hold a message before it must settle or extend it, unless the call says otherwise.
    /// Afterwards an attempt is counted and the message is handed out again.
    #[schemars(range(min = 1, max = 43200), extend("format" = "int32"))]
    pub ack_timeout_seconds: u32,

    /// How long a message can be held in all, extensions included.
    #[schemars(range(min = 1, max = 604_800), extend("format" = "int32"))]
    pub max_processing_seconds: u32,

    /// After this many failed attempts a message is Dead.
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_attempts: u32,

    /// How long a message waits after a failed attempt.
    pub backoff: Backoff,
}

/// How long a message waits after a failed attempt.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Backoff {
    /// Constant: always minSeconds. Linear: minSeconds more after each attempt. Exponential: twice as long after each.
    pub policy: BackoffPolicy,

    /// Wait after the first failed attempt.
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub min_seconds: u32,

    /// Longest wait.
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub max_seconds: u32,
}

/// How the wait grows with the attempts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// Always the minimum.
    Constant,
    /// The minimum, times the attempts.
    Linear,
    /// The minimum, doubled with each attempt.
    #[default]
    Exponential,
}

/// How much each shard takes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Most messages a shard stores; sends beyond are refused. 0: no limit.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64), extend("format" = "int64"))]
    pub max_messages: u64,

    /// Most bytes of bodies a shard stores; sends beyond are refused. 0: no limit but the volume.
    #[schemars(schema_with = "bytes_schema")]
    pub max_bytes: Quantity,

    /// Largest body of a message, at most 16Mi.
    #[schemars(schema_with = "bytes_schema")]
    pub max_message_bytes: Quantity,

    /// Most messages a shard hands out before some of them are settled.
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int64"))]
    pub max_in_flight: u64,
}

/// How long things are kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// How long Dead messages are kept. 0: until redriven.
    #[schemars(range(min = 0, max = 315_360_000), extend("format" = "int32"))]
    pub dead_seconds: u32,

    /// How long a deduplication id is remembered after it was sent. 0: such ids are ignored.
    #[schemars(range(min = 0, max = 604_800), extend("format" = "int32"))]
    pub dedup_window_seconds: u32,

    /// What happens to a message whose ttl passed.
    pub expired: ExpiredPolicy,
}

/// What happens to a message whose ttl passed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiredPolicy {
    /// It is Dead: kept, visible, redrivable.
    #[default]
    DeadLetter,
    /// It is gone.
    Drop,
}

/// What happens to the volumes when the Queue is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// They stay, and a Queue of the same name gets them back.
    #[default]
    Retain,
    /// They are deleted, and all messages with them.
    Delete,
}

/// When brokers are replaced.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// What an upgrade of the operator, which brings a new image for the brokers, does to the ones that run.
    pub operator_upgrade: OperatorUpgrade,
}

/// What an upgrade of the operator does to brokers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OperatorUpgrade {
    /// They are replaced, one after the other.
    #[default]
    Roll,
    /// They keep their image until this is Roll again.
    Hold,
}

/// What a ServiceAccount may do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Name of the ServiceAccount. Absent: all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SERVICE_ACCOUNT))]
    pub service_account: Option<String>,

    /// Namespace of the ServiceAccount. Absent: the Queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::NAMESPACE))]
    pub namespace: Option<String>,

    /// send: store messages. consume: receive and settle them. peek: read them without receiving. admin: redrive, purge,
    /// cancel and pause.
    #[schemars(length(min = 1, max = 4))]
    pub verbs: Vec<Verb>,
}

/// What can be done with messages.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Store them.
    Send,
    /// Receive and settle them.
    Consume,
    /// Read them without receiving.
    Peek,
    /// Redrive, purge, cancel and pause.
    Admin,
}

/// Where brokers may run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    /// Labels a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that brokers tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Absent: shards prefer different nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How shards spread over zones or other topologies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// PriorityClass of the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Secrets for pulling the broker's image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            ack_timeout_seconds: 30,
            max_processing_seconds: 1800,
            max_attempts: 10,
            backoff: Backoff::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { policy: BackoffPolicy::default(), min_seconds: 1, max_seconds: 300 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_messages: 0,
            max_bytes: Quantity("0".to_owned()),
            max_message_bytes: Quantity("1Mi".to_owned()),
            max_in_flight: 100_000,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { dead_seconds: 1_209_600, dedup_window_seconds: 600, expired: ExpiredPolicy::default() }
    }
}

fn default_shards() -> u32 {
    1
}

fn default_termination_grace_period_seconds() -> u32 {
    60
}

fn default_resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "100m"), ("memory", "128Mi")]),
        limits: quantities(&[("memory", "512Mi")]),
        ..ResourceRequirements::default()
    }
}

/// A number of bytes: an integer, or a quantity like `10Gi`. The pattern keeps CEL's `quantity()` from failing.
pub(crate) fn bytes_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?([kMGTPE]|[KMGTPE]i)?$",
        "maxLength": 22,
        "minimum": 0,
    })
}
