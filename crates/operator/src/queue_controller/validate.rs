//! Step 2: what the operator will do for a Queue, and what it cannot do. Pure.

use std::collections::BTreeSet;

use ackwell_api::conditions::reasons;
use ackwell_api::names::{
    FORCE_DRAIN_ANNOTATION, PAUSED_ANNOTATION, QUEUES_ANNOTATION, RESTARTED_ANNOTATION,
};
use ackwell_api::{Queue, ValidatedQueue};
use ackwell_proto::QueueName;
use ackwell_proto::v1::{Access, Placement, QueueConfig};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::dereference::Observed;
use super::error::Error;
use super::placement::{self, Drain, Scene, Step};
use super::restore::{self, Restore};
use super::rollout::Rollout;
use super::storage::{self, Storage};
use crate::identity::Published;
use crate::webhook::named_queues;

/// Characters of a time, and some; anybody can write anything into an annotation, and this comes into every pod.
const MAX_RESTARTED: usize = 64;

/// What will be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) queue: ValidatedQueue,
    /// Shards there will be, whether or not their brokers run. One goes when it has proved that it is empty.
    pub(super) shards: u32,
    /// Where they are on their way to how many there shall be.
    pub(super) step: Step,
    /// Who signs the certificates that brokers show each other; `None`: that is not known yet.
    pub(super) authorities: Option<String>,
    /// Nothing is changed, whatever differs.
    pub(super) paused: bool,
    /// When somebody last asked for new pods.
    pub(super) restarted: Option<String>,
    pub(super) storage: Storage,
    /// Where the brokers are on their way to the current template.
    pub(super) rollout: Rollout,
    /// Wishes that cannot be fulfilled, each with what to do.
    pub(super) obstacles: Vec<Obstacle>,
    /// What brokers need to know who calls.
    pub(super) access: Option<Access>,
    /// A backup comes first, and the shards are closed to everybody else.
    pub(super) is_restoring: bool,
    /// How far that is, once it was looked at.
    pub(super) restore: Option<Restore>,
    /// Queues that applications beside the brokers use besides this one.
    pub(super) other_queues: BTreeSet<QueueName>,
    /// The template cannot be followed: pods stay what they are, and all else goes on.
    pub(super) keeps_template: bool,
}

/// Something that only a person can move out of the way. The rest goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Obstacle {
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

impl Plan {
    /// What brokers are told.
    pub(super) fn config(&self) -> QueueConfig {
        let config = self.queue.config(self.queue.shard_addresses(self.shards));
        let restoring = self.is_restoring;
        QueueConfig { access: self.access.clone(), placement: self.step.placement, restoring, ..config }
    }

    /// The same plan, with the grants of the Queue: `published` says whose tokens are good, `operator` who configures.
    pub(super) fn with_access(self, published: Published, operator: &str) -> Self {
        let Published { issuer, keys } = published;
        let access = Access { issuer, keys, operator: operator.to_owned(), grants: self.queue.grants() };
        Self { access: Some(access), ..self }
    }

    /// Brokers that will run.
    pub(super) fn replicas(&self) -> u32 {
        if self.suspended() { 0 } else { self.shards }
    }

    /// Whether there are as many shards as there shall be, and all is where it belongs.
    pub(super) fn is_settled(&self) -> bool {
        let wanted = self.queue.spec().shards;
        let is_there = |placement: Placement| placement.from == wanted && placement.to == wanted;
        self.shards == wanted && self.step.placement.is_some_and(is_there)
    }

    pub(super) fn suspended(&self) -> bool {
        self.queue.spec().suspend
    }

    /// Whether pods can stay what they are though that of the spec is another application.
    pub(super) fn may_keep_template(&self, observed: &Observed) -> bool {
        self.queue.is_embedded() && !self.keeps_template && observed.stateful_set.is_some()
    }

    /// Leaves the pods what they are, because of `error`.
    pub(super) fn keep_template(&mut self, error: &Error) {
        self.keeps_template = true;
        let text = format!(
            "the pods keep the template they have, since that of the spec cannot be followed: {error}"
        );
        self.obstacles.push(Obstacle::new(error.reason(), text));
    }
}

/// Asserts every rule of `queue` and plans what can be done with what exists.
pub(super) fn validate(queue: &Queue, observed: &Observed) -> Result<Plan, Error> {
    let paused = queue.annotations().contains_key(PAUSED_ANNOTATION);
    let restarted = queue.annotations().get(RESTARTED_ANNOTATION);
    let restarted = restarted.map(|when| when.chars().take(MAX_RESTARTED).collect());
    let queue = ValidatedQueue::with_any_template(queue.clone())?;
    let (other_queues, bad_template) = match other_queues(&queue) {
        Ok(others) => (others, None),
        // There is nothing yet that could stay.
        Err(error) if observed.stateful_set.is_none() => return Err(error),
        Err(error) => (BTreeSet::new(), Some(error)),
    };
    let is_restoring = restore::is_due(queue.queue());
    // What is restored is divided by the shards there are.
    let live = observed.live_shards();
    let wanted = if is_restoring && live > 0 { live } else { queue.spec().shards };
    let step = placement::next(&Scene {
        wanted,
        noted: observed.placement(),
        live,
        are_found: are_found(&queue, observed),
        first_generation: queue.generation(),
        shards: &observed.shards,
        forced: given_up(queue.queue()),
        emptied: observed.emptied(),
    });
    let shards = step.shards;
    let storage = storage::assess(&queue, shards, observed);
    let obstacles = drain_blocked(&step).into_iter().chain(storage.obstacles()).collect();
    let mut plan = Plan {
        queue,
        shards,
        step,
        authorities: None,
        paused,
        restarted,
        storage,
        rollout: Rollout::default(),
        obstacles,
        access: None,
        is_restoring,
        restore: None,
        other_queues,
        keeps_template: false,
    };
    if let Some(error) = bad_template {
        plan.keep_template(&error);
    }
    Ok(plan)
}

/// Those that the pod template names, if it is one that pods can be made of.
fn other_queues(queue: &ValidatedQueue) -> Result<BTreeSet<QueueName>, Error> {
    queue.assert_pod()?;
    let annotations = queue.template().map(|template| &template.metadata.annotations);
    let Some(text) = annotations.and_then(|annotations| annotations.get(QUEUES_ANNOTATION)) else {
        return Ok(BTreeSet::new());
    };
    Ok(named_queues(text, queue.name().namespace())?)
}

/// Whether all that there is is older than the Queue.
fn are_found(queue: &ValidatedQueue, observed: &Observed) -> bool {
    observed.pods.is_empty() && observed.claims.iter().all(|(_, claim)| is_older(claim, queue))
}

/// Whether an earlier Queue of this name has left volumes.
pub(super) fn finds_volumes(queue: &ValidatedQueue, observed: &Observed) -> bool {
    observed.claims.iter().any(|(_, claim)| is_older(claim, queue))
}

fn is_older(claim: &PersistentVolumeClaim, queue: &ValidatedQueue) -> bool {
    claim.metadata.creation_timestamp < queue.queue().metadata.creation_timestamp
}

/// The draining shard whose messages a person gave up on.
fn given_up(queue: &Queue) -> Option<u32> {
    queue.annotations().get(FORCE_DRAIN_ANNOTATION)?.parse().ok()
}

fn drain_blocked(step: &Step) -> Option<Obstacle> {
    let Drain { ordinal, blocked, .. } = step.drain.as_ref()?;
    let why = blocked.as_deref()?;
    let text = format!(
        "shard {ordinal} shall go and cannot hand over what it has, which is not delivered meanwhile: {why}. It is tried again: \
         let the others answer, and have room (consume there, or raise spec.storage.size). To give up what it has, or to have it \
         back by spec.shards {}, set the annotation {FORCE_DRAIN_ANNOTATION}={ordinal}",
        ordinal + 1
    );
    Some(Obstacle::new(reasons::DRAIN_BLOCKED, text))
}

#[cfg(test)]
mod tests {
    use ackwell_api::names::SHARDS_ANNOTATION;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::queue_controller::fixtures::{claim, queue, stateful_set};

    fn running(shards: u32, size: &str) -> Observed {
        Observed {
            stateful_set: Some(stateful_set(shards).into()),
            claims: (0..shards).map(|ordinal| (ordinal, claim(ordinal, "Bound", size).into())).collect(),
            ..Observed::default()
        }
    }

    /// Messages live on the volumes of all shards: none may disappear because of a smaller number, and none come before all
    /// know where messages belong.
    #[test]
    fn another_number_of_shards_waits_for_those_that_run() {
        for wanted in [1, 5] {
            let plan = validate(&queue(|spec| spec.shards = wanted), &running(3, "1Gi")).unwrap();
            assert_eq!((plan.shards, plan.obstacles.len()), (3, 0));
        }
    }

    /// While brokers are stopped there are no pods to count, and the messages of all shards are still there.
    #[test]
    fn fewer_shards_while_suspended_changes_nothing_either() {
        let mut set = stateful_set(0);
        set.annotations_mut().insert(SHARDS_ANNOTATION.to_owned(), "3".to_owned());
        let observed = Observed { stateful_set: Some(set.into()), ..Observed::default() };
        let edit = |spec: &mut ackwell_api::QueueSpec| (spec.shards, spec.suspend) = (1, true);
        let plan = validate(&queue(edit), &observed).unwrap();
        assert_eq!((plan.shards, plan.replicas()), (3, 0));
        let resumed = validate(&queue(|spec| spec.shards = 1), &observed).unwrap();
        assert_eq!((resumed.shards, resumed.replicas()), (3, 3));
    }

    /// Volumes grow, certificates are renewed and settings told, whatever somebody wrote for the application.
    #[test]
    fn template_that_is_no_pod_keeps_the_pods_and_nothing_else() {
        let template = |template: serde_json::Value| {
            let edit = |spec: &mut ackwell_api::QueueSpec| {
                spec.storage.size = Quantity("2Gi".to_owned());
                spec.template = serde_json::from_value(template).unwrap();
            };
            queue(edit)
        };
        let containers = json!([{"name": "worker"}]);
        let no_names = json!({"ackwell.dev/queues": "No Name"});
        for broken in [
            json!({"spec": {"containers": [{"name": "worker", "imagee": "a"}]}}),
            json!({"metadata": {"annotations": no_names}, "spec": {"containers": containers}}),
        ] {
            let queue = template(broken);
            let plan = validate(&queue, &running(1, "1Gi")).unwrap();
            // This class cannot grow, which is found all the same.
            let told: Vec<_> = plan.obstacles.iter().map(|obstacle| obstacle.reason).collect();
            assert_eq!(told, [reasons::EXPANSION_UNSUPPORTED, reasons::INVALID_SPEC]);
            assert!(plan.keeps_template);
            let error = validate(&queue, &Observed::default()).unwrap_err();
            assert_eq!(
                error.class(),
                crate::queue_controller::error::Class::User,
                "nothing is there to be kept"
            );
        }
    }

    /// What an earlier Queue left may be another backup, or half of one.
    #[test]
    fn volumes_of_an_earlier_queue_are_found() {
        let mut queue = queue(|_| ());
        let at = |second| Some(Time(jiff::Timestamp::from_second(second).unwrap()));
        queue.metadata.creation_timestamp = at(100);
        for (made, expected) in [(99, true), (100, false), (101, false)] {
            let mut claim = claim(0, "Bound", "1Gi");
            claim.metadata.creation_timestamp = at(made);
            let observed = Observed { claims: vec![(0, claim.into())], ..Observed::default() };
            let plan = validate(&queue, &observed).unwrap();
            assert_eq!(finds_volumes(&plan.queue, &observed), expected);
        }
    }

    #[test]
    fn broken_rule_is_an_error_of_the_user() {
        let error =
            validate(&queue(|spec| spec.delivery.max_attempts = 0), &Observed::default()).unwrap_err();
        assert_eq!(error.class(), crate::queue_controller::error::Class::User);
        assert!(error.to_string().contains("spec.delivery.maxAttempts: must be at least 1"), "{error}");
    }
}
