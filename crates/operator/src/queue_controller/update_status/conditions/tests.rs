use std::sync::Arc;

use ackwell_api::names::{BROKER_CONTAINER, PLACEMENT_ANNOTATION};
use ackwell_api::{Encryption, Queue, QueueStatus};
use ackwell_proto::exit::{KEY_MISSING, OTHER_FORMAT};
use ackwell_proto::v1::Moving;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodCondition,
};

use kube::ResourceExt;

use super::*;
use crate::queue_controller::apply::ApplyError;
use crate::queue_controller::dereference::Observed;
use crate::queue_controller::error::Error;
use crate::queue_controller::fixtures::{claim, pod, queue, stateful_set};
use crate::queue_controller::shards::ShardView;
use crate::queue_controller::validate::{Plan, validate};

/// A Queue of two shards, all well; tests break one thing each.
struct Scene {
    queue: Queue,
    observed: Observed,
    shards: Vec<ShardView>,
    messages: Option<MessageCounts>,
}

fn well() -> Scene {
    let queue = queue(|spec| spec.shards = 2);
    let observed = Observed {
        stateful_set: Some(stateful_set(2).into()),
        pods: vec![(0, pod(0, true).into()), (1, pod(1, true).into())],
        claims: vec![(0, claim(0, "Bound", "1Gi").into()), (1, claim(1, "Bound", "1Gi").into())],
        ..Observed::default()
    };
    let generation = validate(&queue, &observed).unwrap().queue.generation();
    let view = |ordinal| ShardView { ordinal, generation: Some(generation), ..ShardView::default() };
    Scene { queue, observed, shards: vec![view(0), view(1)], messages: Some(MessageCounts::default()) }
}

impl Scene {
    fn plan(&self) -> Result<Plan, Error> {
        validate(&self.queue, &self.observed)
    }

    fn conditions_of(&self, outcome: &Result<Plan, Error>, second: i64) -> Vec<Condition> {
        let Self { queue, observed, shards, messages } = self;
        let facts = Facts { queue, outcome: outcome.as_ref(), observed, shards };
        compute(&facts, *messages, &Time(Timestamp::from_second(second).unwrap()))
    }

    /// `Type=Status/Reason`, in order.
    fn words(&self) -> Vec<String> {
        words(&self.conditions_of(&self.plan(), 0))
    }

    fn ready(&self) -> (String, String) {
        let conditions = self.conditions_of(&self.plan(), 0);
        let ready = conditions.into_iter().find(|condition| condition.type_ == types::READY).unwrap();
        (format!("{}/{}", ready.status, ready.reason), ready.message)
    }
}

fn words(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|one| format!("{}={}/{}", one.type_, one.status, one.reason)).collect()
}

fn waiting(mut pod: Pod, reason: &str) -> Arc<Pod> {
    let waiting =
        ContainerStateWaiting { reason: Some(reason.to_owned()), message: Some("because".to_owned()) };
    let state = ContainerState { waiting: Some(waiting), ..ContainerState::default() };
    let container = ContainerStatus {
        name: BROKER_CONTAINER.to_owned(),
        state: Some(state),
        ..ContainerStatus::default()
    };
    pod.status.as_mut().unwrap().container_statuses = Some(vec![container]);
    pod.into()
}

/// A container that waits, or is tried once more, after it ended with this code.
fn ended(mut pod: Pod, code: u8, now: ContainerState) -> Arc<Pod> {
    let end = ContainerStateTerminated {
        exit_code: code.into(),
        message: Some("opening\nthe store has format 9\n".to_owned()),
        ..ContainerStateTerminated::default()
    };
    let last = ContainerState { terminated: Some(end), ..ContainerState::default() };
    let container = ContainerStatus {
        name: BROKER_CONTAINER.to_owned(),
        state: Some(now),
        last_state: Some(last),
        ..ContainerStatus::default()
    };
    pod.status.as_mut().unwrap().container_statuses = Some(vec![container]);
    pod.into()
}

/// Promise: a version that cannot read what a newer one wrote says so, and does not look as if it were about to start.
#[test]
fn store_of_another_version_stalls_the_queue() {
    let waits = ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some("CrashLoopBackOff".to_owned()), message: None }),
        ..ContainerState::default()
    };
    for (code, state, stalled) in [
        (OTHER_FORMAT, waits.clone(), "Stalled=True/FormatUnsupported"),
        (OTHER_FORMAT, ContainerState::default(), "Stalled=True/FormatUnsupported"),
        (1, waits, "Stalled=False/UpToDate"),
    ] {
        let mut scene = well();
        scene.observed.pods[1].1 = ended(pod(1, false), code, state);
        let conditions = scene.conditions_of(&scene.plan(), 0);
        assert!(words(&conditions).contains(&stalled.to_owned()), "{code}: {:?}", words(&conditions));
        let message = &conditions[2].message;
        assert!(
            code != OTHER_FORMAT || message.ends_with("the broker says: the store has format 9"),
            "{message}"
        );
    }
}

/// Promise: a broker without the key of its store says which one it needs, and where it belongs.
#[test]
fn missing_key_stalls_the_queue_and_is_named() {
    let mut scene = well();
    scene.queue.spec.encryption = Some(Encryption { secret_name: "orders-keys".to_owned() });
    scene.observed.pods[1].1 = ended(pod(1, false), KEY_MISSING, ContainerState::default());
    let conditions = scene.conditions_of(&scene.plan(), 0);
    assert!(
        words(&conditions).contains(&"Stalled=True/EncryptionKeyMissing".to_owned()),
        "{:?}",
        words(&conditions)
    );
    let message = &conditions[2].message;
    assert!(message.contains("shard 1") && message.contains("the Secret orders-keys"), "{message}");
    assert!(message.ends_with("the broker says: the store has format 9"), "{message}");
}

/// Tools that know kstatus call this "Current".
#[test]
fn all_well_is_ready_and_nothing_else() {
    let expected = [
        "Ready=True/AllShardsReady",
        "Reconciling=False/UpToDate",
        "Stalled=False/UpToDate",
        "Available=True/MinimumShards",
        "StorageHealthy=True/VolumesBound",
        "Draining=False/NotDraining",
        "Suspended=False/NotSuspended",
        "DeadLetters=False/NoneDead",
    ];
    assert_eq!(well().words(), expected);
}

/// A Queue that was just made has every condition, so that nothing can mistake a missing one for a good one.
#[test]
fn first_visit_has_all_conditions() {
    let scene = Scene { observed: Observed::default(), shards: Vec::new(), messages: None, ..well() };
    let expected = [
        "Ready=False/ShardsStarting",
        "Reconciling=True/ShardsStarting",
        "Stalled=False/UpToDate",
        "Available=False/NoShards",
        "StorageHealthy=Unknown/VolumePending",
        "Draining=False/NotDraining",
        "Suspended=False/NotSuspended",
        "DeadLetters=Unknown/Unknown",
    ];
    assert_eq!(scene.words(), expected);
}

#[test]
fn one_shard_down_is_available_and_not_ready() {
    let mut scene = well();
    scene.observed.pods[1] = (1, pod(1, false).into());
    assert_eq!(scene.ready(), ("False/ShardsStarting".to_owned(), "1 of 2 shards serve".to_owned()));
    assert!(scene.words().contains(&"Available=True/MinimumShards".to_owned()));
}

/// The status alone must say why a Queue does not start.
#[test]
fn causes_are_named_with_what_kubernetes_says() {
    let mut crashing = well();
    crashing.observed.pods[0] = (0, waiting(pod(0, false), "CrashLoopBackOff"));
    assert_eq!(crashing.ready(), ("False/PodFailing".into(), "shard 0: CrashLoopBackOff: because".into()));

    let mut quota = well();
    quota.observed.pods.clear();
    quota.observed.pods_refused = Some("exceeded quota: small".to_owned());
    assert_eq!(quota.ready(), ("False/PodsRefused".into(), "exceeded quota: small".into()));

    let mut class = well();
    class.observed.claims[1] = (1, claim(1, "Pending", "1Gi").into());
    class.observed.volumes_refused = Some(r#"storageclass "nope" not found"#.to_owned());
    let (word, message) = class.ready();
    assert_eq!(word, "False/VolumePending");
    assert_eq!(message, r#"the volume of shard 1 is Pending: storageclass "nope" not found"#);
    assert!(class.words().contains(&"StorageHealthy=False/VolumePending".to_owned()));
}

/// Beside an application a broker is an init container: what it says counts as before, and what the application does is told apart.
#[test]
fn broker_and_application_of_one_pod_are_told_apart() {
    let beside = |broker_ready: bool, application: Arc<Pod>| {
        let mut scene = well();
        let mut pod = Arc::unwrap_or_clone(application);
        let broker = ContainerStatus {
            name: BROKER_CONTAINER.to_owned(),
            ready: broker_ready,
            ..ContainerStatus::default()
        };
        let status = pod.status.as_mut().unwrap();
        status.init_container_statuses = Some(vec![broker]);
        let applications = status.container_statuses.iter_mut().flatten();
        applications.for_each(|container| container.name = "worker".to_owned());
        scene.observed.pods[1] = (1, pod.into());
        scene
    };
    let unready = beside(true, pod(1, false).into());
    assert_eq!(unready.ready().0, "False/ApplicationUnready");
    let crashing = beside(true, waiting(pod(1, false), "CrashLoopBackOff")).ready();
    assert_eq!(
        crashing,
        ("False/PodFailing".into(), "shard 1: container worker: CrashLoopBackOff: because".into())
    );
    assert_eq!(beside(false, pod(1, false).into()).ready().0, "False/ShardsStarting");
    let mut cut_off = pod(1, false);
    let conditions = cut_off.status.as_mut().unwrap().conditions.as_mut().unwrap();
    let (type_, status) = ("ContainersReady".to_owned(), "True".to_owned());
    conditions.push(PodCondition { type_, status, ..PodCondition::default() });
    assert_eq!(beside(true, cut_off.into()).ready().0, "False/ShardsStarting", "its node is not heard of");
    let other = ended(pod(1, false), OTHER_FORMAT, ContainerState::default());
    let words = beside(true, other).words();
    assert!(words.contains(&"Stalled=False/UpToDate".to_owned()), "its exit code is its own: {words:?}");
}

/// A status that the API server refuses would tell nothing at all.
#[test]
fn message_that_quotes_something_long_is_cut() {
    let scene = well();
    let foreign = ApplyError::Foreign { child: "ä".repeat(100_000), owner: "Release orders".to_owned() };
    let conditions = scene.conditions_of(&Err(Error::Apply(foreign)), 0);
    assert!(conditions.iter().all(|condition| condition.message.chars().count() <= MAX_MESSAGE));
}

/// Old complaints are no cause once what they were about exists.
#[test]
fn old_complaints_are_ignored_when_all_is_well() {
    let mut scene = well();
    scene.observed.pods_refused = Some("exceeded quota: small".to_owned());
    scene.observed.volumes_refused = Some("no space".to_owned());
    assert_eq!(scene.words(), well().words());
}

#[test]
fn container_that_is_being_created_is_starting_not_failing() {
    let mut scene = well();
    scene.observed.pods[0] = (0, waiting(pod(0, false), "ContainerCreating"));
    assert_eq!(scene.ready().0, "False/ShardsStarting");
}

/// Ready means that every shard runs these settings, not just some.
#[test]
fn shard_with_older_settings_is_not_ready() {
    let mut scene = well();
    scene.shards[0].generation = Some(1);
    assert_eq!(
        scene.ready(),
        ("False/Configuring".into(), "1 of 2 shards confirmed the current settings".into())
    );
}

#[test]
fn unreachable_broker_only_degrades_the_status() {
    let mut scene = well();
    scene.shards[1].unreachable = Some("10.0.0.7:7400: refused".to_owned());
    let (word, message) = scene.ready();
    assert_eq!(word, "False/BrokerUnreachable");
    assert!(message.contains("10.0.0.7:7400"), "{message}");
    assert!(scene.words().contains(&"Available=True/MinimumShards".to_owned()));
}

#[test]
fn rollout_is_not_ready_until_every_broker_has_the_new_template() {
    let mut scene = well();
    let mut set = stateful_set(2);
    set.status.as_mut().unwrap().updated_replicas = Some(1);
    scene.observed.stateful_set = Some(set.into());
    assert_eq!(scene.ready().0, "False/RollingOut");
    assert!(scene.words().contains(&"Reconciling=True/RollingOut".to_owned()));
}

/// A wish that takes a while is worked on, though the Queue serves as before.
#[test]
fn another_number_of_shards_is_reconciling_and_still_ready() {
    let mut scene = well();
    scene.queue.spec.shards = 1;
    let words = scene.words();
    assert_eq!(
        words[..3],
        ["Ready=True/AllShardsReady", "Reconciling=True/ShardsMoving", "Stalled=False/UpToDate"]
    );
}

#[test]
fn error_of_the_user_is_stalled_and_nothing_is_in_progress() {
    let scene = well();
    let child = "ConfigMap ackwell-orders".to_owned();
    let outcome = Err(Error::Apply(ApplyError::Foreign { child, owner: "Release orders".to_owned() }));
    let words = words(&scene.conditions_of(&outcome, 0));
    let expected =
        ["Ready=False/OwnershipConflict", "Reconciling=False/UpToDate", "Stalled=True/OwnershipConflict"];
    assert_eq!(words[..3], expected);
}

#[test]
fn error_that_passes_is_in_progress() {
    let outcome =
        Err(Error::Apply(ApplyError::Timeout { operation: "apply", child: "Service a".to_owned() }));
    let words = words(&well().conditions_of(&outcome, 0));
    assert_eq!(words[..2], ["Ready=False/ApplyRefused", "Reconciling=True/ApplyRefused"]);
}

/// Messages on a volume that nobody serves are not lost, but nobody would know.
#[test]
fn volumes_beyond_the_shards_are_said() {
    let mut scene = well();
    scene.observed.claims.push((2, claim(2, "Bound", "1Gi").into()));
    assert!(scene.words().contains(&"StorageHealthy=False/VolumesUnserved".to_owned()));
}

#[test]
fn dead_messages_show() {
    let scene = Scene { messages: Some(MessageCounts { dead: 1, ..MessageCounts::default() }), ..well() };
    assert!(scene.words().contains(&"DeadLetters=True/MessagesDead".to_owned()));
}

/// "Ready since" must be the time it became ready, whatever else changed in between.
#[test]
fn transition_time_moves_only_with_the_status() {
    let mut scene = well();
    let first = scene.conditions_of(&scene.plan(), 100);
    scene.queue.status = Some(QueueStatus { conditions: first, ..QueueStatus::default() });
    scene.observed.pods[1] = (1, pod(1, false).into());
    let second = scene.conditions_of(&scene.plan(), 200);
    let time = |type_: &str| {
        let condition = second.iter().find(|condition| condition.type_ == type_).unwrap();
        condition.last_transition_time.0.as_second()
    };
    assert_eq!((time(types::READY), time(types::AVAILABLE)), (200, 100));
}

/// What a tool that knows kstatus waits for, while applications notice nothing.
#[test]
fn growth_is_in_progress_and_still_ready() {
    let mut scene = well();
    scene.queue.spec.storage.size.0 = "2Gi".to_owned();
    scene.observed.classes = [("standard".to_owned(), true)].into();
    let words = scene.words();
    assert_eq!(words[..2], ["Ready=True/AllShardsReady", "Reconciling=True/Expanding"]);
}

#[test]
fn growth_that_cannot_be_is_stalled_and_still_ready() {
    let mut scene = well();
    scene.queue.spec.storage.size.0 = "2Gi".to_owned();
    let words = scene.words();
    let expected =
        ["Ready=True/AllShardsReady", "Reconciling=False/UpToDate", "Stalled=True/ExpansionUnsupported"];
    assert_eq!(words[..3], expected);
}

/// Nobody is woken up for a Queue that was stopped on purpose.
#[test]
fn suspended_queue_is_not_ready_and_nothing_is_wrong() {
    let mut scene = well();
    scene.queue.spec.suspend = true;
    assert_eq!(scene.words()[..2], ["Ready=False/Suspended", "Reconciling=True/Suspended"]);
    scene.observed.pods.clear();
    let expected = [
        "Ready=False/Suspended",
        "Reconciling=False/UpToDate",
        "Stalled=False/UpToDate",
        "Available=False/NoShards",
        "StorageHealthy=True/VolumesBound",
        "Draining=False/NotDraining",
        "Suspended=True/BySpec",
        "DeadLetters=False/NoneDead",
    ];
    assert_eq!(scene.words(), expected);
}

#[test]
fn paused_queue_says_so_and_claims_nothing() {
    let mut scene = well();
    scene.queue.metadata.annotations = Some([(PAUSED_ANNOTATION.to_owned(), "true".to_owned())].into());
    assert_eq!(
        scene.words()[..3],
        ["Ready=Unknown/Paused", "Reconciling=False/Paused", "Stalled=False/UpToDate"]
    );
}

#[test]
fn rollout_that_waits_or_is_held_or_halts_is_told() {
    let words_of = |state: State| {
        let scene = well();
        let plan = scene.plan().map(|plan| Plan {
            rollout: crate::queue_controller::rollout::Rollout { state, ..plan.rollout.clone() },
            ..plan
        });
        words(&scene.conditions_of(&plan, 0))[..3].to_vec()
    };
    let ready = "Ready=True/AllShardsReady";
    assert_eq!(
        words_of(State::Waiting),
        [ready, "Reconciling=True/RolloutWaiting", "Stalled=False/UpToDate"]
    );
    assert_eq!(words_of(State::Held), [ready, "Reconciling=False/RolloutHeld", "Stalled=False/UpToDate"]);
    let halted = words_of(State::Halted { ordinal: 1, minutes: 10 });
    assert_eq!(halted, [ready, "Reconciling=False/UpToDate", "Stalled=True/RolloutHalted"]);
}

/// People see which shard goes and what it has yet, and what is in its way.
#[test]
fn drain_is_told_and_so_is_what_blocks_it() {
    let mut scene = well();
    let mut set = stateful_set(2);
    set.annotations_mut().insert(PLACEMENT_ANNOTATION.to_owned(), "5/2/1".to_owned());
    scene.observed.stateful_set = Some(set.into());
    scene.queue.spec.shards = 1;
    let moving = |blocked: &str| Moving {
        generation: 5,
        messages: 7,
        blocked: blocked.to_owned(),
        ..Moving::default()
    };
    let words_when = |scene: &mut Scene, blocked: &str| {
        scene.observed.shards =
            vec![ShardView { ordinal: 1, moving: Some(moving(blocked)), ..ShardView::default() }];
        scene.words()
    };
    let goes_on = words_when(&mut scene, "");
    assert_eq!(goes_on[1..3], ["Reconciling=True/ShardsMoving", "Stalled=False/UpToDate"]);
    assert_eq!(goes_on[5], "Draining=True/Draining");
    let conditions = scene.conditions_of(&scene.plan(), 0);
    assert!(conditions[5].message.starts_with("shard 1 hands its messages to the others, and has 7 left"));

    let blocked = words_when(&mut scene, "shard 0: full");
    assert_eq!(
        (blocked[2].as_str(), blocked[5].as_str()),
        ("Stalled=True/DrainBlocked", "Draining=True/Draining")
    );
}
