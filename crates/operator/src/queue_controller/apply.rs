//! Step 4: makes the children what they should be, by server-side apply. Unchanged objects are not written.

mod claims;
mod fingerprint;
mod pods;
mod recreate;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ackwell_api::Queue;
use ackwell_api::conditions::reasons;
use ackwell_api::names::{self, MANAGER, QUEUE_LABEL};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::{NamespaceResourceScope, Resource as _};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub(crate) use self::fingerprint::Applied;
pub(super) use self::recreate::is_due as recreation_is_due;
use super::build::Children;
use super::caches::Caches;
use super::dereference::Observed;
use super::error::{Class, classify, what_it_says};
use super::validate::Obstacle;
use crate::certificates::SecretData;
use crate::metrics::Metrics;

/// Longest wait for one request: a hanging API server must not hold one of the few visits at a time for long.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A child could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{operation} {child}: {}", what_it_says(source))]
    Request { operation: &'static str, child: String, source: Box<kube::Error> },
    #[error("{operation} {child}: no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout { operation: &'static str, child: String },
    /// Taking over an object that somebody else made could break them.
    #[error("{child} exists and belongs to {owner}: delete or rename it")]
    Foreign { child: String, owner: String },
    /// Garbage collection has not got there yet.
    #[error("{child} of an earlier Queue of this name is still being deleted")]
    Leaving { child: String },
}

impl ApplyError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Request { source, .. } => classify(source),
            Self::Timeout { .. } => Class::Transient,
            Self::Foreign { .. } => Class::User,
            Self::Leaving { .. } => Class::Waiting,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Request { .. } | Self::Timeout { .. } => reasons::APPLY_REFUSED,
            Self::Foreign { .. } => reasons::OWNERSHIP_CONFLICT,
            Self::Leaving { .. } => reasons::SHARDS_STARTING,
        }
    }
}

/// Applies children, one kind after the other.
pub(super) struct Applier<'a> {
    pub(super) client: &'a Client,
    pub(super) applied: &'a Applied,
    pub(super) metrics: &'a Metrics,
}

impl Applier<'_> {
    /// Applies all `children`; the first that fails ends it, since a later visit starts over. `false`: the set is not what was
    /// `observed`, and nobody may act on what followed from that; the watch brings the next visit.
    ///
    /// Which placement comes next follows from the one that is noted at the set. So it is noted, and nothing else was meanwhile,
    /// before any broker can read of it.
    pub(super) async fn apply(
        &self,
        (queue, observed): (&Queue, &Observed),
        caches: &Caches,
        children: &Children,
    ) -> Result<bool, ApplyError> {
        self.one(&caches.service_accounts, &children.service_account).await?;
        self.one(&caches.services, &children.shards_service).await?;
        self.one(&caches.services, &children.service).await?;
        let set = &children.stateful_set;
        if let Some(known) = &observed.stateful_set {
            let is_noted = self.follow(set, known).await?;
            if is_noted {
                self.one(&caches.config_maps, &children.config_map).await?;
            }
            return Ok(is_noted);
        }
        if !self.may_begin(queue, set).await? {
            return Ok(false);
        }
        // What pods start with is there before they are.
        self.one(&caches.config_maps, &children.config_map).await?;
        self.one(&caches.stateful_sets, set).await?;
        Ok(true)
    }

    /// Applies what limits others, which the Queue itself can do without. What of it a person keeps from being is answered.
    pub(super) async fn limit(
        &self,
        queue: &Queue,
        caches: &Caches,
        children: &Children,
    ) -> Result<Vec<Obstacle>, ApplyError> {
        let policy = children.network_policy.as_ref();
        let budget = children.disruption_budget.as_ref();
        let limited = [
            self.optional(&caches.network_policies, queue, policy).await,
            self.optional(&caches.disruption_budgets, queue, budget).await,
        ];
        let mut obstacles = Vec::new();
        for error in limited.into_iter().filter_map(Result::err) {
            match error.class() {
                Class::User => obstacles.push(Obstacle::new(error.reason(), error.to_string())),
                _ => return Err(error),
            }
        }
        Ok(obstacles)
    }

    /// Whether there is no set, whatever the cache knows, and shall be one.
    async fn may_begin(&self, queue: &Queue, desired: &StatefulSet) -> Result<bool, ApplyError> {
        let sets: Api<StatefulSet> = self.api_of(desired);
        if let Some(live) = request("read", desired, sets.get_opt(&desired.name_any())).await? {
            check_owner(desired, &live)?;
            // One that lost its labels is in no cache, and gets them back.
            return Ok(live.labels().get(QUEUE_LABEL) != desired.labels().get(QUEUE_LABEL));
        }
        // The cache may not know yet that the Queue goes, and its pods must not come back.
        self.still_wanted(queue).await
    }

    /// Applies a set to what is `known` of it, and to nothing else.
    async fn follow(&self, desired: &StatefulSet, known: &StatefulSet) -> Result<bool, ApplyError> {
        check_owner(desired, known)?;
        if known.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        if self.applied.is_current(desired, known) {
            self.metrics.applied(StatefulSet::KIND, "unchanged");
            return Ok(true);
        }
        let mut same = desired.clone();
        (same.metadata.uid, same.metadata.resource_version) = (known.uid(), known.resource_version());
        match self.write(&self.api_of(desired), &same).await {
            Ok(written) => self.applied.remember(desired, &written),
            Err(ApplyError::Request { source, .. }) if pods::is_other_or_gone(&source) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn api_of<K>(&self, object: &K) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    async fn one<K>(&self, cache: &Store<K>, desired: &K) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Serialize + k8s_openapi::Resource,
    {
        let api = self.api_of(desired);
        let live = match cache.get(&ObjectRef::from_obj(desired)) {
            Some(live) => Some(live),
            // Caches hold only what carries our labels: something else may have the name.
            None => request("read", desired, api.get_opt(&desired.name_any())).await?.map(Arc::new),
        };
        if let Some(live) = &live {
            check_owner(desired, live.as_ref())?;
            if live.meta().deletion_timestamp.is_some() {
                // What takes its place is applied when it is gone, which the watch reports.
                return Ok(());
            }
        }
        if live.as_ref().is_some_and(|live| self.applied.is_current(desired, live.as_ref())) {
            self.metrics.applied(K::KIND, "unchanged");
            return Ok(());
        }
        let mut same = desired.clone();
        // Without this, one that is gone and still in the cache would be made again.
        same.meta_mut().uid = live.and_then(|live| live.uid());
        let written = self.write(&api, &same).await?;
        self.applied.remember(desired, &written);
        Ok(())
    }

    /// Makes a child of the Queue's name what it should be, or removes the one that should not be.
    async fn optional<K>(
        &self,
        cache: &Store<K>,
        queue: &Queue,
        desired: Option<&K>,
    ) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Serialize + k8s_openapi::Resource,
    {
        if let Some(desired) = desired {
            return self.one(cache, desired).await;
        }
        let namespace = queue.namespace().unwrap_or_default();
        let child = ObjectRef::new(&names::child(&queue.name_any())).within(&namespace);
        match cache.get(&child) {
            Some(live)
                if controller(&*live).is_some_and(|owner| Some(&owner.uid) == queue.uid().as_ref()) =>
            {
                self.delete(&*live).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn write<K>(&self, api: &Api<K>, desired: &K) -> Result<K, ApplyError>
    where
        K: Resource<DynamicType = ()> + k8s_openapi::Resource,
        K: Clone + Debug + DeserializeOwned + Serialize,
    {
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(desired);
        let written = request("apply", desired, api.patch(&desired.name_any(), &parameters, &patch)).await?;
        self.metrics.applied(K::KIND, "applied");
        Ok(written)
    }

    /// Deletes this object, not one that took its place. Whether it was there to be deleted.
    pub(super) async fn delete<K>(&self, object: &K) -> Result<bool, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + k8s_openapi::Resource,
    {
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = self.api_of(object);
        match request("delete", object, api.delete(&object.name_any(), &parameters)).await {
            Ok(_) => {
                self.metrics.applied(K::KIND, "deleted");
                Ok(true)
            }
            Err(ApplyError::Request { source, .. }) if pods::is_other_or_gone(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The data of a Secret; refuses one that is not ours. It is in no cache: that would take the right to list all.
    pub(super) async fn secret_data(&self, secret: &Secret) -> Result<SecretData, ApplyError> {
        let live = request("read", secret, self.secrets(secret).get_opt(&secret.name_any())).await?;
        if let Some(live) = &live {
            check_owner(secret, live)?;
        }
        Ok(live.and_then(|live| live.data).unwrap_or_default())
    }

    /// Makes a Secret what it should be.
    pub(super) async fn write_secret(&self, secret: &Secret) -> Result<(), ApplyError> {
        self.write(&self.secrets(secret), secret).await.map(drop)
    }

    fn secrets(&self, secret: &Secret) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &secret.namespace().unwrap_or_default())
    }
}

pub(super) async fn request<K, T>(
    operation: &'static str,
    child: &K,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApplyError>
where
    K: Resource<DynamicType = ()>,
{
    match timeout(REQUEST_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| ApplyError::Request {
            operation,
            child: describe(child),
            source: Box::new(error),
        }),
        Err(_) => Err(ApplyError::Timeout { operation, child: describe(child) }),
    }
}

/// Refuses to touch what is not ours. An object without an owner that carries our labels was orphaned, and is adopted.
pub(super) fn check_owner<K: Resource<DynamicType = ()>>(desired: &K, live: &K) -> Result<(), ApplyError> {
    let child = || describe(desired);
    let ours = controller(desired);
    match controller(live) {
        Some(theirs) if ours.is_some_and(|ours| ours.uid == theirs.uid) => Ok(()),
        Some(theirs) if ours.is_some_and(|ours| same_name(ours, theirs)) => {
            Err(ApplyError::Leaving { child: child() })
        }
        Some(theirs) => {
            Err(ApplyError::Foreign { child: child(), owner: format!("{} {}", theirs.kind, theirs.name) })
        }
        None if live.labels().get(QUEUE_LABEL) == desired.labels().get(QUEUE_LABEL) => Ok(()),
        None => Err(ApplyError::Foreign { child: child(), owner: "something else".to_owned() }),
    }
}

fn same_name(ours: &OwnerReference, theirs: &OwnerReference) -> bool {
    (&ours.api_version, &ours.kind, &ours.name) == (&theirs.api_version, &theirs.kind, &theirs.name)
}

fn controller<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}", K::kind(&()), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_controller::fixtures::{owned_by, stateful_set};

    fn refusal(live: &k8s_openapi::api::apps::v1::StatefulSet) -> Option<&'static str> {
        check_owner(&owned_by(stateful_set(1), "Queue", "orders", "uid-1"), live)
            .err()
            .map(|error| error.reason())
    }

    /// A second visit, and a Queue whose StatefulSet was orphaned on purpose.
    #[test]
    fn own_and_orphaned_children_are_ours() {
        assert_eq!(refusal(&owned_by(stateful_set(1), "Queue", "orders", "uid-1")), None);
        assert_eq!(refusal(&stateful_set(1)), None);
    }

    /// Applying over a child that garbage collection is about to delete would delete it a moment later.
    #[test]
    fn child_of_the_earlier_queue_is_waited_for() {
        let live = owned_by(stateful_set(1), "Queue", "orders", "uid-0");
        assert_eq!(refusal(&live), Some(reasons::SHARDS_STARTING));
    }

    #[test]
    fn foreign_object_is_not_taken_over() {
        let mut unlabelled = stateful_set(1);
        unlabelled.metadata.labels = None;
        assert_eq!(refusal(&unlabelled), Some(reasons::OWNERSHIP_CONFLICT));
        let helm = owned_by(stateful_set(1), "Release", "orders", "uid-9");
        assert_eq!(refusal(&helm), Some(reasons::OWNERSHIP_CONFLICT));
    }
}
