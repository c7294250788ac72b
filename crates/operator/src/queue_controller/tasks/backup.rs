//! Tasks that copy what a Queue has: done by a pod, which reads the shards; these say how far it is.

use ackwell_api::{BackupPlace, Queue, QueueTask, QueueTaskStatus, ShardTaskState, TaskState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::plan::{Ask, Scene};
use super::status::{self, Answer, Outcome};
use super::{LATER, Tasks};
use crate::queue_controller::apply::ApplyError;
use crate::queue_controller::programs::{Kind, Program, Run};

impl Tasks {
    /// Has the pod copy, or ends it.
    pub(super) async fn back_up(
        &self,
        scene: &Scene<'_>,
        (queue, place): (&Queue, &BackupPlace),
        asks: Vec<Ask>,
    ) -> Result<Action, ApplyError> {
        let task = scene.task;
        let shards = u32::try_from(scene.progress().len()).unwrap_or(0);
        let program = Program { kind: Kind::Backup, queue, shards, place, owner: owner(task) };
        if task.spec.cancel {
            self.context.end_copy(&program).await?;
            let cancelled =
                Outcome::cancelled("spec.cancel is true; what was written is no backup".to_owned());
            return self.note(task, status::ended(scene, &cancelled), LATER).await;
        }
        if scene.shards.is_some_and(|now| now != shards) {
            self.context.end_copy(&program).await?;
            return self.note(task, status::ended(scene, &other_shards()), LATER).await;
        }
        let run = self.context.copy(&program).await?;
        let answers = if run == Run::Copying { self.ask(scene, asks).await } else { Vec::new() };
        self.note(task, after(scene, place, (&run, &answers)), LATER).await
    }
}

fn other_shards() -> Outcome {
    let why = "the Queue has another number of shards since: make another task, with another path".to_owned();
    Outcome::new(TaskState::Failed, "ShardsChanged", why)
}

/// What people and programs are told.
pub(super) fn after(
    scene: &Scene<'_>,
    place: &BackupPlace,
    (run, answers): (&Run, &[Answer]),
) -> QueueTaskStatus {
    let mut progress = scene.progress().to_vec();
    for (ordinal, answer) in answers {
        let shard = progress.iter_mut().find(|shard| u32::try_from(shard.ordinal) == Ok(*ordinal));
        // One that was restarted does not know yet, and the others are read one after the other.
        if let (Some(shard), Ok(answer)) = (shard, answer)
            && answer.total > 0
        {
            status::take_in(shard, answer);
        }
    }
    if let Run::Done(done) = run {
        for (shard, messages) in progress.iter_mut().zip(&done.shards) {
            let messages = i64::try_from(*messages).unwrap_or(i64::MAX);
            (shard.processed, shard.total, shard.state) = (messages, messages, ShardTaskState::Done);
        }
    }
    status::make(scene, progress, &outcome(place, run))
}

fn outcome(place: &BackupPlace, run: &Run) -> Outcome {
    let BackupPlace { claim_name, path } = place;
    match run {
        Run::Starting(why) => Outcome::new(TaskState::Running, "Waiting", why.clone()),
        Run::Copying => Outcome::new(TaskState::Running, "Running", "it goes on".to_owned()),
        Run::Done(done) => {
            let text = format!("{} bytes in {path} of the claim {claim_name}", done.bytes);
            Outcome::new(TaskState::Succeeded, "Done", text)
        }
        Run::Failed { reason, message, is_final: true } => {
            Outcome::new(TaskState::Failed, known(reason), message.clone())
        }
        Run::Failed { message, .. } => {
            Outcome::new(TaskState::Running, "Waiting", format!("{message}; it begins again in a moment"))
        }
    }
}

/// Of the reasons of the program those that a backup can have.
fn known(reason: &str) -> &'static str {
    let known = ["FolderOccupied", "BackupDamaged", "BackupTooNew", "ShardRefused"];
    known.into_iter().find(|known| *known == reason).unwrap_or("BackupFailed")
}

/// What the pod belongs to.
fn owner(task: &QueueTask) -> OwnerReference {
    OwnerReference {
        api_version: QueueTask::api_version(&()).into_owned(),
        kind: QueueTask::kind(&()).into_owned(),
        name: task.name_any(),
        uid: task.uid().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}
