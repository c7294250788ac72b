//! Who changed what, and how many messages: a line in the log for each act that needs the verb `admin`, with `act` to find it
//! by. No line says what is in a message.

use ackwell_engine::command::Selected;
use ackwell_proto::Failure;
use tracing::{info, warn};

use crate::broker::access::Sender;

/// Who acts where nobody has to say who they are.
const ANYBODY: &str = "anybody";

/// Messages that a filter chose. What failed in the middle may have changed some.
pub(super) fn selected(
    act: &'static str,
    queue: &str,
    who: &Sender,
    dry_run: bool,
    result: &Result<Selected, Failure>,
) {
    let who = name(who);
    match result {
        Ok(Selected { matched, changed, .. }) => info!(act, queue, who, dry_run, matched, changed, "audit"),
        Err(error) => warn!(act, queue, who, dry_run, %error, "audit"),
    }
}

/// Messages that were named.
pub(super) fn cancelled(queue: &str, who: &Sender, results: &[Result<(), Failure>]) {
    let changed = results.iter().filter(|result| result.is_ok()).count();
    info!(act = "cancel", queue, who = name(who), matched = results.len(), changed, "audit");
}

pub(super) fn paused(queue: &str, who: &Sender, paused: bool) {
    let act = if paused { "pause" } else { "resume" };
    info!(act, queue, who = name(who), "audit");
}

/// Settings, by the operator.
pub(super) fn configured(queue: &str, who: &Sender, generation: u64) {
    info!(act = "configure", queue, who = name(who), generation, "audit");
}

fn name(who: &Sender) -> &str {
    who.as_deref().unwrap_or(ANYBODY)
}
