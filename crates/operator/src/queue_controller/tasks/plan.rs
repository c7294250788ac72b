//! What a task needs next. Pure.

use std::time::Duration;

use ackwell_api::{
    Purge, PurgeTarget, Queue, QueueTask, QueueTaskSpec, Redrive, ShardProgress, ShardTaskState, TaskState,
};
use ackwell_proto::timestamp;
use ackwell_proto::v1::run_task_request::Work;
use ackwell_proto::v1::{BackupWork, PurgeWork, RedriveWork, RunTaskRequest, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{Resource, ResourceExt};

use super::status::Outcome;
use super::{IN_TURN, LATER, MUCH_LATER};
use crate::queue_controller::restore;

/// What is known when a task is visited.
pub(super) struct Scene<'a> {
    pub(super) task: &'a QueueTask,
    /// `None`: there is none, or it is being deleted.
    pub(super) queue: Option<&'a Queue>,
    /// A task that comes first.
    pub(super) before: Option<String>,
    /// Shards there are; `None`: that is not known now.
    pub(super) shards: Option<u32>,
    /// Messages are on their way from shard to shard.
    pub(super) is_moving: bool,
    /// A person wants nothing to be changed.
    pub(super) is_paused: bool,
    pub(super) now: Time,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing, for so long.
    Rest(Duration),
    /// It is over, and its spec changed afterwards, which changes nothing.
    Acknowledge,
    /// It has been over for long enough.
    Delete,
    /// It goes when its Queue goes.
    Adopt(OwnerReference),
    /// It is noted which shards it is about, before any of them hears of it.
    Begin(Vec<i32>),
    /// For something that will be different by itself, or by a person: to be looked at again then.
    Wait(String, Duration),
    /// What it has done elsewhere may come to shards where it has not begun: it never begins there.
    LeaveOut,
    /// Shards are asked.
    Run(Vec<Ask>),
    /// It is over.
    End(Outcome),
}

/// What is asked of a shard.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) ordinal: u32,
    pub(super) request: RunTaskRequest,
}

impl Scene<'_> {
    pub(super) fn namespace(&self) -> String {
        self.task.namespace().unwrap_or_default()
    }

    pub(super) fn state(&self) -> TaskState {
        self.task.status.as_ref().map(|status| status.state).unwrap_or_default()
    }

    pub(super) fn progress(&self) -> &[ShardProgress] {
        self.task.status.as_ref().map(|status| status.shards.as_slice()).unwrap_or_default()
    }

    fn has_begun(&self) -> bool {
        self.state() != TaskState::Pending
    }

    /// Whether the shard has gone since the task began: what it had, others have.
    fn is_gone(&self, ordinal: i32) -> bool {
        self.shards.zip(u32::try_from(ordinal).ok()).is_some_and(|(shards, ordinal)| ordinal >= shards)
    }
}

/// The next step.
pub(super) fn next(scene: &Scene<'_>) -> Step {
    let Scene { task, .. } = scene;
    if scene.state().is_final() {
        return rest(scene);
    }
    let Some(queue) = scene.queue else { return Step::End(without_queue(scene)) };
    if work(scene).is_none() {
        return Step::End(Outcome::new(
            TaskState::Rejected,
            "NothingToDo",
            "it says nothing to do".to_owned(),
        ));
    }
    if task.spec.backup.is_some() && queue.spec.encryption.is_some() {
        let why =
            "backups are not encrypted, and the Queue is: take snapshots of its volumes instead".to_owned();
        return Step::End(Outcome::new(TaskState::Rejected, "QueueEncrypted", why));
    }
    match owner_of(task) {
        None => return Step::Adopt(owner(queue)),
        Some(uid) if Some(uid) != queue.metadata.uid.as_deref() => {
            let why = "it was made for an earlier Queue of this name".to_owned();
            return Step::End(Outcome::new(TaskState::Failed, "QueueGone", why));
        }
        Some(_) => {}
    }
    if task.spec.cancel && !scene.has_begun() {
        return Step::End(Outcome::cancelled("it had not begun".to_owned()));
    }
    if let Some((why, again)) = obstacle(scene, queue).filter(|_| !task.spec.cancel) {
        return Step::Wait(why, again);
    }
    // What is copied stays where it is: the copy ends, and begins again.
    let changes = task.spec.backup.is_none();
    if changes
        && scene.is_moving
        && scene.progress().iter().any(|shard| shard.state == ShardTaskState::Pending)
    {
        return Step::LeaveOut;
    }
    match scene.shards {
        Some(shards) if !scene.has_begun() => {
            Step::Begin((0..shards).filter_map(|n| n.try_into().ok()).collect())
        }
        _ => run(scene),
    }
}

fn run(scene: &Scene<'_>) -> Step {
    let asks = due(scene, scene.progress());
    if asks.is_empty() { Step::End(Outcome::succeeded()) } else { Step::Run(asks) }
}

/// Shards that have more to do. Where there is a bound for all of them they take turns, since what one did is taken from it.
pub(super) fn due(scene: &Scene<'_>, progress: &[ShardProgress]) -> Vec<Ask> {
    let spec = &scene.task.spec;
    let redrive = spec.redrive.clone().unwrap_or_default();
    let is_bounded = redrive != Redrive::default();
    let done: u64 = progress
        .iter()
        .filter(|shard| shard.state == ShardTaskState::Done)
        .map(|shard| u64::try_from(shard.processed).unwrap_or(0))
        .sum();
    let left = redrive.max_messages.saturating_sub(done);
    if redrive.max_messages > 0 && left == 0 && !spec.cancel {
        return Vec::new();
    }
    let open = progress.iter().filter(|shard| shard.state != ShardTaskState::Done);
    let there = open.filter(|shard| !scene.is_gone(shard.ordinal));
    let at_once = if is_bounded && !spec.cancel { 1 } else { usize::MAX };
    let ask = |shard: &ShardProgress| {
        let begun = shard.state != ShardTaskState::Pending;
        let request = RunTaskRequest { begun, ..request_to(scene, left)? };
        Some(Ask { ordinal: u32::try_from(shard.ordinal).ok()?, request })
    };
    there.take(at_once).filter_map(ask).collect()
}

fn request_to(scene: &Scene<'_>, left: u64) -> Option<RunTaskRequest> {
    let Scene { task, .. } = scene;
    let created = millis(task.metadata.creation_timestamp.as_ref()?);
    let Purge { older_than_seconds, .. } = task.spec.purge.clone().unwrap_or(ANY);
    let age = u64::from(older_than_seconds) * 1000;
    Some(RunTaskRequest {
        queue: format!("{}/{}", scene.namespace(), task.spec.queue_name),
        uid: task.uid()?,
        created: Some(timestamp(created)),
        cancel: task.spec.cancel,
        max_messages: left,
        max_per_second: task.spec.redrive.as_ref().map_or(0, |redrive| redrive.max_per_second.into()),
        stored_before: (age > 0).then(|| timestamp(created.saturating_sub(age))),
        work: work(scene),
        begun: false,
    })
}

/// Of a task that purges nothing.
const ANY: Purge = Purge { target: PurgeTarget::All, older_than_seconds: 0 };

fn work(scene: &Scene<'_>) -> Option<Work> {
    if scene.task.spec.backup.is_some() {
        return Some(Work::Backup(BackupWork {}));
    }
    match (&scene.task.spec.redrive, &scene.task.spec.purge) {
        (Some(_), None) => Some(Work::Redrive(RedriveWork {})),
        (None, Some(purge)) => {
            let states: &[State] = match purge.target {
                PurgeTarget::Ready => &[State::Ready],
                PurgeTarget::DeadLetter => &[State::Dead],
                PurgeTarget::All => &[State::Ready, State::Delayed, State::Dead],
            };
            Some(Work::Purge(PurgeWork { states: states.iter().map(|state| (*state).into()).collect() }))
        }
        _ => None,
    }
}

/// What it does, in metrics.
pub(super) fn word(spec: &QueueTaskSpec) -> &'static str {
    match (&spec.redrive, &spec.backup) {
        (Some(_), _) => "redrive",
        (None, Some(_)) => "backup",
        (None, None) => "purge",
    }
}

/// What keeps it from going on, and when to look again.
fn obstacle(scene: &Scene<'_>, queue: &Queue) -> Option<(String, Duration)> {
    let stands_still = |why: String| Some((why, MUCH_LATER));
    let name = queue.name_any();
    if scene.is_paused {
        return stands_still(format!("the Queue {name} is paused"));
    }
    if queue.spec.suspend {
        return stands_still(format!("the Queue {name} is suspended, and its brokers do not run"));
    }
    if restore::is_due(queue) {
        return Some((format!("a backup is being restored into the Queue {name}"), LATER));
    }
    if let Some(before) = &scene.before {
        return Some((format!("the task {before} of the same Queue comes first"), IN_TURN));
    }
    if scene.has_begun() {
        return None;
    }
    match (scene.is_moving, scene.shards) {
        (true, _) => {
            stands_still(format!("messages of the Queue {name} are on their way from shard to shard"))
        }
        (false, None | Some(0)) => Some((format!("the Queue {name} has no brokers yet"), LATER)),
        (false, Some(_)) => None,
    }
}

fn without_queue(scene: &Scene<'_>) -> Outcome {
    let name = &scene.task.spec.queue_name;
    if scene.has_begun() {
        return Outcome::new(TaskState::Failed, "QueueGone", format!("the Queue {name} is gone"));
    }
    let why = format!("there is no Queue {name} in this namespace: make it first, and then another task");
    Outcome::new(TaskState::Rejected, "QueueMissing", why)
}

/// Until it is deleted.
fn rest(scene: &Scene<'_>) -> Step {
    let Some(status) = &scene.task.status else { return Step::Delete };
    let ttl = u64::from(scene.task.spec.ttl_seconds_after_finished) * 1000;
    let over = status.completion_time.as_ref().map_or(0, millis);
    match (over + ttl).saturating_sub(millis(&scene.now)) {
        0 => Step::Delete,
        _ if status.observed_generation != scene.task.metadata.generation => Step::Acknowledge,
        left => Step::Rest(Duration::from_millis(left)),
    }
}

fn millis(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}

fn owner(queue: &Queue) -> OwnerReference {
    OwnerReference {
        api_version: Queue::api_version(&()).into_owned(),
        kind: Queue::kind(&()).into_owned(),
        name: queue.name_any(),
        uid: queue.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

fn owner_of(task: &QueueTask) -> Option<&str> {
    let owners = task.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.kind == Queue::kind(&())).map(|owner| owner.uid.as_str())
}

/// Whether `other` is of the same Queue, older, and not over.
pub(super) fn is_before(other: &QueueTask, task: &QueueTask) -> bool {
    is_of_same_queue(other, task) && is_open(other) && age(other) < age(task)
}

pub(super) fn is_of_same_queue(other: &QueueTask, task: &QueueTask) -> bool {
    let is_near = other.metadata.namespace == task.metadata.namespace;
    is_near && other.spec.queue_name == task.spec.queue_name
}

/// Whether it keeps others waiting.
pub(super) fn is_open(task: &QueueTask) -> bool {
    let is_over = task.status.as_ref().is_some_and(|status| status.state.is_final());
    !is_over && task.metadata.deletion_timestamp.is_none()
}

/// Tasks are done in the order of this.
pub(super) fn age(task: &QueueTask) -> (Option<&Time>, Option<&str>) {
    (task.metadata.creation_timestamp.as_ref(), task.metadata.uid.as_deref())
}
