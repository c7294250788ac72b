//! Which brokers get a new template, and when: the highest ordinal first, and the next one only when the broker before it
//! says itself that it serves. Pure.
//!
//! The StatefulSet's partition holds the others back: a broker that dies meanwhile comes back with the template it had.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ackwell_api::OperatorUpgrade;
use ackwell_api::names::{BROKER_CONTAINER, TEMPLATE_ANNOTATION};
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use siphasher::sip::SipHasher13;

use super::dereference::Observed;
use super::shards::{ShardView, is_ready, ready_since, serves};
use super::validate::Plan;

/// Label by which the StatefulSet controller tells templates apart.
const REVISION_LABEL: &str = "controller-revision-hash";
/// A broker that crashes soon after its start must not be taken for one that serves.
const SETTLING: Duration = Duration::from_secs(5);
/// A broker that does not serve for so long with a new template is for a person to look at. Opening a large store after a
/// crash takes minutes.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often to ask whether another Queue is done.
const TURN: Duration = Duration::from_secs(10);

/// Where the brokers of a Queue are on their way to the current template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollout {
    pub(super) state: State,
    /// Brokers with an old template that only deleting them replaces: the StatefulSet controller would wait for ever.
    pub(super) stuck: Vec<Arc<Pod>>,
    /// When to look again, where no watch reports what is waited for.
    pub(super) revisit: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// All brokers have the current template and serve.
    #[default]
    Done,
    /// All have it, and some do not serve.
    Unsettled,
    Rolling,
    /// A broker does not serve with the new template; the others keep the old one.
    Halted {
        ordinal: u32,
        minutes: u64,
    },
    /// Other Queues come first.
    Waiting,
    /// The user wants to keep the image.
    Held,
    /// The template of the spec cannot be followed.
    Kept,
}

/// What a rollout is decided from.
pub(super) struct Scene<'a> {
    pub(super) plan: &'a Plan,
    pub(super) observed: &'a Observed,
    pub(super) shards: &'a [ShardView],
    pub(super) now: &'a Time,
}

/// Whether `desired` brings another template to brokers that exist.
fn begins(desired: &StatefulSet, observed: &Observed) -> bool {
    let live = observed.stateful_set.as_deref();
    live.is_some_and(|live| live.annotations().get(TEMPLATE_ANNOTATION) != Some(&fingerprint(desired)))
}

/// Whether some brokers of `set` are kept from its template.
pub(super) fn is_held_back(set: &StatefulSet) -> bool {
    partition(set) > 0
}

/// Whether all brokers serve, and it is applications beside them that are not ready.
pub(super) fn waits_for_applications(plan: &Plan, observed: &Observed) -> bool {
    let mut pods = observed.pods.iter().map(|(_, pod)| pod);
    let all_are_there = u32::try_from(observed.pods.len()) == Ok(plan.replicas());
    all_are_there && pods.clone().all(|pod| serves(pod)) && pods.any(|pod| !is_ready(pod))
}

/// Steers `desired`: which template it has, and from which ordinal on pods follow it. `may_begin` is asked when this Queue
/// has something to begin with.
pub(super) fn steer(
    desired: &mut StatefulSet,
    scene: &Scene<'_>,
    may_begin: impl FnOnce() -> bool,
) -> Rollout {
    let Some(live) = scene.observed.stateful_set.as_deref() else {
        // Pods without their set are about to be adopted: whatever they run, none is replaced by surprise.
        let partition = if scene.observed.pods.is_empty() { 0 } else { scene.plan.replicas() };
        set(desired, partition);
        return Rollout::default();
    };
    if scene.plan.keeps_template {
        keep_template(desired, live);
        return Rollout { state: State::Kept, ..Rollout::default() };
    }
    if begins(desired, scene.observed) {
        if scene.plan.replicas() == 0 {
            // Brokers that are still stopping may be told to go on before they have.
            set(desired, if scene.observed.pods.is_empty() { 0 } else { scene.plan.shards });
            return Rollout { state: State::Rolling, ..Rollout::default() };
        }
        if let Some(state) = kept_back(desired, live, scene.plan, may_begin) {
            keep_template(desired, live);
            let revisit = (state == State::Waiting).then_some(TURN);
            return Rollout { state, revisit, ..Rollout::default() };
        }
        set(desired, scene.plan.replicas());
        return Rollout { state: State::Rolling, ..Rollout::default() };
    }
    advance(desired, live, scene)
}

fn kept_back(
    desired: &StatefulSet,
    live: &StatefulSet,
    plan: &Plan,
    may_begin: impl FnOnce() -> bool,
) -> Option<State> {
    let held = plan.queue.spec().rollout.operator_upgrade == OperatorUpgrade::Hold;
    if held && image(desired) != image(live) {
        return Some(State::Held);
    }
    (!may_begin()).then_some(State::Waiting)
}

/// One step further, if the brokers that were replaced before serve.
fn advance(desired: &mut StatefulSet, live: &StatefulSet, scene: &Scene<'_>) -> Rollout {
    let partition = partition(live);
    if !is_observed(live) {
        set(desired, partition);
        return Rollout { state: State::Rolling, ..Rollout::default() };
    }
    let brokers = Brokers { live, scene };
    let replicas = scene.plan.replicas();
    let well = (0..replicas).rev().take_while(|ordinal| brokers.wait(*ordinal) == Some(Duration::ZERO));
    let lowest_well = well.last().unwrap_or(replicas);
    let next = partition.min(lowest_well.saturating_sub(1));
    set(desired, next);
    Rollout {
        state: brokers.state(next, lowest_well),
        stuck: brokers.stuck(partition, lowest_well),
        revisit: brokers.revisit(next),
    }
}

/// The brokers of a set whose newest template is known.
struct Brokers<'a> {
    live: &'a StatefulSet,
    scene: &'a Scene<'a>,
}

impl Brokers<'_> {
    fn pod(&self, ordinal: u32) -> Option<&Arc<Pod>> {
        self.scene.observed.pods.iter().find(|(of, _)| *of == ordinal).map(|(_, pod)| pod)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let wanted = self.live.status.as_ref().and_then(|status| status.update_revision.as_ref());
        wanted.is_some() && pod.labels().get(REVISION_LABEL) == wanted
    }

    /// How long until a broker with the new template counts as serving; `None`: it does not serve, or has another one.
    fn wait(&self, ordinal: u32) -> Option<Duration> {
        let pod = self.pod(ordinal).filter(|pod| self.is_updated(pod) && is_ready(pod))?;
        let uid = pod.uid()?;
        let view = self.scene.shards.iter().find(|view| view.pod == uid)?;
        let wanted = self.scene.plan.queue.generation();
        let serves = view.stats.is_some() && view.unreachable.is_none();
        if !serves || view.generation.is_none_or(|generation| generation < wanted) {
            return None;
        }
        Some(SETTLING.saturating_sub(age(ready_since(pod)?, self.scene.now)))
    }

    fn state(&self, partition: u32, lowest_well: u32) -> State {
        if lowest_well == 0 {
            return State::Done;
        }
        if let Some(halted) = self.halted(partition) {
            return halted;
        }
        let all_updated = self.scene.observed.pods.iter().all(|(_, pod)| self.is_updated(pod));
        if partition == 0 && all_updated { State::Unsettled } else { State::Rolling }
    }

    /// Not for the last of them: then no broker has the old template any more, and this is a broker that fails like any.
    fn halted(&self, partition: u32) -> Option<State> {
        let replaced = partition.max(1)..self.scene.plan.replicas();
        replaced.into_iter().find_map(|ordinal| {
            let pod = self.pod(ordinal).filter(|pod| self.is_updated(pod) && self.wait(ordinal).is_none())?;
            let age = age(pod.metadata.creation_timestamp.as_ref()?, self.scene.now);
            (age >= PATIENCE).then_some(State::Halted { ordinal, minutes: age.as_secs() / 60 })
        })
    }

    /// Those that do not serve: nothing is lost. And the one whose turn it is, while one that waits for its turn does not
    /// serve: the controller replaces nothing as long as a broker is away, and that one is away until it is replaced.
    fn stuck(&self, partition: u32, lowest_well: u32) -> Vec<Arc<Pod>> {
        let stale = || self.scene.observed.pods.iter().filter(|(_, pod)| !self.is_updated(pod));
        let waits = stale().any(|(ordinal, pod)| *ordinal < partition && !is_ready(pod));
        let replaced = stale().filter(|(ordinal, pod)| {
            let in_turn = waits && *ordinal + 1 == lowest_well;
            *ordinal >= partition && (in_turn || !is_ready(pod))
        });
        let pods = replaced.map(|(_, pod)| pod).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.cloned().collect()
    }

    /// A broker that only has to serve a little longer reports nothing, nor does one that makes no progress.
    fn revisit(&self, partition: u32) -> Option<Duration> {
        let replaced = partition..self.scene.plan.replicas();
        let settles = replaced.filter_map(|ordinal| self.wait(ordinal)).filter(|wait| !wait.is_zero()).max();
        settles.or_else(|| (partition > 0).then_some(PATIENCE))
    }
}

fn set(desired: &mut StatefulSet, partition: u32) {
    let fingerprint = fingerprint(desired);
    desired.annotations_mut().insert(TEMPLATE_ANNOTATION.to_owned(), fingerprint);
    let rolling = RollingUpdateStatefulSetStrategy {
        partition: i32::try_from(partition).ok(),
        ..RollingUpdateStatefulSetStrategy::default()
    };
    if let Some(spec) = &mut desired.spec {
        spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(rolling),
        });
    }
}

fn keep_template(desired: &mut StatefulSet, live: &StatefulSet) {
    set(desired, partition(live));
    match live.annotations().get(TEMPLATE_ANNOTATION) {
        Some(fingerprint) => {
            desired.annotations_mut().insert(TEMPLATE_ANNOTATION.to_owned(), fingerprint.clone());
        }
        None => drop(desired.annotations_mut().remove(TEMPLATE_ANNOTATION)),
    }
    if let (Some(desired), Some(live)) = (&mut desired.spec, &live.spec) {
        desired.template = live.template.clone();
    }
}

/// Below this ordinal pods keep the template they have.
fn partition(set: &StatefulSet) -> u32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition);
    partition.and_then(|partition| u32::try_from(partition).ok()).unwrap_or(0)
}

fn template(set: &StatefulSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref().map(|spec| &spec.template)
}

/// What brokers run; that of an application beside them is its own.
fn image(set: &StatefulSet) -> Option<&str> {
    let pod = template(set)?.spec.as_ref()?;
    let mut all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    all.find(|container| container.name == BROKER_CONTAINER)?.image.as_deref()
}

/// The template as the operator builds it: what the API server adds to it must not look like a change.
fn fingerprint(set: &StatefulSet) -> String {
    let text = serde_json::to_string(&template(set)).unwrap_or_default();
    let mut hasher = SipHasher13::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether the StatefulSet controller has seen the newest spec.
pub(super) fn is_observed(set: &StatefulSet) -> bool {
    let seen = set.status.as_ref().and_then(|status| status.observed_generation);
    seen >= set.metadata.generation
}

fn age(since: &Time, now: &Time) -> Duration {
    Duration::try_from(now.0.duration_since(since.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
