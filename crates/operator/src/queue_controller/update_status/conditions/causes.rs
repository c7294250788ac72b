//! Why a Queue is not ready: the first cause that explains the rest.

use ackwell_api::conditions::reasons;
use ackwell_api::names::BROKER_CONTAINER;
use ackwell_proto::exit::{KEY_MISSING, OTHER_FORMAT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{Finding, serving, shards};
use crate::queue_controller::rollout::is_observed;
use crate::queue_controller::shards::{is_ready, serves};
use crate::queue_controller::storage::phase;
use crate::queue_controller::update_status::Facts;
use crate::queue_controller::validate::{Obstacle, Plan};

/// States of a container that it does not leave by itself in a normal start.
const FAILING: [&str; 8] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// What the scheduler says while a volume is still being made; the volume's own state tells more.
const VOLUME_NOT_MADE_YET: &str = "unbound immediate PersistentVolumeClaims";

/// `None`: all shards serve the current spec.
pub(super) fn not_ready(facts: &Facts<'_>, plan: &Plan) -> Option<Finding> {
    pods_refused(facts, plan)
        .or_else(|| volume_pending(facts))
        .or_else(|| pod_failing(facts))
        .or_else(|| starting(facts, plan))
        .or_else(|| application_unready(facts))
        .or_else(|| rolling_out(facts))
        .or_else(|| unreachable(facts))
        .or_else(|| configuring(facts, plan))
}

fn pods_refused(facts: &Facts<'_>, plan: &Plan) -> Option<Finding> {
    let missing = u32::try_from(facts.observed.pods.len()).is_ok_and(|count| count < plan.shards);
    let message = facts.observed.pods_refused.as_deref().filter(|_| missing)?;
    Some(Finding::no(reasons::PODS_REFUSED, message))
}

/// A volume that waits for its pod to be scheduled is no cause by itself: only one that somebody refused.
fn volume_pending(facts: &Facts<'_>) -> Option<Finding> {
    let (ordinal, claim) = facts.observed.claims.iter().find(|(_, claim)| phase(claim) != "Bound")?;
    let message = facts.observed.volumes_refused.as_deref()?;
    let text = format!("the volume of shard {ordinal} is {}: {message}", phase(claim));
    Some(Finding::no(reasons::VOLUME_PENDING, text))
}

fn pod_failing(facts: &Facts<'_>) -> Option<Finding> {
    let mut pods = facts.observed.pods.iter();
    let (ordinal, why) = pods.find_map(|(ordinal, pod)| Some((ordinal, failure(pod)?)))?;
    Some(Finding::no(reasons::POD_FAILING, format!("shard {ordinal}: {why}")))
}

fn failure(pod: &Pod) -> Option<String> {
    containers(pod).find_map(container_failure).or_else(|| unschedulable(pod))
}

/// Beside an application a broker is one of the init containers.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let lists =
        pod.status.as_ref().map(|status| [&status.init_container_statuses, &status.container_statuses]);
    lists.into_iter().flatten().flatten().flatten()
}

fn container_failure(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| FAILING.contains(reason))?;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let message =
        last.and_then(|last| last.message.as_deref()).or(waiting.message.as_deref()).unwrap_or("no message");
    let beside = container.name != BROKER_CONTAINER;
    let name = if beside { format!("container {}: ", container.name) } else { String::new() };
    Some(format!("{name}{reason}: {}", message.trim()))
}

/// A broker that leaves its store alone, since another version wrote it: only a person can bring that version back.
pub(super) fn other_format(facts: &Facts<'_>) -> Option<Obstacle> {
    let (ordinal, why) = refusal_of_store(facts, OTHER_FORMAT)?;
    let text = format!(
        "the store of shard {ordinal} was written by another version of Ackwell, and its broker leaves it as it is: install \
         the version that wrote it, or one that says that it carries it over; the broker says: {why}"
    );
    Some(Obstacle::new(reasons::FORMAT_UNSUPPORTED, text))
}

/// A broker that leaves its store alone, since it cannot open what is in it: only who has the key can bring it back.
pub(super) fn key_missing(facts: &Facts<'_>) -> Option<Obstacle> {
    let (ordinal, why) = refusal_of_store(facts, KEY_MISSING)?;
    let secret = facts.queue.spec.encryption.as_ref().map_or("none", |encryption| &encryption.secret_name);
    let text = format!(
        "the broker of shard {ordinal} cannot open its store with the keys of the Secret {secret} (spec.encryption), and leaves it \
         as it is; it serves again some minutes after the Secret has the key; the broker says: {why}"
    );
    Some(Obstacle::new(reasons::ENCRYPTION_KEY_MISSING, text))
}

/// The first shard whose broker ended so, and its last words.
fn refusal_of_store<'a>(facts: &Facts<'a>, code: u8) -> Option<(u32, &'a str)> {
    facts.observed.pods.iter().find_map(|(ordinal, pod)| Some((*ordinal, last_words(pod, code)?)))
}

/// Its last words, if that is what it ended with. Between its attempts it may look as if it were starting.
fn last_words(pod: &Pod, code: u8) -> Option<&str> {
    let brokers = containers(pod).filter(|container| container.name == BROKER_CONTAINER && !container.ready);
    let mut ends = brokers.flat_map(|container| {
        let states = [container.state.as_ref(), container.last_state.as_ref()];
        states.into_iter().flatten().filter_map(|state| state.terminated.as_ref())
    });
    let end = ends.find(|end| end.exit_code == i32::from(code))?;
    Some(end.message.as_deref().and_then(|log| log.trim().lines().last()).unwrap_or("no message"))
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let refused = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let message = refused.message.as_deref().unwrap_or("no message");
    (!message.contains(VOLUME_NOT_MADE_YET)).then(|| format!("no node takes it: {message}"))
}

fn starting(facts: &Facts<'_>, plan: &Plan) -> Option<Finding> {
    let serving = serving(facts);
    let text = || format!("{serving} of {} serve", shards(plan.shards));
    (serving < plan.shards).then(|| Finding::no(reasons::SHARDS_STARTING, text()))
}

/// What the pods of an Embedded Queue are besides brokers is for their author to make ready.
fn application_unready(facts: &Facts<'_>) -> Option<Finding> {
    let mut pods = facts.observed.pods.iter();
    let (ordinal, _) = pods.find(|(_, pod)| serves(pod) && !is_ready(pod))?;
    let text = format!("all shards serve, and the application beside shard {ordinal} is not ready");
    Some(Finding::no(reasons::APPLICATION_UNREADY, text))
}

fn rolling_out(facts: &Facts<'_>) -> Option<Finding> {
    let set = facts.observed.stateful_set.as_deref()?;
    let (updated, replicas) = progress(set)?;
    let text = || format!("{updated} of {replicas} brokers run the new template");
    (updated < replicas).then(|| Finding::no(reasons::ROLLING_OUT, text()))
}

/// Brokers with the newest template, and brokers in all.
fn progress(set: &StatefulSet) -> Option<(i32, i32)> {
    let status = set.status.as_ref()?;
    Some((if is_observed(set) { status.updated_replicas.unwrap_or(0) } else { 0 }, status.replicas))
}

fn unreachable(facts: &Facts<'_>) -> Option<Finding> {
    let (shard, why) = facts.shards.iter().find_map(|shard| Some((shard, shard.unreachable.as_deref()?)))?;
    let text = format!(
        "shard {} is ready but does not answer the operator at {why}; a NetworkPolicy may be in the way",
        shard.ordinal
    );
    Some(Finding::no(reasons::BROKER_UNREACHABLE, text))
}

fn configuring(facts: &Facts<'_>, plan: &Plan) -> Option<Finding> {
    let wanted = plan.queue.generation();
    let confirmed =
        facts.shards.iter().filter(|shard| shard.generation.is_some_and(|has| has >= wanted)).count();
    let text = || format!("{confirmed} of {} confirmed the current settings", shards(plan.shards));
    u32::try_from(confirmed)
        .is_ok_and(|confirmed| confirmed < plan.shards)
        .then(|| Finding::no(reasons::CONFIGURING, text()))
}
