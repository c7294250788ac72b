//! Who changed what, and how many messages: a line in the log for each act that needs the verb `admin`, with `act` to find it
//! by. No line says what is in a message.

use ackwell_engine::command::Selected;
use ackwell_engine::task::{Progress, TaskState};
use ackwell_proto::Failure;
use tracing::{info, warn};

use crate::broker::served::{Allowed, Served};

/// Who acts where nobody has to say who they are.
const ANYBODY: &str = "anybody";
/// Its programs have certificates and no ServiceAccount.
const OPERATOR: &str = "operator";

/// Messages that a filter chose. What failed in the middle may have changed some.
pub(super) fn selected(act: &'static str, by: &Allowed, dry_run: bool, result: &Result<Selected, Failure>) {
    let (queue, who) = (by.served.name(), name(by));
    match result {
        Ok(Selected { matched, changed, .. }) => info!(act, queue, who, dry_run, matched, changed, "audit"),
        Err(error) => warn!(act, queue, who, dry_run, %error, "audit"),
    }
}

/// Messages that were named.
pub(super) fn cancelled(by: &Allowed, results: &[Result<(), Failure>]) {
    let (queue, who) = (by.served.name(), name(by));
    let changed = results.iter().filter(|result| result.is_ok()).count();
    info!(act = "cancel", queue, who, matched = results.len(), changed, "audit");
}

pub(super) fn paused(by: &Allowed, paused: bool) {
    let (queue, who) = (by.served.name(), name(by));
    let act = if paused { "pause" } else { "resume" };
    info!(act, queue, who, "audit");
}

/// Settings, by the operator.
pub(super) fn configured(by: &Allowed, generation: u64) {
    let (queue, who) = (by.served.name(), name(by));
    info!(act = "configure", queue, who, generation, "audit");
}

/// Each part of a task that changed something: `changed` messages now, `processed` in all.
pub(super) fn worked(by: &Allowed, task: &str, before: u64, progress: &Progress) {
    if progress.state == TaskState::Forgotten {
        return;
    }
    let (queue, who) = (by.served.name(), name(by));
    let Progress { processed, failed, .. } = progress;
    let (changed, over) = (processed - before, progress.state == TaskState::Over);
    info!(act = "task", queue, who, task, changed, processed, failed, over, "audit");
}

/// A shard, for a backup.
pub(super) fn read(served: &Served, messages: u64) {
    info!(act = "backup", queue = served.name(), who = OPERATOR, matched = messages, "audit");
}

/// Into a shard.
pub(super) fn restored(served: &Served, sources: usize) {
    info!(act = "restore", queue = served.name(), who = OPERATOR, sources, "audit");
}

fn name(by: &Allowed) -> &str {
    by.sender.as_deref().unwrap_or(ANYBODY)
}
