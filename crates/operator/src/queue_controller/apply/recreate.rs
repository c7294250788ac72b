//! Making a StatefulSet anew under its running pods: its volume claim template cannot be changed.
//!
//! The set is deleted without its pods, and the next visit, which finds none, applies it like any other; the pods are
//! adopted, and since their template is the same none restarts. Nothing has to be remembered in between.

use ackwell_api::Queue;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};

use super::pods::is_other_or_gone;
use super::{Applier, ApplyError, request};
use crate::queue_controller::dereference::Observed;
use crate::queue_controller::rollout::{State, is_observed};
use crate::queue_controller::storage::template_bytes;
use crate::queue_controller::validate::Plan;

/// The set that is to be made anew now. Not while brokers are being replaced, since a new set does not know which of them
/// had which template; nor while shards come or leave, which is noted at the set.
pub(in super::super) fn is_due<'a>(plan: &Plan, observed: &'a Observed) -> Option<&'a StatefulSet> {
    let set = observed.stateful_set.as_deref().filter(|_| plan.storage.outdates_template())?;
    let idle = matches!(plan.rollout.state, State::Done | State::Unsettled) && plan.is_settled();
    let claims = || observed.claims.iter().map(|(_, claim)| claim.as_ref());
    (idle && can_leave(set) && !claims().any(|claim| is_owned_by(claim, set))).then_some(set)
}

/// Whether `set` can be deleted without taking anything with it, as far as it knows itself.
fn can_leave(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let retains = policy.is_none_or(|policy| policy.when_deleted.as_deref() != Some("Delete"));
    let one_revision =
        set.status.as_ref().is_some_and(|status| status.current_revision == status.update_revision);
    retains && one_revision && is_observed(set) && set.metadata.deletion_timestamp.is_none()
}

/// The StatefulSet controller makes itself the owner of claims that are to be deleted with the set.
fn is_owned_by(claim: &PersistentVolumeClaim, set: &StatefulSet) -> bool {
    claim.owner_references().iter().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

impl Applier<'_> {
    /// Deletes `set` and leaves its pods, after a look at what really is there: caches may be old.
    pub(in super::super) async fn orphan_pods(
        &self,
        queue: &Queue,
        set: &StatefulSet,
    ) -> Result<(), ApplyError> {
        let namespace = set.namespace().unwrap_or_default();
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &namespace);
        let Some(live) = request("read", set, sets.get_opt(&set.name_any())).await? else { return Ok(()) };
        let same = live.metadata.uid == set.metadata.uid && template_bytes(&live) == template_bytes(set);
        if !same || !can_leave(&live) || !self.still_wanted(queue).await? {
            return Ok(());
        }
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            preconditions: Some(Preconditions { uid: live.uid(), resource_version: live.resource_version() }),
            ..DeleteParams::default()
        };
        match request("make anew", &live, sets.delete(&live.name_any(), &parameters)).await {
            Ok(_) => self.metrics.applied("StatefulSet", "deleted"),
            // It changed since: the watch brings the next visit.
            Err(ApplyError::Request { source, .. }) if is_other_or_gone(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Pods whose Queue went away in that moment would belong to nobody.
    pub(super) async fn still_wanted(&self, queue: &Queue) -> Result<bool, ApplyError> {
        let queues: Api<Queue> = Api::namespaced(self.client.clone(), &queue.namespace().unwrap_or_default());
        let live = request("read", queue, queues.get_metadata_opt(&queue.name_any())).await?;
        Ok(live.is_some_and(|live| live.uid() == queue.uid() && live.metadata.deletion_timestamp.is_none()))
    }
}

#[cfg(test)]
mod tests;
