//! Step 1: what exists for a Queue, from the caches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ackwell_api::names::{self, EMPTIED_ANNOTATION, PLACEMENT_ANNOTATION, SHARDS_ANNOTATION};
use ackwell_proto::v1::Placement;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use super::caches::Caches;
use super::placement;
use super::shards::ShardView;
use super::storage;

/// What exists for a Queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(super) stateful_set: Option<Arc<StatefulSet>>,
    /// With their ordinals, by ordinal.
    pub(super) pods: Vec<(u32, Arc<Pod>)>,
    /// With their ordinals, by ordinal.
    pub(super) claims: Vec<(u32, Arc<PersistentVolumeClaim>)>,
    /// What the ready shards said last.
    pub(super) shards: Vec<ShardView>,
    /// By StorageClass of the claims: whether it lets volumes grow.
    pub(super) classes: BTreeMap<String, bool>,
    /// The newest complaint about making pods.
    pub(super) pods_refused: Option<String>,
    /// The newest complaint about making volumes.
    pub(super) volumes_refused: Option<String>,
}

impl Observed {
    /// The newest placement, as it was noted.
    pub(super) fn placement(&self) -> Option<Placement> {
        let text = self.stateful_set.as_deref()?.annotations().get(PLACEMENT_ANNOTATION)?;
        placement::parse(text)
    }

    /// Shards that have proved to be empty, as it was noted.
    pub(super) fn emptied(&self) -> BTreeSet<u32> {
        let noted = self.stateful_set.as_deref().and_then(|set| set.annotations().get(EMPTIED_ANNOTATION));
        noted
            .into_iter()
            .flat_map(|text| text.split(','))
            .filter_map(|ordinal| ordinal.parse().ok())
            .collect()
    }

    /// Shards there are, whether or not their brokers run: according to the StatefulSet, or, where it is gone, to what is left
    /// of it.
    pub(super) fn live_shards(&self) -> u32 {
        self.noted_shards().unwrap_or_else(|| {
            let pods = self.pods.last().map(|(ordinal, _)| *ordinal);
            pods.or(self.claims.last().map(|(ordinal, _)| *ordinal)).map_or(0, |last| last + 1)
        })
    }

    fn noted_shards(&self) -> Option<u32> {
        let set = self.stateful_set.as_deref()?;
        let noted = set.annotations().get(SHARDS_ANNOTATION).and_then(|text| text.parse().ok());
        noted.or_else(|| u32::try_from(set.spec.as_ref()?.replicas?).ok())
    }
}

/// Looks up what exists for the Queue `name`.
pub(super) fn dereference(caches: &Caches, namespace: &str, name: &str) -> Observed {
    let child = names::child(name);
    let claims =
        by_ordinal(&caches.claims, namespace, |claim| names::ordinal(name, claim.strip_prefix("data-")?));
    Observed {
        stateful_set: caches.stateful_sets.get(&ObjectRef::new(&child).within(namespace)),
        pods: by_ordinal(&caches.pods, namespace, |pod| names::ordinal(name, pod)),
        shards: Vec::new(),
        classes: claims.iter().filter_map(|(_, claim)| class(&caches.classes, claim)).collect(),
        claims,
        pods_refused: newest(&caches.stateful_set_warnings, namespace, |object| object == child),
        volumes_refused: newest(&caches.claim_warnings, namespace, |object| {
            names::queue_of_claim(object) == Some(name)
        }),
    }
}

fn class(classes: &Store<StorageClass>, claim: &PersistentVolumeClaim) -> Option<(String, bool)> {
    let class = classes.get(&ObjectRef::new(storage::class(claim)?))?;
    Some((class.name_any(), class.allow_volume_expansion == Some(true)))
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
