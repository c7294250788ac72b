//! What people and programs are told of a task. Pure.

use std::time::Duration;

use ackwell_api::{QueueTaskStatus, ShardProgress, ShardTaskState, TaskState};
use ackwell_proto::v1::{RunTaskResponse, TaskState as Told};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::plan::{Scene, due};
use super::{LATER, SOON};

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    state: TaskState,
    reason: &'static str,
    message: String,
}

/// What a shard answered, or why it did not.
pub(super) type Answer = (u32, Result<RunTaskResponse, String>);

impl Outcome {
    pub(super) fn new(state: TaskState, reason: &'static str, message: String) -> Self {
        Self { state, reason, message }
    }

    pub(super) fn succeeded() -> Self {
        Self::new(TaskState::Succeeded, "Done", "it is done".to_owned())
    }

    pub(super) fn cancelled(message: String) -> Self {
        Self::new(TaskState::Cancelled, "Cancelled", message)
    }
}

/// It begins in these shards.
pub(super) fn begun(scene: &Scene<'_>, shards: Vec<i32>) -> QueueTaskStatus {
    let progress = shards.into_iter().map(|ordinal| ShardProgress { ordinal, ..ShardProgress::default() });
    let going = Outcome::new(TaskState::Running, "Running", "it begins".to_owned());
    make(scene, progress.collect(), &going)
}

/// It cannot go on now.
pub(super) fn waiting(scene: &Scene<'_>, why: &str) -> QueueTaskStatus {
    let waits = Outcome::new(scene.state(), "Waiting", why.to_owned());
    make(scene, scene.progress().to_vec(), &waits)
}

/// It does nothing in shards where it has not begun.
pub(super) fn left_out(scene: &Scene<'_>) -> QueueTaskStatus {
    let mut progress = scene.progress().to_vec();
    let pending = progress.iter_mut().filter(|shard| shard.state == ShardTaskState::Pending);
    pending.for_each(|shard| shard.state = ShardTaskState::Done);
    let why = "messages are on their way from shard to shard: where it had not begun is left out".to_owned();
    make(scene, progress, &Outcome::new(TaskState::Running, "Running", why))
}

pub(super) fn ended(scene: &Scene<'_>, outcome: &Outcome) -> QueueTaskStatus {
    make(scene, scene.progress().to_vec(), outcome)
}

/// It is of the newest spec.
pub(super) fn acknowledged(scene: &Scene<'_>) -> QueueTaskStatus {
    let observed_generation = scene.task.metadata.generation;
    QueueTaskStatus { observed_generation, ..scene.task.status.clone().unwrap_or_default() }
}

/// What shards answered is taken in. They say what they did in all, so that it does not matter how often they were asked.
pub(super) fn after(scene: &Scene<'_>, answers: &[Answer]) -> QueueTaskStatus {
    let mut progress = scene.progress().to_vec();
    for (ordinal, answer) in answers {
        let shard = progress.iter_mut().find(|shard| u32::try_from(shard.ordinal) == Ok(*ordinal));
        if let (Some(shard), Ok(answer)) = (shard, answer) {
            take_in(shard, answer);
        }
    }
    let outcome = outcome(scene, &progress, answers);
    make(scene, progress, &outcome)
}

pub(super) fn take_in(shard: &mut ShardProgress, answer: &RunTaskResponse) {
    let state = match answer.state() {
        Told::Over => ShardTaskState::Done,
        Told::Running | Told::Waiting => ShardTaskState::Running,
        // What it did is known from before.
        Told::Forgotten | Told::Unspecified => return,
    };
    let [processed, total, failed] = [answer.processed, answer.total, answer.failed].map(signed);
    *shard = ShardProgress { ordinal: shard.ordinal, state, processed, total, failed };
}

fn outcome(scene: &Scene<'_>, progress: &[ShardProgress], answers: &[Answer]) -> Outcome {
    let silent = answers.iter().filter_map(|(_, answer)| answer.as_ref().err().map(String::as_str));
    let silent = silent.collect::<Vec<_>>().join("; ");
    let is_forgotten = |answer: &RunTaskResponse| answer.state() == Told::Forgotten;
    let forgotten = answers.iter().find(|(_, answer)| answer.as_ref().is_ok_and(is_forgotten));
    if let Some((ordinal, _)) = forgotten.filter(|_| !scene.task.spec.cancel) {
        let why = format!(
            "shard {ordinal} has forgotten it, since there were many newer ones or its volume was lost: what it has done \
             there is not known; look at the messages, and make another task if there is more to do"
        );
        return Outcome::new(TaskState::Failed, "Forgotten", why);
    }
    if scene.task.spec.cancel {
        let why = if silent.is_empty() { "spec.cancel is true".to_owned() } else { not_counted(&silent) };
        return Outcome::cancelled(why);
    }
    if due(scene, progress).is_empty() {
        return Outcome::succeeded();
    }
    if silent.is_empty() {
        return Outcome::new(TaskState::Running, "Running", "it goes on".to_owned());
    }
    Outcome::new(TaskState::Running, "Waiting", silent)
}

fn not_counted(silent: &str) -> String {
    format!("spec.cancel is true; what was done last may not be counted: {silent}")
}

/// When to go on.
pub(super) fn next_look(status: &QueueTaskStatus, answers: &[Answer]) -> Duration {
    let has_more = |answer: &RunTaskResponse| answer.state() != Told::Waiting;
    let goes_on = answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(has_more));
    if goes_on || status.state.is_final() { SOON } else { LATER }
}

pub(super) fn make(scene: &Scene<'_>, progress: Vec<ShardProgress>, outcome: &Outcome) -> QueueTaskStatus {
    let before = scene.task.status.clone().unwrap_or_default();
    let sum = |of: fn(&ShardProgress) -> i64| progress.iter().map(of).sum::<i64>();
    let total = sum(|shard| shard.total);
    let max = scene.task.spec.redrive.as_ref().map_or(0, |redrive| signed(redrive.max_messages));
    let now = || Some(scene.now.clone());
    let has_begun = !progress.is_empty();
    QueueTaskStatus {
        observed_generation: scene.task.metadata.generation,
        state: outcome.state,
        processed: sum(|shard| shard.processed),
        total: if max > 0 { total.min(max) } else { total },
        failed: sum(|shard| shard.failed),
        start_time: before.start_time.or_else(|| now().filter(|_| has_begun)),
        completion_time: before.completion_time.or_else(|| now().filter(|_| outcome.state.is_final())),
        conditions: conditions(scene, outcome),
        shards: progress,
    }
}

/// Those of a Job, and those that tools know which know kstatus.
fn conditions(scene: &Scene<'_>, outcome: &Outcome) -> Vec<Condition> {
    use TaskState::{Cancelled, Failed, Rejected, Succeeded};
    let is_one_of = |states: &[TaskState]| states.contains(&outcome.state);
    let truths = [
        ("Complete", is_one_of(&[Succeeded])),
        ("Failed", is_one_of(&[Failed, Rejected, Cancelled])),
        ("Reconciling", !outcome.state.is_final()),
        ("Stalled", is_one_of(&[Failed, Rejected])),
    ];
    truths.into_iter().map(|(type_, is_true)| condition(scene, type_, is_true, outcome)).collect()
}

/// The time of the last transition only moves when the status does.
fn condition(scene: &Scene<'_>, type_: &str, is_true: bool, outcome: &Outcome) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let before = scene.task.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let same = before.iter().find(|known| known.type_ == type_ && known.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: outcome.reason.to_owned(),
        message: outcome.message.clone(),
        observed_generation: scene.task.metadata.generation,
        last_transition_time: same.map_or(&scene.now, |known| &known.last_transition_time).clone(),
    }
}

/// In an event.
pub(super) fn told(status: &QueueTaskStatus) -> String {
    let QueueTaskStatus { state, processed, total, .. } = status;
    let message = status.conditions.first().map(|condition| condition.message.as_str()).unwrap_or_default();
    match state {
        TaskState::Pending | TaskState::Running | TaskState::Rejected => message.to_owned(),
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled => {
            format!("{processed} of {total} messages: {message}")
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
