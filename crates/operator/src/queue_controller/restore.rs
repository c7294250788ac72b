//! A new Queue that begins with a backup: a pod stores it in the shards, which are closed to everybody else until that is done.

use std::time::Duration;

use ackwell_api::conditions::reasons;
use ackwell_api::{Bootstrap, Queue, RestoreState, RestoreStatus, names};
use kube::{Resource, ResourceExt};

use super::apply::ApplyError;
use super::dereference::Observed;
use super::programs::{Kind, Program, Run};
use super::shards::ShardView;
use super::validate::{Obstacle, Plan, finds_volumes};
use super::{Context, QueueRef};
use crate::clock;

/// How often to look how far it is: no watch tells.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How far a restore is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Restore {
    pub(super) status: RestoreStatus,
    /// For people.
    pub(super) says: String,
}

/// Whether the shards are still closed.
pub(super) fn is_due(queue: &Queue) -> bool {
    let status = queue.status.as_ref().and_then(|status| status.restore.as_ref());
    queue.spec.bootstrap.is_some() && status.is_none_or(|status| status.state != RestoreState::Done)
}

impl Context {
    /// Goes on with what `plan` has to restore.
    pub(super) async fn restore(&self, plan: &mut Plan, observed: &Observed) -> Result<(), ApplyError> {
        let queue = plan.queue.queue();
        let Some(Bootstrap { restore_from: place }) =
            queue.spec.bootstrap.as_ref().filter(|_| plan.is_restoring)
        else {
            return Ok(());
        };
        let views = self.shards.views(&QueueRef::from_obj(queue));
        let run = if finds_volumes(&plan.queue, observed) {
            volumes_found(queue)
        } else if are_told(plan, &views) {
            let owner = queue.controller_owner_ref(&()).unwrap_or_default();
            let program = Program { kind: Kind::Restore, queue, shards: plan.shards, place, owner };
            self.copy(&program).await?
        } else {
            Run::Starting("it begins when all shards serve, and know that they are closed".to_owned())
        };
        let restore = still_failed(queue, &run).unwrap_or_else(|| restore(plan, &run));
        if restore.status.state == RestoreState::Failed {
            plan.obstacles.push(Obstacle::new(reasons::RESTORE_FAILED, restore.says.clone()));
        }
        plan.restore = Some(restore);
        Ok(())
    }
}

/// Whether every shard there shall be has confirmed what it was told.
fn are_told(plan: &Plan, views: &[ShardView]) -> bool {
    let wanted = plan.queue.generation();
    let told = views.iter().filter(|view| view.generation.is_some_and(|has| has >= wanted)).count();
    !plan.suspended() && u32::try_from(told) == Ok(plan.shards)
}

/// Nobody knows of what they hold whether it is of this backup, nor whether it is all of it.
fn volumes_found(queue: &Queue) -> Run {
    let claim = names::volume_claim(&queue.name_any(), 0);
    let message = format!(
        "an earlier Queue of this name has left volumes ({claim} and so on): delete this Queue and then their claims to restore \
         the backup, or make the Queue without spec.bootstrap to serve what is on them"
    );
    Run::Failed { reason: String::new(), message, is_final: true }
}

/// What could not be restored is said until it can: not anew with each attempt.
fn still_failed(queue: &Queue, run: &Run) -> Option<Restore> {
    let before = queue.status.as_ref()?;
    let status = before.restore.clone().filter(|restore| restore.state == RestoreState::Failed)?;
    let says = before.conditions.iter().find(|condition| condition.reason == reasons::RESTORE_FAILED)?;
    matches!(run, Run::Starting(_) | Run::Copying).then(|| Restore { status, says: says.message.clone() })
}

fn restore(plan: &Plan, run: &Run) -> Restore {
    let place = plan.queue.spec().bootstrap.as_ref().map(|bootstrap| &bootstrap.restore_from);
    let from =
        place.map_or_else(String::new, |place| format!("{} of the claim {}", place.path, place.claim_name));
    let going = |says: String| (RestoreState::Restoring, format!("the backup in {from} is restored: {says}"));
    let (state, says) = match run {
        Run::Starting(why) => going(why.clone()),
        Run::Copying => going("status.messages counts what is there".to_owned()),
        Run::Done(done) => {
            (RestoreState::Done, format!("{} messages are restored; the shards open", done.messages))
        }
        Run::Failed { message, is_final: true, .. } => {
            let says = format!(
                "the backup in {from} cannot be restored, and the Queue stays closed: {message}. It is tried again"
            );
            (RestoreState::Failed, says)
        }
        Run::Failed { message, .. } => going(format!("{message}; it begins again in a moment")),
    };
    let messages = match run {
        Run::Done(done) => Some(i64::try_from(done.messages).unwrap_or(i64::MAX)),
        _ => None,
    };
    let completion_time = messages.map(|_| clock::now());
    Restore { status: RestoreStatus { state, messages, completion_time }, says }
}
