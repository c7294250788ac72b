//! The `Queue` and `QueueTask` resources: what users write, what the operator answers, and what their children are called.
//!
//! - [`Queue`], [`QueueSpec`], [`QueueStatus`]: the custom resource. The CRD in `crds/` is generated from them.
//! - [`QueueTask`], [`QueueTaskSpec`], [`QueueTaskStatus`]: what is done once with the messages of a Queue.
//! - [`ValidatedQueue`]: a Queue whose every rule holds, parsed once. Outside of a cluster it is read with
//!   [`ValidatedQueue::from_manifest`], which refuses what the API server would refuse.
//! - [`names`], [`conditions`]: names, labels, condition types and reasons.
//!
//! It has no Kubernetes client and reads no files.

pub mod conditions;
pub mod names;

mod backup;
mod bytes;
mod rules;
mod schema;
mod spec;
mod status;
mod task;
mod template;
mod validated;

pub use backup::{BackupPlace, Bootstrap, RestoreState, RestoreStatus};
pub use bytes::{InvalidBytes, format_bytes, parse_bytes};
pub use schema::Violation;
pub use spec::{
    AccessMode, Backoff, BackoffPolicy, Client, DeletionPolicy, Delivery, Encryption, ExpiredPolicy, Limits,
    OperatorUpgrade, Queue, QueueSpec, Retention, Rollout, Scheduling, Storage, Verb,
};
pub use status::{MessageCounts, QueueStatus, ShardState, StorageStatus, VolumeState, VolumeStatus};
pub use task::{
    Purge, PurgeTarget, QueueTask, QueueTaskSpec, QueueTaskStatus, Redrive, ShardProgress, ShardTaskState,
    TaskState,
};
pub use template::{Template, TemplateMetadata};
pub use validated::{InvalidQueue, PodTemplate, ValidatedQueue};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The definitions that a cluster needs.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Queue::crd(), QueueTask::crd()]
}
