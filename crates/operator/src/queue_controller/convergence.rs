//! Random changes of a Queue, crashes and slow controllers, against a model of Kubernetes: on the way nothing is lost, and
//! in the end everything is as the spec says, and a visit changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_api::{DeletionPolicy, OperatorUpgrade, Queue, format_bytes, names, parse_bytes};
use ackwell_proto::v1::{Moving, Placement, StatsResponse};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use proptest::prelude::*;

use super::BrokerImage;
use super::apply::recreation_is_due;
use super::build::build;
use super::dereference::Observed;
use super::fixtures::{claim, pod, queue};
use super::rollout::{Scene, steer};
use super::shards::{ShardView, is_ready};
use super::storage::{Next, template_bytes};
use super::validate::validate;

const REVISION: &str = "controller-revision-hash";
/// What the storage of the model can do.
const LARGEST: u64 = 4 << 30;
/// A broker with this grace period never serves.
const BROKEN_SECONDS: u32 = 99;

#[derive(Clone, Debug)]
enum Move {
    Shards(u32),
    Gigabytes(u64),
    Suspend(bool),
    Pause(bool),
    Grace(u32),
    Hold(bool),
    Image(u8),
    Delete(bool),
    Kill(u32),
    /// The operator hears of the set as it is.
    Hear,
    Visit,
    Controllers,
    Node,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => (1..5_u32).prop_map(Move::Shards),
        1 => (1..8_u64).prop_map(Move::Gigabytes),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => any::<bool>().prop_map(Move::Pause),
        1 => prop_oneof![Just(60), Just(90), Just(BROKEN_SECONDS)].prop_map(Move::Grace),
        1 => any::<bool>().prop_map(Move::Hold),
        1 => (1..3_u8).prop_map(Move::Image),
        1 => any::<bool>().prop_map(Move::Delete),
        1 => (0..4_u32).prop_map(Move::Kill),
        3 => Just(Move::Hear),
        5 => Just(Move::Visit),
        4 => Just(Move::Controllers),
        4 => Just(Move::Node),
    ];
    proptest::collection::vec(one, 1..80)
}

/// A Queue and what Kubernetes has of it.
struct Model {
    queue: Queue,
    image: u8,
    floor: Option<u64>,
    set: Option<StatefulSet>,
    /// The set as the operator heard of it last.
    heard: Option<StatefulSet>,
    pods: BTreeMap<u32, Pod>,
    claims: BTreeMap<u32, PersistentVolumeClaim>,
    /// What each volume says of its shard.
    moving: BTreeMap<u32, Moving>,
    /// Shards that have handed over all that they had.
    empty: BTreeSet<u32>,
    /// Pod templates; the index is the revision.
    templates: Vec<String>,
    made: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            queue: queue(|_| {}),
            image: 1,
            floor: None,
            set: None,
            heard: None,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            moving: BTreeMap::new(),
            empty: BTreeSet::new(),
            templates: Vec::new(),
            made: 0,
        }
    }

    fn step(&mut self, step: &Move) {
        let spec = &mut self.queue.spec;
        match step {
            Move::Shards(count) => spec.shards = *count,
            Move::Gigabytes(size) => self.resize(size << 30),
            Move::Suspend(yes) => spec.suspend = *yes,
            Move::Pause(yes) => self.pause(*yes),
            Move::Grace(seconds) => spec.termination_grace_period_seconds = *seconds,
            Move::Hold(yes) => {
                spec.rollout.operator_upgrade =
                    if *yes { OperatorUpgrade::Hold } else { OperatorUpgrade::Roll };
            }
            Move::Image(tag) => self.image = *tag,
            Move::Delete(yes) => {
                spec.deletion_policy = if *yes { DeletionPolicy::Delete } else { DeletionPolicy::Retain };
            }
            Move::Kill(ordinal) => drop(self.pods.remove(ordinal)),
            Move::Hear => self.heard = self.set.clone(),
            Move::Visit => drop(self.visit()),
            Move::Controllers => self.controllers(),
            Move::Node => self.node(),
        }
    }

    /// As far as the API server lets it.
    fn resize(&mut self, bytes: u64) {
        let now = parse_bytes(&self.queue.spec.storage.size).unwrap();
        if bytes >= now || self.floor.is_some_and(|floor| bytes >= floor) {
            self.queue.spec.storage.size = format_bytes(bytes);
        }
    }

    fn pause(&mut self, yes: bool) {
        let annotations = self.queue.annotations_mut();
        annotations.clear();
        if yes {
            annotations.insert(names::PAUSED_ANNOTATION.to_owned(), String::new());
        }
    }

    fn observed(&self) -> Observed {
        Observed {
            stateful_set: self.heard.clone().map(Into::into),
            pods: self.pods.iter().map(|(ordinal, pod)| (*ordinal, pod.clone().into())).collect(),
            claims: self.claims.iter().map(|(ordinal, claim)| (*ordinal, claim.clone().into())).collect(),
            classes: [("standard".to_owned(), true)].into(),
            shards: self.pods.iter().filter_map(|(ordinal, pod)| self.view(*ordinal, pod)).collect(),
            ..Observed::default()
        }
    }

    fn view(&self, ordinal: u32, pod: &Pod) -> Option<ShardView> {
        is_ready(pod).then(|| ShardView {
            ordinal,
            pod: pod.uid().unwrap(),
            generation: self.queue.metadata.generation.map(|generation| u64::try_from(generation).unwrap()),
            moving: Some(self.moving.get(&ordinal).cloned().unwrap_or_default()),
            stats: Some(StatsResponse::default()),
            unreachable: None,
        })
    }

    /// Tells the brokers that serve what is planned. They take a while to be done with a new placement.
    fn tell(&mut self, placement: Option<Placement>) {
        let Some(Placement { generation, from, to }) = placement else { return };
        for (ordinal, _) in self.pods.iter().filter(|(_, pod)| is_ready(pod)) {
            let moving = self.moving.entry(*ordinal).or_default();
            if moving.generation < generation {
                *moving = Moving { generation, from, to, ..Moving::default() };
                self.empty.retain(|empty| empty != ordinal || to <= *ordinal);
            } else if moving.generation == generation {
                assert_eq!((moving.from, moving.to), (from, to), "a generation means one thing");
            }
        }
    }

    /// What the operator does in one visit, with its promises. Whether anything changed.
    fn visit(&mut self) -> bool {
        let observed = self.observed();
        let mut plan = validate(&self.queue, &observed).unwrap();
        if plan.paused {
            return false;
        }
        let before = (self.set.clone(), self.claims.clone());
        for volume in plan.storage.volumes.iter().filter(|volume| volume.next == Next::Ask) {
            self.ask(volume.ordinal, &plan.storage.wanted);
        }
        let image = BrokerImage { image: format!("broker:{}", self.image), pull_policy: None, traces: None };
        let mut desired = build(&plan, &observed, &image).stateful_set;
        let now = Time(jiff::Timestamp::from_second(1_000_000).unwrap());
        let scene = Scene { plan: &plan, observed: &observed, shards: &observed.shards, now: &now };
        plan.rollout = steer(&mut desired, &scene, || true);
        if self.heard != self.set {
            // The API server refuses what is meant for another set, and nobody hears of what followed from that.
            return before != (self.set.clone(), self.claims.clone());
        }
        self.apply(desired);
        self.tell(plan.step.placement);
        for stuck in &plan.rollout.stuck {
            let another_is_away = self.pods.values().any(|pod| !is_ready(pod));
            assert!(!is_ready(stuck) || another_is_away, "a broker that serves was deleted");
            self.pods.retain(|_, pod| pod.uid() != stuck.uid());
        }
        // It looks at what is there by now, and not at what it has heard of.
        let live = Observed { stateful_set: self.set.clone().map(Into::into), ..observed.clone() };
        if let Some(set) = recreation_is_due(&plan, &observed).and(recreation_is_due(&plan, &live)) {
            let same = self.set.as_ref().map(template_of) == Some(template_of(set));
            assert!(same, "a set is made anew with another template");
            self.set = None;
        }
        self.note_floor(&plan);
        before != (self.set.clone(), self.claims.clone())
    }

    fn note_floor(&mut self, plan: &super::validate::Plan) {
        let before = self.floor.map(|floor| ackwell_api::StorageStatus {
            requested: plan.storage.wanted.clone(),
            floor: Some(format_bytes(floor)),
            volumes: Vec::new(),
        });
        let status = plan.storage.status(plan.shards, before.as_ref());
        self.floor = status.floor.map(|floor| parse_bytes(&floor).unwrap());
    }

    /// The API server's rules for claims.
    fn ask(&mut self, ordinal: u32, size: &Quantity) {
        let claim = self.claims.get_mut(&ordinal).unwrap();
        let (wanted, has) = (parse_bytes(size).unwrap(), capacity(claim));
        assert!(wanted > has, "Kubernetes refuses to ask for {wanted} where there are {has}");
        claim.spec.as_mut().unwrap().resources.as_mut().unwrap().requests =
            Some([("storage".to_owned(), size.clone())].into());
    }

    fn apply(&mut self, desired: StatefulSet) {
        let Some(mut live) = self.set.take() else {
            let replicas = desired.spec.as_ref().unwrap().replicas.unwrap();
            let last = self.pods.keys().next_back().map_or(0, |last| i32::try_from(last + 1).unwrap());
            assert!(replicas >= last || self.queue.spec.suspend, "a set that is made anew stops brokers");
            self.made += 1;
            let mut set = desired;
            set.metadata.uid = Some(format!("set-{}", self.made));
            set.metadata.generation = Some(1);
            self.set = Some(set);
            return;
        };
        let (was, is) = (live.spec.as_ref().unwrap(), desired.spec.as_ref().unwrap());
        let [from, to] =
            [was, is].map(|spec| u32::try_from(spec.replicas.unwrap()).expect("a number of brokers"));
        let is_proved = (to..from).all(|ordinal| self.empty.contains(&ordinal));
        assert!(is_proved || self.queue.spec.suspend, "messages are left behind");
        assert_eq!(is.volume_claim_templates, was.volume_claim_templates, "the API server refuses it");
        let changed = was != is;
        live.metadata.annotations = desired.metadata.annotations;
        live.spec = desired.spec;
        live.metadata.generation = live.metadata.generation.map(|now| now + i64::from(changed));
        self.set = Some(live);
    }

    fn revision(&mut self, template: &str) -> String {
        let known = self.templates.iter().position(|known| known == template);
        let index = known.unwrap_or_else(|| {
            self.templates.push(template.to_owned());
            self.templates.len() - 1
        });
        format!("revision-{index}")
    }

    /// The StatefulSet controller, with one pod at most away while it replaces.
    fn controllers(&mut self) {
        let Some(mut set) = self.set.clone() else { return };
        let update = self.revision(&template_of(&set));
        let mut status = set.status.take().unwrap_or_default();
        let current = status.current_revision.take().unwrap_or_else(|| update.clone());
        let replicas = u32::try_from(set.spec.as_ref().unwrap().replicas.unwrap()).unwrap();
        let partition = partition(&set);
        self.pods.retain(|ordinal, _| *ordinal < replicas);
        for ordinal in 0..replicas {
            let revision = if ordinal < partition { &current } else { &update };
            self.make_missing(ordinal, revision, &set);
        }
        self.replace_one(replicas, partition, &update);
        let has = |pod: &&Pod| pod.labels().get(REVISION) == Some(&update);
        let updated = self.pods.values().filter(has).count();
        let done = u32::try_from(updated).unwrap() == replicas && self.pods.values().all(is_ready);
        status.replicas = i32::try_from(self.pods.len()).unwrap();
        status.updated_replicas = i32::try_from(updated).ok();
        status.observed_generation = set.metadata.generation;
        status.current_revision = Some(if done { update.clone() } else { current });
        status.update_revision = Some(update);
        self.own_claims(&set);
        set.status = Some(status);
        self.set = Some(set);
    }

    fn make_missing(&mut self, ordinal: u32, revision: &str, set: &StatefulSet) {
        let size = format_bytes(template_bytes(set).unwrap());
        self.claims.entry(ordinal).or_insert_with(|| claim(ordinal, "Pending", &size.0));
        self.made += 1;
        let made = self.made;
        self.pods.entry(ordinal).or_insert_with(|| {
            let mut pod = pod(ordinal, false);
            pod.metadata.uid = Some(format!("pod-{made}"));
            pod.labels_mut().insert(REVISION.to_owned(), revision.to_owned());
            pod
        });
    }

    fn replace_one(&mut self, replicas: u32, partition: u32, update: &String) {
        if !self.pods.values().all(is_ready) {
            return;
        }
        let stale = (partition..replicas).rev().find(|ordinal| {
            self.pods.get(ordinal).is_some_and(|pod| pod.labels().get(REVISION) != Some(update))
        });
        if let Some(ordinal) = stale {
            self.pods.remove(&ordinal);
        }
    }

    fn own_claims(&mut self, set: &StatefulSet) {
        let policy = set.spec.as_ref().unwrap().persistent_volume_claim_retention_policy.as_ref().unwrap();
        let leave_together = policy.when_deleted.as_deref() == Some("Delete");
        let owner = OwnerReference { uid: set.uid().unwrap(), ..OwnerReference::default() };
        for claim in self.claims.values_mut() {
            claim.metadata.owner_references = leave_together.then(|| vec![owner.clone()]);
        }
    }

    /// Kubelet and storage.
    fn node(&mut self) {
        for (ordinal, running) in &mut self.pods {
            let revision = running.labels()[REVISION].clone();
            let index: usize = revision.trim_start_matches("revision-").parse().unwrap();
            let broken = self.templates[index]
                .contains(&format!("\"terminationGracePeriodSeconds\":{BROKEN_SECONDS}"));
            running.status = pod(*ordinal, !broken).status;
            if let Some(moving) = self.moving.get_mut(ordinal).filter(|_| !broken) {
                moving.done = true;
                self.empty.extend((moving.from > *ordinal && moving.to <= *ordinal).then_some(*ordinal));
            }
        }
        for claim in self.claims.values_mut() {
            let wanted = claim.spec.as_ref().unwrap().resources.as_ref().unwrap().requests.clone().unwrap();
            let status = claim.status.as_mut().unwrap();
            status.allocated_resource_statuses = None;
            // A first size that is too large leaves a claim that no edit can change: not what is looked at here.
            let grows = status.capacity.is_some();
            if grows && parse_bytes(&wanted["storage"]).unwrap() > LARGEST {
                let state = [("storage".to_owned(), "ControllerResizeInfeasible".to_owned())];
                status.allocated_resource_statuses = Some(state.into());
            } else if capacity(claim) < parse_bytes(&wanted["storage"]).unwrap() {
                let status = claim.status.as_mut().unwrap();
                status.phase = Some("Bound".to_owned());
                status.capacity = Some(wanted);
            }
        }
    }

    /// Somebody makes everything possible again.
    fn calm_down(&mut self) {
        for step in [Move::Suspend(false), Move::Pause(false), Move::Hold(false), Move::Grace(60)] {
            self.step(&step);
        }
        if parse_bytes(&self.queue.spec.storage.size).unwrap() > LARGEST {
            self.queue.spec.storage.size = format_bytes(self.floor.unwrap_or(LARGEST).max(1 << 30));
        }
    }

    /// Until nothing happens any more.
    fn run(&mut self) {
        let everything = |model: &Self| {
            (model.set.clone(), model.pods.clone(), model.claims.clone(), model.moving.clone())
        };
        for _ in 0..100 {
            let before = everything(self);
            self.step(&Move::Hear);
            self.visit();
            self.controllers();
            self.node();
            if everything(self) == before {
                return;
            }
        }
    }

    fn assert_done(&mut self) {
        let observed = self.observed();
        let plan = validate(&self.queue, &observed).unwrap();
        assert_eq!(plan.obstacles, Vec::new());
        assert_eq!(plan.storage.growing(), None);
        assert!(plan.is_settled());
        assert_eq!(self.pods.len(), usize::try_from(plan.shards).unwrap());
        assert!(self.pods.values().all(is_ready));
        let set = self.set.as_ref().unwrap();
        assert_eq!(partition(set), 0);
        let update = self.templates.iter().position(|known| *known == template_of(set)).unwrap();
        let wanted = format!("revision-{update}");
        assert!(self.pods.values().all(|pod| pod.labels()[REVISION] == wanted));
        assert!(template_of(set).contains(&format!("broker:{}", self.image)));
    }
}

fn capacity(claim: &PersistentVolumeClaim) -> u64 {
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.map_or(0, |capacity| parse_bytes(&capacity["storage"]).unwrap())
}

fn template_of(set: &StatefulSet) -> String {
    serde_json::to_string(&set.spec.as_ref().unwrap().template).unwrap()
}

fn partition(set: &StatefulSet) -> u32 {
    let strategy = set.spec.as_ref().unwrap().update_strategy.as_ref().unwrap();
    u32::try_from(strategy.rolling_update.as_ref().unwrap().partition.unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Whatever was done to a Queue, and however far it got, it comes to what its spec says, and then stands still.
    #[test]
    fn every_history_ends_as_the_spec_says(history in moves()) {
        let mut model = Model::new();
        for step in &history {
            model.step(step);
        }
        model.calm_down();
        model.run();
        model.assert_done();
        model.step(&Move::Hear);
        prop_assert!(!model.visit(), "a visit to a Queue that is done changes something");
    }
}

/// The state in which brokers are kept back is not the end of anything.
#[test]
fn held_image_follows_when_it_is_released() {
    let mut model = Model::new();
    model.run();
    model.step(&Move::Hold(true));
    model.step(&Move::Image(2));
    model.run();
    assert!(template_of(model.set.as_ref().unwrap()).contains("broker:1"));
    model.step(&Move::Hold(false));
    model.run();
    model.assert_done();
}
