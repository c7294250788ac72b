//! What users order once: a `QueueTask`. The doc comments are the documentation in the CRD.

#![expect(unreachable_pub, reason = "KubeSchema copies public structs into functions")]
#![allow(clippy::duplicated_attributes, reason = "columns have the same types")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::BackupPlace;
use crate::rules;

/// Something that is done once with the messages of a Queue. The tasks of a Queue are done one after the other, the oldest
/// first.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ackwell.dev",
    version = "v1alpha1",
    kind = "QueueTask",
    plural = "queuetasks",
    shortname = "aqt",
    category = "ackwell",
    namespaced,
    doc = "Something that is done once with the messages of a Queue. The tasks of a Queue are done one after the other, the oldest first.",
    derive = "PartialEq",
    status = "QueueTaskStatus",
    selectable = ".spec.queueName",
    printcolumn(name = "Queue", type_ = "string", json_path = ".spec.queueName"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Processed", type_ = "integer", json_path = ".status.processed"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.total"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = rules::ONE_WORK,
    validation = rules::TASK_CHANGES,
    validation = rules::CANCEL_IS_TAKEN_BACK
)]
#[serde(rename_all = "camelCase")]
pub struct QueueTaskSpec {
    /// Name of a Queue in this namespace. Cannot be changed.
    #[schemars(length(min = 1, max = 40), regex(pattern = rules::QUEUE))]
    pub queue_name: String,

    /// Puts Dead messages back to Ready, with attempts counted from 0: those that are Dead when the task begins. Cannot be
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<Redrive>,

    /// Removes messages for good: those that are stored when the task begins, but none that a consumer holds. Cannot be
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<Purge>,

    /// Copies what is stored into a folder that has no backup yet: every message that is not acked meanwhile; those that come
    /// later are left out. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPlace>,

    /// Ends the task: what it has done stays done. Cannot be taken back.
    #[serde(default)]
    pub cancel: bool,

    /// The task is deleted so long after it is over.
    #[serde(default = "default_ttl_seconds_after_finished")]
    #[schemars(range(min = 0, max = 31_536_000), extend("format" = "int32"))]
    pub ttl_seconds_after_finished: u32,
}

/// Puts Dead messages back to Ready.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Redrive {
    /// At most so many, those stored first of shard 0 before those of shard 1. 0: all.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64), extend("format" = "int64"))]
    pub max_messages: u64,

    /// At most so many in a second. 0: as fast as it goes.
    #[schemars(range(min = 0, max = 1_000_000), extend("format" = "int32"))]
    pub max_per_second: u32,
}

/// Removes messages for good.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Purge {
    /// Which messages.
    pub target: PurgeTarget,

    /// Only messages that were stored so long before the task was made. 0: of any age.
    #[serde(default)]
    #[schemars(range(min = 0, max = 315_360_000), extend("format" = "int32"))]
    pub older_than_seconds: u32,
}

/// Which messages a purge removes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// Those that wait for a consumer; not those that wait for a time.
    Ready,
    /// Dead ones.
    DeadLetter,
    /// Those that wait for a consumer or for a time, and Dead ones.
    All,
}

/// How far a task is. Written only by the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueTaskStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the task is.
    #[serde(default)]
    pub state: TaskState,

    /// Messages that it is done with.
    #[serde(default)]
    pub processed: i64,

    /// Messages that there were when it began, as far as its shards have begun; not more than it may take. Some may be gone
    /// before their turn, or too new.
    #[serde(default)]
    pub total: i64,

    /// Messages that could not be redriven, since their bodies are corrupt.
    #[serde(default)]
    pub failed: i64,

    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// The shards that there were when it began.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ordinal".into()]))]
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub shards: Vec<ShardProgress>,

    /// Complete, Failed, Reconciling, Stalled.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Where a task is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskState {
    /// It waits for its turn.
    #[default]
    Pending,
    /// It has begun.
    Running,
    /// It is done.
    Succeeded,
    /// It ended before it was done.
    Failed,
    /// It cannot be done, and nothing was.
    Rejected,
    /// Its spec ended it.
    Cancelled,
}

/// How far a task is in one shard.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ShardProgress {
    /// The shard.
    pub ordinal: i32,

    /// Whether it is done there.
    pub state: ShardTaskState,

    /// Messages that it is done with.
    #[serde(default)]
    pub processed: i64,

    /// Messages that there were when it began there.
    #[serde(default)]
    pub total: i64,

    /// Messages that could not be redriven.
    #[serde(default)]
    pub failed: i64,
}

/// Whether a task is done in a shard.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardTaskState {
    /// It has not begun, as far as is known.
    #[default]
    Pending,
    /// It has begun.
    Running,
    /// It is over there.
    Done,
}

impl TaskState {
    /// Nothing more comes.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

fn default_ttl_seconds_after_finished() -> u32 {
    3600
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    use super::*;

    /// The smallest there is.
    #[test]
    fn defaults_are_those_of_the_documentation() {
        let spec = json!({"queueName": "orders", "redrive": {}});
        let spec: QueueTaskSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.redrive, Some(Redrive { max_messages: 0, max_per_second: 0 }));
        assert_eq!((spec.cancel, spec.ttl_seconds_after_finished), (false, 3600));
    }

    /// A rule that no case breaks could as well not be there. The cases are put to a real API server by the operator's
    /// `tests/control`.
    #[test]
    fn every_rule_has_a_case_that_breaks_it() {
        let cases: Value = serde_json::from_str(include_str!("../tests/tasks.json")).unwrap();
        let cases =
            ["refused", "refusedChanges"].map(|list| cases[list].as_array().unwrap().clone()).concat();
        let crd = serde_json::to_value(QueueTask::crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let rules = schema["x-kubernetes-validations"].as_array().unwrap();
        assert_eq!(rules.len(), 3);
        for rule in rules {
            let message = rule["message"].as_str().unwrap();
            let is_broken =
                |case: &Value| case["message"].as_str().is_some_and(|text| message.contains(text));
            assert!(cases.iter().any(is_broken), "no case breaks {message:?}");
        }
    }
}
