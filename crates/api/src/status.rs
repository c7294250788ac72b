//! What the operator answers: the status of a Queue.

#![expect(unreachable_pub, reason = "KubeSchema copies public structs into functions")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

    /// Messages of all shards that serve, sampled at most every 10 seconds. Absent while no broker serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<MessageCounts>,

    /// Age of the message that waits longest for a consumer. Absent when none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_seconds: Option<i64>,

    /// Ready, Reconciling, Stalled, Available, StorageHealthy, DeadLetters.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
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
