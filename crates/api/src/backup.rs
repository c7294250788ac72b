//! Where backups are, and what becomes of a Queue that begins with one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;
use crate::schema::Violation;

/// Where a backup is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlace {
    /// Name of a `PersistentVolumeClaim` in this namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::CLAIM))]
    pub claim_name: String,

    /// Folder of the backup on that volume, like `orders/2026-01-31`.
    #[schemars(length(min = 1, max = 200), regex(pattern = rules::FOLDER))]
    pub path: String,
}

/// What a new Queue begins with.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// A backup, which is stored in the shards before anybody can send or receive. Its Queue may have had another name and
    /// another number of shards.
    pub restore_from: BackupPlace,
}

/// How far the restore of a backup is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Whether the Queue is open.
    pub state: RestoreState,

    /// Messages of the backup. Absent until they are restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,

    /// When they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// Whether a backup is restored.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreState {
    /// It waits for the shards, or is being stored in them.
    Restoring,
    /// It cannot be restored before somebody does something; the condition Stalled says what.
    Failed,
    /// All of it is in the shards.
    Done,
}

impl BackupPlace {
    /// What the patterns of the schema refuse.
    pub(crate) fn broken(&self, at: &str) -> impl Iterator<Item = Violation> + use<> {
        let broken = |field: &str, pattern: &str, is_good: bool| {
            let violation = || Violation::new(format!("{at}.{field}"), format!("should match '{pattern}'"));
            (!is_good).then(violation)
        };
        let names = || self.path.split('/');
        let is_plain = |name: &str| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(is_allowed)
        };
        [
            broken("claimName", rules::CLAIM, rules::is_label(&self.claim_name, "-.")),
            broken("path", rules::FOLDER, names().all(is_plain)),
        ]
        .into_iter()
        .flatten()
    }
}
