//! Conditions of a Queue. All are there from the first visit on, and tools that know kstatus understand them.

mod causes;
#[cfg(test)]
mod tests;

use ackwell_api::conditions::{reasons, types};
use ackwell_api::names::PAUSED_ANNOTATION;
use ackwell_api::{MessageCounts, RestoreState};
use ackwell_proto::v1::Placement;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Facts;
use crate::queue_controller::error::Class;
use crate::queue_controller::placement::Drain;
use crate::queue_controller::rollout::State;
use crate::queue_controller::shards::serves;
use crate::queue_controller::storage::phase;
use crate::queue_controller::validate::{Obstacle, Plan};

/// Characters: whoever is quoted may have quoted what a user wrote, and the API server takes 32 KiB.
const MAX_MESSAGE: usize = 4096;

/// What is said about one aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// The conditions that `facts` amount to.
pub(super) fn compute(facts: &Facts<'_>, messages: Option<MessageCounts>, now: &Time) -> Vec<Condition> {
    let ready = ready(facts);
    let stalled = stalled(facts);
    let findings = [
        (types::RECONCILING, reconciling(facts, &ready, &stalled)),
        (types::READY, ready),
        (types::STALLED, stalled),
        (types::AVAILABLE, available(facts)),
        (types::STORAGE_HEALTHY, storage_healthy(facts)),
        (types::DRAINING, draining(facts)),
        (types::SUSPENDED, suspended(facts)),
        (types::DEAD_LETTERS, dead_letters(messages)),
    ];
    types::ALL
        .into_iter()
        .filter_map(|type_| findings.iter().find(|(of, _)| *of == type_))
        .map(|(type_, finding)| condition(facts, type_, finding, now))
        .collect()
}

/// Shards whose broker is ready.
pub(super) fn serving(facts: &Facts<'_>) -> u32 {
    let serving = facts.observed.pods.iter().filter(|(_, pod)| serves(pod)).count();
    u32::try_from(serving).unwrap_or(u32::MAX)
}

/// The time of the last transition only moves when the status does.
fn condition(facts: &Facts<'_>, type_: &str, finding: &Finding, now: &Time) -> Condition {
    let before = facts.queue.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let same = before.iter().find(|known| known.type_ == type_ && known.status == finding.status);
    Condition {
        type_: type_.to_owned(),
        status: finding.status.to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: facts.queue.metadata.generation,
        last_transition_time: same.map_or(now, |known| &known.last_transition_time).clone(),
    }
}

fn ready(facts: &Facts<'_>) -> Finding {
    let plan = match facts.outcome {
        Err(error) => return Finding::no(error.reason(), error.to_string()),
        Ok(plan) => plan,
    };
    if plan.paused {
        return Finding::unknown(
            reasons::PAUSED,
            "nobody compares the brokers with the spec while it is paused",
        );
    }
    if plan.suspended() {
        return Finding::no(
            reasons::SUSPENDED,
            "no broker runs, because spec.suspend is true; all messages are kept",
        );
    }
    causes::not_ready(facts, plan)
        .or_else(|| closed(plan))
        .unwrap_or_else(|| Finding::yes(reasons::ALL_SHARDS_READY, serve(plan.shards)))
}

/// While a backup is restored.
fn closed(plan: &Plan) -> Option<Finding> {
    match plan.restore.as_ref().filter(|_| plan.is_restoring) {
        Some(restore) if restore.status.state == RestoreState::Failed => {
            Some(Finding::no(reasons::RESTORE_FAILED, restore.says.clone()))
        }
        Some(restore) => Some(Finding::no(reasons::RESTORING, restore.says.clone())),
        None => plan.is_restoring.then(|| Finding::no(reasons::RESTORING, "a backup is to be restored")),
    }
}

fn reconciling(facts: &Facts<'_>, ready: &Finding, stalled: &Finding) -> Finding {
    let done = || Finding::no(reasons::UP_TO_DATE, "nothing is left that can be done");
    match facts.outcome {
        Ok(plan) if plan.paused => Finding::no(
            reasons::PAUSED,
            format!("nothing is changed until the annotation {PAUSED_ANNOTATION} is removed"),
        ),
        _ if stalled.status == "True" => done(),
        Ok(plan) if plan.suspended() => stopping(facts).unwrap_or_else(done),
        _ if ready.status != "True" => Finding { status: "True", ..ready.clone() },
        Ok(plan) => in_background(plan).unwrap_or_else(done),
        Err(_) => done(),
    }
}

fn stopping(facts: &Facts<'_>) -> Option<Finding> {
    let count = facts.observed.pods.len();
    (count > 0).then(|| Finding::yes(reasons::SUSPENDED, format!("brokers that are still stopping: {count}")))
}

/// What goes on, or waits, while all shards serve.
fn in_background(plan: &Plan) -> Option<Finding> {
    if !plan.is_settled() {
        return Some(Finding::yes(reasons::SHARDS_MOVING, moves(plan)));
    }
    match plan.rollout.state {
        State::Waiting => {
            let text = "a new template waits: two other Queues replace their brokers";
            return Some(Finding::yes(reasons::ROLLOUT_WAITING, text));
        }
        State::Held => {
            let text = "the brokers keep their image and template until spec.rollout.operatorUpgrade is Roll";
            return Some(Finding::no(reasons::ROLLOUT_HELD, text));
        }
        State::Done | State::Unsettled | State::Rolling | State::Halted { .. } | State::Kept => {}
    }
    plan.storage.growing().map(|text| Finding::yes(reasons::EXPANDING, text))
}

fn moves(plan: &Plan) -> String {
    let wanted = plan.queue.spec().shards;
    match plan.step.placement {
        None => "the brokers have not said yet how messages lie on their volumes".to_owned(),
        Some(Placement { from, to, .. }) if from == to => {
            format!("there are {to} shards, and shall be {wanted}")
        }
        Some(Placement { from, to, .. }) => {
            format!("messages move: from {from} to {to} shards, of {wanted} that there shall be")
        }
    }
}

fn stalled(facts: &Facts<'_>) -> Finding {
    let plan = match facts.outcome {
        Err(error) if error.class() == Class::User => return Finding::yes(error.reason(), error.to_string()),
        Err(_) => return Finding::no(reasons::UP_TO_DATE, "nothing needs a person"),
        Ok(plan) => plan,
    };
    let own = [causes::other_format(facts), causes::key_missing(facts), halted(plan)];
    let obstacles: Vec<Obstacle> = plan.obstacles.iter().cloned().chain(own.into_iter().flatten()).collect();
    let Some(first) = obstacles.first() else {
        return Finding::no(reasons::UP_TO_DATE, "nothing needs a person");
    };
    let messages: Vec<_> = obstacles.iter().map(|obstacle| obstacle.message.as_str()).collect();
    Finding::yes(first.reason, messages.join("; "))
}

fn halted(plan: &Plan) -> Option<Obstacle> {
    let State::Halted { ordinal, minutes } = plan.rollout.state else { return None };
    let text = format!(
        "shard {ordinal} does not serve with the new template since {minutes} minutes; the brokers below it keep the old \
         one: see `kubectl describe pod`, and change the spec or take the change back"
    );
    Some(Obstacle::new(reasons::ROLLOUT_HALTED, text))
}

fn suspended(facts: &Facts<'_>) -> Finding {
    if facts.queue.spec.suspend {
        return Finding::yes(reasons::BY_SPEC, "spec.suspend is true");
    }
    Finding::no(reasons::NOT_SUSPENDED, "spec.suspend is false")
}

fn available(facts: &Facts<'_>) -> Finding {
    match serving(facts) {
        0 => Finding::no(reasons::NO_SHARDS, "no shard serves"),
        count => Finding::yes(reasons::MINIMUM_SHARDS, serve(count)),
    }
}

fn storage_healthy(facts: &Facts<'_>) -> Finding {
    let claims = &facts.observed.claims;
    if let Some((ordinal, claim)) = claims.iter().find(|(_, claim)| phase(claim) != "Bound") {
        let text = |why: &str| format!("the volume of shard {ordinal} is {}: {why}", phase(claim));
        return match facts.observed.volumes_refused.as_deref() {
            Some(why) => Finding::no(reasons::VOLUME_PENDING, text(why)),
            None => Finding::unknown(reasons::VOLUME_PENDING, text("it is being made")),
        };
    }
    if claims.is_empty() {
        return Finding::unknown(reasons::VOLUME_PENDING, "no volume exists yet");
    }
    match facts.outcome.ok().and_then(|plan| unserved(facts, plan)) {
        Some((first, last)) => Finding::no(
            reasons::VOLUMES_UNSERVED,
            format!(
                "volumes of shards {first} to {last} exist and are not served: set spec.shards to {} to serve their \
                 messages, or delete these volume claims",
                last + 1
            ),
        ),
        None => bound(facts),
    }
}

/// The first and the last volume that may have messages nobody serves.
fn unserved(facts: &Facts<'_>, plan: &Plan) -> Option<(u32, u32)> {
    let ordinals = facts.observed.claims.iter().map(|(ordinal, _)| *ordinal);
    let mut unserved =
        ordinals.filter(|ordinal| *ordinal >= plan.shards && !plan.step.emptied.contains(ordinal));
    let first = unserved.next()?;
    Some((first, unserved.next_back().unwrap_or(first)))
}

fn bound(facts: &Facts<'_>) -> Finding {
    match facts.outcome.ok().and_then(|plan| plan.storage.abandoned()) {
        Some(text) => Finding::yes(reasons::EXPANSION_ABANDONED, text),
        None => Finding::yes(reasons::VOLUMES_BOUND, "all volumes are bound"),
    }
}

fn draining(facts: &Facts<'_>) -> Finding {
    let Some(Drain { ordinal, messages, .. }) = facts.outcome.ok().and_then(|plan| plan.step.drain.as_ref())
    else {
        return Finding::no(reasons::NOT_DRAINING, "no shard is about to leave");
    };
    let left = match messages {
        None => "has not said how much it has".to_owned(),
        Some(0) => "has none left, and goes when no answer about them can be asked for again".to_owned(),
        Some(count) => format!("has {count} left"),
    };
    Finding::yes(reasons::DRAINING, format!("shard {ordinal} hands its messages to the others, and {left}"))
}

fn dead_letters(messages: Option<MessageCounts>) -> Finding {
    match messages {
        None => Finding::unknown(reasons::UNKNOWN, "no shard has reported yet"),
        Some(counts) if counts.dead > 0 => Finding::yes(
            reasons::MESSAGES_DEAD,
            "messages are dead: see why with `ackwell peek QUEUE --state dead`, try them again with `ackwell redrive \
             QUEUE`",
        ),
        Some(_) => Finding::no(reasons::NONE_DEAD, "no message is dead"),
    }
}

/// `1 shard`, `3 shards`.
fn shards(count: u32) -> String {
    format!("{count} shard{}", if count == 1 { "" } else { "s" })
}

/// `1 shard serves`, `3 shards serve`.
fn serve(count: u32) -> String {
    format!("{} {}", shards(count), if count == 1 { "serves" } else { "serve" })
}

impl Finding {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "True", reason, message: message.into() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "False", reason, message: message.into() }
    }

    fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason, message: message.into() }
    }
}
