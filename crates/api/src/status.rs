//! What the operator answers: the status of a Queue.

#![expect(unreachable_pub, reason = "KubeSchema copies public structs into functions")]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::RestoreStatus;
use crate::spec::bytes_schema;

/// What the operator last saw. Written only by the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Brokers that exist.
    #[serde(default)]
    pub shards: i32,

    /// Brokers that serve.
    #[serde(default)]
    pub ready_shards: i32,

    /// Selects the broker pods; for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Address of any ready shard, for clients without a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,

    /// Each broker that exists, by ordinal.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ordinal".into()]))]
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub shard_states: Vec<ShardState>,

    /// Messages of all shards that serve, sampled at most every 10 seconds. Absent while no broker serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<MessageCounts>,

    /// Age of the message that waits longest for a consumer. Absent when none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_seconds: Option<i64>,

    /// How far the restore of spec.bootstrap.restoreFrom is. Absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreStatus>,

    /// The volumes. Absent until the spec could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,

    /// Ready, Reconciling, Stalled, Available, StorageHealthy, Draining, Suspended, DeadLetters.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// One broker.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ShardState {
    /// The shard.
    pub ordinal: i32,

    /// The generation of the spec whose settings it runs: the newest that it confirmed. Absent until it confirmed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Messages by state.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageCounts {
    /// Waiting for a consumer.
    pub ready: i64,
    /// Held by consumers.
    pub in_flight: i64,
    /// Waiting for a time: the sender's delay, or the backoff after a failed attempt.
    pub delayed: i64,
    /// Given up on; kept until redriven or past retention.
    pub dead: i64,
}

/// The volumes of a Queue.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Size that each volume shall have: spec.storage.size.
    #[schemars(schema_with = "bytes_schema")]
    pub requested: Quantity,

    /// What spec.storage.size can go back to when a growth fails: the largest size that all volumes have reached. Absent
    /// until all of them have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bytes_schema")]
    pub floor: Option<Quantity>,

    /// Those of the shards, by ordinal.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ordinal".into()]))]
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub volumes: Vec<VolumeStatus>,
}

/// The volume of one shard.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The shard.
    pub ordinal: i32,

    /// Size that its claim asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bytes_schema")]
    pub requested: Option<Quantity>,

    /// Size that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bytes_schema")]
    pub capacity: Option<Quantity>,

    /// What happens to it.
    pub state: VolumeState,
}

/// What happens to a volume.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// It is not bound yet.
    Pending,
    /// It has the size it shall have, or more.
    Bound,
    /// It is getting larger.
    Growing,
    /// It cannot get as large as it shall be.
    Stuck,
}
