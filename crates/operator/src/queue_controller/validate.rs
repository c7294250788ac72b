//! Step 2: what the operator will do for a Queue, and what it cannot do. Pure.

use ackwell_api::conditions::reasons;
use ackwell_api::names::{PAUSED_ANNOTATION, RESTARTED_ANNOTATION};
use ackwell_api::{Queue, ValidatedQueue};
use ackwell_proto::v1::{Access, QueueConfig};
use kube::ResourceExt;

use super::dereference::Observed;
use super::error::Error;
use super::rollout::Rollout;
use super::storage::{self, Storage};
use crate::identity::Published;

/// Characters of a time, and some; anybody can write anything into an annotation, and this comes into every pod.
const MAX_RESTARTED: usize = 64;

/// What will be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) queue: ValidatedQueue,
    /// Shards there will be, whether or not their brokers run. Never fewer than now: their volumes hold messages.
    pub(super) shards: u32,
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
    /// What a broker is told.
    pub(super) fn config(&self) -> QueueConfig {
        let config = self.queue.config(self.queue.shard_addresses(self.shards));
        QueueConfig { access: self.access.clone(), ..config }
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

    pub(super) fn suspended(&self) -> bool {
        self.queue.spec().suspend
    }
}

/// Asserts every rule of `queue` and plans what can be done with what exists.
pub(super) fn validate(queue: &Queue, observed: &Observed) -> Result<Plan, Error> {
    let paused = queue.annotations().contains_key(PAUSED_ANNOTATION);
    let restarted = queue.annotations().get(RESTARTED_ANNOTATION);
    let restarted = restarted.map(|when| when.chars().take(MAX_RESTARTED).collect());
    let queue = ValidatedQueue::try_from(queue.clone())?;
    let wanted = queue.spec().shards;
    let shards = wanted.max(observed.live_shards().unwrap_or(0));
    let storage = storage::assess(&queue, shards, observed);
    let obstacles = fewer_shards(wanted, shards).into_iter().chain(storage.obstacles()).collect();
    Ok(Plan {
        queue,
        shards,
        paused,
        restarted,
        storage,
        rollout: Rollout::default(),
        obstacles,
        access: None,
    })
}

fn fewer_shards(wanted: u32, shards: u32) -> Option<Obstacle> {
    let text = || {
        format!(
            "going from {shards} to {wanted} shards is not supported yet, since the messages of the last shards would \
             be left behind: all {shards} stay; set spec.shards to {shards}"
        )
    };
    (wanted < shards).then(|| Obstacle::new(reasons::NOT_SUPPORTED_YET, text()))
}

#[cfg(test)]
mod tests {
    use ackwell_api::names::SHARDS_ANNOTATION;

    use super::*;
    use crate::queue_controller::fixtures::{claim, queue, stateful_set};

    fn running(shards: u32, size: &str) -> Observed {
        Observed {
            stateful_set: Some(stateful_set(shards).into()),
            claims: (0..shards).map(|ordinal| (ordinal, claim(ordinal, "Bound", size).into())).collect(),
            ..Observed::default()
        }
    }

    /// Messages live on the volumes of all shards: none may disappear because of a smaller number.
    #[test]
    fn fewer_shards_than_run_changes_nothing_and_says_so() {
        let plan = validate(&queue(|spec| spec.shards = 1), &running(3, "1Gi")).unwrap();
        assert_eq!(plan.shards, 3);
        assert!(plan.obstacles[0].message.contains("from 3 to 1 shards"), "{:?}", plan.obstacles);
    }

    #[test]
    fn more_shards_than_run_is_done() {
        let plan = validate(&queue(|spec| spec.shards = 5), &running(3, "1Gi")).unwrap();
        assert_eq!((plan.shards, plan.obstacles.len()), (5, 0));
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

    #[test]
    fn broken_rule_is_an_error_of_the_user() {
        let error =
            validate(&queue(|spec| spec.delivery.max_attempts = 0), &Observed::default()).unwrap_err();
        assert_eq!(error.class(), crate::queue_controller::error::Class::User);
        assert!(error.to_string().contains("spec.delivery.maxAttempts: must be at least 1"), "{error}");
    }
}
