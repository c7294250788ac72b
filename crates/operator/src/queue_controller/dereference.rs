//! Step 1: what exists for a Queue, from the caches.

use std::cmp::Reverse;
use std::sync::Arc;

use ackwell_api::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use super::caches::Caches;

/// What exists for a Queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(super) stateful_set: Option<Arc<StatefulSet>>,
    /// With their ordinals, by ordinal.
    pub(super) pods: Vec<(u32, Arc<Pod>)>,
    /// With their ordinals, by ordinal.
    pub(super) claims: Vec<(u32, Arc<PersistentVolumeClaim>)>,
    /// The newest complaint about making pods.
    pub(super) pods_refused: Option<String>,
    /// The newest complaint about making volumes.
    pub(super) volumes_refused: Option<String>,
}

impl Observed {
    /// Brokers that should run according to the StatefulSet.
    pub(super) fn live_shards(&self) -> Option<u32> {
        let replicas = self.stateful_set.as_ref()?.spec.as_ref()?.replicas?;
        u32::try_from(replicas).ok()
    }
}

/// Looks up what exists for the Queue `name`.
pub(super) fn dereference(caches: &Caches, namespace: &str, name: &str) -> Observed {
    let child = names::child(name);
    Observed {
        stateful_set: caches.stateful_sets.get(&ObjectRef::new(&child).within(namespace)),
        pods: by_ordinal(&caches.pods, namespace, |pod| names::ordinal(name, pod)),
        claims: by_ordinal(&caches.claims, namespace, |claim| {
            names::ordinal(name, claim.strip_prefix("data-")?)
        }),
        pods_refused: newest(&caches.stateful_set_warnings, namespace, |object| object == child),
        volumes_refused: newest(&caches.claim_warnings, namespace, |object| {
            names::queue_of_claim(object) == Some(name)
        }),
    }
}

fn by_ordinal<K>(
    store: &Store<K>,
    namespace: &str,
    ordinal: impl Fn(&str) -> Option<u32>,
) -> Vec<(u32, Arc<K>)>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut found: Vec<_> = store
        .state()
        .into_iter()
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .filter_map(|object| Some((ordinal(&object.name_any())?, object)))
        .collect();
    found.sort_by_key(|(ordinal, _)| *ordinal);
    found
}

/// The text of the newest event about an object in `namespace` whose name `concerns` accepts.
fn newest(store: &Store<Event>, namespace: &str, concerns: impl Fn(&str) -> bool) -> Option<String> {
    let about = |event: &Event| {
        let object = &event.involved_object;
        object.namespace.as_deref() == Some(namespace) && object.name.as_deref().is_some_and(&concerns)
    };
    let events = store.state_filter(about);
    let newest = events.into_iter().min_by_key(|event| Reverse(time(event)))?;
    newest.message.clone()
}

fn time(event: &Event) -> Option<jiff::Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.event_time.as_ref().map(|time| time.0)).or(event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0))
}
