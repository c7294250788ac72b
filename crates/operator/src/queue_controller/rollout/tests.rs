use ackwell_proto::v1::StatsResponse;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::ContainerStatus;

use super::*;
use crate::queue_controller::BrokerImage;
use crate::queue_controller::build::build;
use crate::queue_controller::fixtures::{pod, queue};
use crate::queue_controller::validate::validate;

const OLD: &str = "ackwell-orders-old";
const NEW: &str = "ackwell-orders-new";
/// Long after all pods of the fixtures became ready.
const NOW: i64 = 1_000_000;

/// Three shards in the middle of a rollout; tests change one thing each.
struct Stage {
    image: &'static str,
    edit: fn(&mut ackwell_api::QueueSpec),
    observed: Observed,
    shards: Vec<ShardView>,
    turn: bool,
    now: i64,
}

/// All brokers have the old template, and `partition` of them are held back from the new one.
fn stage(partition: u32) -> Stage {
    let mut stage = Stage {
        image: "broker:1",
        edit: |spec| spec.shards = 3,
        observed: Observed::default(),
        shards: Vec::new(),
        turn: true,
        now: NOW,
    };
    let mut live = stage.desired();
    set(&mut live, partition);
    live.metadata.generation = Some(7);
    live.status = Some(StatefulSetStatus {
        observed_generation: Some(7),
        current_revision: Some(OLD.to_owned()),
        update_revision: Some(NEW.to_owned()),
        ..StatefulSetStatus::default()
    });
    stage.observed.stateful_set = Some(live.into());
    for ordinal in 0..3 {
        stage.broker(ordinal, OLD, true);
    }
    stage
}

impl Stage {
    fn plan(&self) -> Plan {
        validate(&queue(self.edit), &self.observed).unwrap()
    }

    fn desired(&self) -> StatefulSet {
        let image = BrokerImage { image: self.image.to_owned(), pull_policy: None, traces: None };
        build(&self.plan(), &self.observed, &image).stateful_set
    }

    /// Puts a broker in place of the one there is.
    fn broker(&mut self, ordinal: u32, revision: &str, ready: bool) {
        let mut pod = pod(ordinal, ready);
        pod.labels_mut().insert(REVISION_LABEL.to_owned(), revision.to_owned());
        pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(NOW - 60).unwrap()));
        self.shards.retain(|view| view.ordinal != ordinal);
        self.shards.push(ShardView {
            moving: None,
            ordinal,
            pod: pod.uid().unwrap(),
            generation: Some(self.plan().queue.generation()),
            stats: Some(StatsResponse::default()),
            unreachable: None,
        });
        self.observed.pods.retain(|(of, _)| *of != ordinal);
        self.observed.pods.push((ordinal, pod.into()));
        self.observed.pods.sort_by_key(|(ordinal, _)| *ordinal);
    }

    fn steer(&self) -> (StatefulSet, Rollout) {
        let (plan, mut desired) = (self.plan(), self.desired());
        let now = Time(Timestamp::from_second(self.now).unwrap());
        let scene = Scene { plan: &plan, observed: &self.observed, shards: &self.shards, now: &now };
        let rollout = steer(&mut desired, &scene, || self.turn);
        (desired, rollout)
    }

    fn outcome(&self) -> (u32, State) {
        let (desired, rollout) = self.steer();
        (partition(&desired), rollout.state)
    }
}

/// A Queue that is made has nothing to hold back.
#[test]
fn new_set_holds_nothing_back() {
    let stage = Stage { observed: Observed::default(), ..stage(0) };
    assert_eq!(stage.outcome(), (0, State::Done));
}

/// In that moment nobody knows which template the pods have.
#[test]
fn set_that_is_made_anew_replaces_no_pod_by_surprise() {
    let mut stage = stage(0);
    stage.observed.stateful_set = None;
    assert_eq!(stage.outcome().0, 3);
}

/// The change and the brake come in one write: in between, the controller would begin with all.
#[test]
fn new_template_comes_with_all_brokers_held_back() {
    let stage = Stage { image: "broker:2", ..stage(0) };
    let (desired, rollout) = stage.steer();
    assert_eq!((partition(&desired), rollout.state), (3, State::Rolling));
    assert_eq!(image(&desired), Some("broker:2"));
}

#[test]
fn brokers_are_replaced_from_the_last_to_the_first_one_at_a_time() {
    let mut stage = stage(3);
    assert_eq!(stage.outcome(), (2, State::Rolling));
    for ordinal in [2, 1, 0] {
        stage.observed.stateful_set = Some(held_back(&stage, ordinal));
        assert_eq!(stage.outcome().0, ordinal, "shard {ordinal} has still the old template");
        stage.broker(ordinal, NEW, true);
        assert_eq!(stage.outcome().0, ordinal.saturating_sub(1), "shard {ordinal} serves");
    }
    assert_eq!(stage.outcome(), (0, State::Done));
}

fn held_back(stage: &Stage, partition: u32) -> Arc<StatefulSet> {
    let mut live = stage.observed.stateful_set.as_deref().unwrap().clone();
    set(&mut live, partition);
    live.into()
}

/// That Kubernetes calls a pod ready is not enough: the broker itself says that its store is open and which settings it
/// has.
#[test]
fn broker_that_does_not_answer_stops_the_rollout() {
    let breaks: [fn(&mut ShardView); 4] = [
        |view| view.stats = None,
        |view| view.unreachable = Some("refused".to_owned()),
        |view| view.generation = Some(1),
        |view| view.pod = "uid of an earlier pod".to_owned(),
    ];
    for (number, damage) in breaks.into_iter().enumerate() {
        let mut stage = stage(2);
        stage.broker(2, NEW, true);
        assert_eq!(stage.outcome().0, 1, "all well");
        damage(stage.shards.iter_mut().find(|view| view.ordinal == 2).unwrap());
        assert_eq!(stage.outcome().0, 2, "{number}");
    }
}

/// One that serves for a moment and crashes must not take the next with it.
#[test]
fn broker_serves_for_a_while_before_the_next_is_replaced() {
    let mut stage = Stage { now: 3, ..stage(2) };
    stage.broker(2, NEW, true);
    let (desired, rollout) = stage.steer();
    assert_eq!((partition(&desired), rollout.revisit), (2, Some(Duration::from_secs(2))));
    stage.now = 5;
    assert_eq!(stage.outcome().0, 1);
}

/// Else a broker that fails and comes back would come back with the old template.
#[test]
fn partition_never_rises_within_a_rollout() {
    let mut stage = stage(1);
    stage.broker(1, NEW, true);
    stage.broker(2, NEW, false);
    assert_eq!(stage.outcome().0, 1);
}

/// What the controller has not seen, pods cannot follow.
#[test]
fn nothing_moves_before_the_controller_has_seen_the_last_step() {
    let mut stage = stage(3);
    let mut live = stage.observed.stateful_set.as_deref().unwrap().clone();
    live.metadata.generation = Some(8);
    stage.observed.stateful_set = Some(live.into());
    assert_eq!(stage.outcome(), (3, State::Rolling));
}

#[test]
fn broker_that_fails_for_long_halts_the_rollout() {
    let mut stage = stage(2);
    stage.broker(2, NEW, false);
    assert_eq!(stage.outcome(), (2, State::Rolling), "it may still be starting");
    stage.now += 9 * 60;
    assert_eq!(stage.outcome(), (2, State::Halted { ordinal: 2, minutes: 10 }));
}

/// The revert of a bad image: the broker that has it does not serve, and is replaced; the others are not touched.
#[test]
fn stuck_broker_of_another_template_is_replaced_and_no_other() {
    let mut stage = stage(2);
    stage.broker(2, "bad", false);
    stage.broker(1, "bad", false);
    let names = |stage: &Stage| stage.steer().1.stuck.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
    assert_eq!(
        names(&stage),
        ["ackwell-orders-2"],
        "the other one is held back: it would come back the same"
    );
    stage.broker(1, OLD, true);
    stage.broker(2, "bad", true);
    assert_eq!(names(&stage), Vec::<String>::new(), "one that serves is left to the controller");
    stage.broker(2, NEW, false);
    assert_eq!(names(&stage), Vec::<String>::new(), "one with the current template is starting");
}

/// Newer controllers replace nothing while a broker is away, and this one is away until its turn comes.
#[test]
fn broker_that_waits_for_its_turn_does_not_stop_the_others() {
    let mut stage = stage(2);
    stage.broker(0, OLD, false);
    let names = |stage: &Stage| stage.steer().1.stuck.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
    assert_eq!(names(&stage), ["ackwell-orders-2"]);
    stage.broker(2, NEW, false);
    assert_eq!(names(&stage), Vec::<String>::new(), "one at a time");
    stage.observed.stateful_set = Some(held_back(&stage, 1));
    assert_eq!(names(&stage), Vec::<String>::new(), "the last one does not serve any more");
    stage.broker(2, NEW, true);
    assert_eq!(names(&stage), ["ackwell-orders-1"]);
}

#[test]
fn queue_waits_for_its_turn_with_the_template_it_has() {
    let stage = Stage { image: "broker:2", turn: false, ..stage(0) };
    let (desired, rollout) = stage.steer();
    assert_eq!((rollout.state, image(&desired)), (State::Waiting, Some("broker:1")));
    let live = stage.observed.stateful_set.as_deref().unwrap();
    assert_eq!(desired.annotations(), live.annotations());
}

/// A rollout that has begun needs no turn.
#[test]
fn rollout_that_began_goes_on_without_asking() {
    let stage = Stage { turn: false, ..stage(3) };
    assert_eq!(stage.outcome(), (2, State::Rolling));
}

/// Whatever else the spec asks for, and in the middle of a rollout, too.
#[test]
fn template_that_cannot_be_followed_changes_no_pod() {
    let edit = |spec: &mut ackwell_api::QueueSpec| {
        spec.shards = 3;
        let container = serde_json::json!({"name": "worker", "imagee": "worker:1"});
        spec.template =
            serde_json::from_value(serde_json::json!({"spec": {"containers": [container]}})).unwrap();
    };
    let stage = Stage { image: "broker:2", edit, ..stage(2) };
    let (desired, rollout) = stage.steer();
    let live = stage.observed.stateful_set.as_deref().unwrap();
    assert_eq!((partition(&desired), rollout.state), (2, State::Kept));
    assert_eq!((template(&desired), desired.annotations()), (template(live), live.annotations()));
}

/// It may be so for ever, and other Queues wait for their turn.
#[test]
fn applications_that_are_not_ready_are_told_from_brokers_that_do_not_serve() {
    let mut stage = stage(2);
    let waits = |stage: &Stage| waits_for_applications(&stage.plan(), &stage.observed);
    assert!(!waits(&stage), "all is ready");
    for (broker_serves, expected) in [(false, false), (true, true)] {
        let mut pod = pod(2, false);
        let broker = ContainerStatus {
            name: BROKER_CONTAINER.to_owned(),
            ready: broker_serves,
            ..ContainerStatus::default()
        };
        pod.status.as_mut().unwrap().init_container_statuses = Some(vec![broker]);
        stage.observed.pods[2] = (2, pod.into());
        assert_eq!(waits(&stage), expected);
    }
    stage.observed.pods.remove(0);
    assert!(!waits(&stage), "a broker is away");
}

#[test]
fn held_queue_keeps_its_image_and_takes_its_own_changes() {
    fn hold(spec: &mut ackwell_api::QueueSpec) {
        spec.shards = 3;
        spec.rollout.operator_upgrade = OperatorUpgrade::Hold;
    }
    let held = Stage { image: "broker:2", edit: hold, ..stage(0) };
    let (desired, rollout) = held.steer();
    assert_eq!((rollout.state, image(&desired)), (State::Held, Some("broker:1")));
    let edit = |spec: &mut ackwell_api::QueueSpec| {
        hold(spec);
        spec.termination_grace_period_seconds = 90;
    };
    let changed = Stage { edit, ..stage(0) };
    assert_eq!(changed.outcome(), (3, State::Rolling));
}

/// There is no broker to be careful with.
#[test]
fn suspended_queue_takes_a_new_template_at_once() {
    let edit = |spec: &mut ackwell_api::QueueSpec| (spec.shards, spec.suspend) = (3, true);
    let mut stage = Stage { image: "broker:2", edit, turn: false, ..stage(0) };
    assert_eq!(stage.outcome(), (3, State::Rolling), "they may be told to go on before they have stopped");
    stage.observed.pods.clear();
    let (desired, rollout) = stage.steer();
    assert_eq!((partition(&desired), rollout.state, image(&desired)), (0, State::Rolling, Some("broker:2")));
}
