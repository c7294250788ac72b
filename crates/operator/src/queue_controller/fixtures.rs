//! Objects for tests.

use std::collections::BTreeMap;

use ackwell_api::{Queue, QueueSpec, names};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, Pod, PodCondition,
    PodStatus, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde_json::json;

/// `shop/orders`, as small as it can be, changed by `edit`.
pub(super) fn queue(edit: impl FnOnce(&mut QueueSpec)) -> Queue {
    let mut queue: Queue = serde_json::from_value(json!({
        "apiVersion": "ackwell.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "uid-1", "generation": 3},
        "spec": {"storage": {"size": "1Gi"}},
    }))
    .unwrap();
    edit(&mut queue.spec);
    queue
}

fn metadata(name: String) -> ObjectMeta {
    ObjectMeta {
        uid: Some(format!("uid-of-{name}")),
        name: Some(name),
        namespace: Some("shop".to_owned()),
        labels: Some(names::labels("orders")),
        ..ObjectMeta::default()
    }
}

/// The StatefulSet of `orders`, all pods updated.
pub(super) fn stateful_set(shards: u32) -> StatefulSet {
    let replicas = i32::try_from(shards).unwrap();
    let mut metadata = metadata(names::child("orders"));
    let settled = (names::PLACEMENT_ANNOTATION.to_owned(), format!("1/{shards}/{shards}"));
    metadata.annotations = Some([settled].into());
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec { replicas: Some(replicas), ..StatefulSetSpec::default() }),
        status: Some(StatefulSetStatus {
            replicas,
            updated_replicas: Some(replicas),
            ..StatefulSetStatus::default()
        }),
    }
}

pub(super) fn pod(ordinal: u32, ready: bool) -> Pod {
    let condition = PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
        ..PodCondition::default()
    };
    Pod {
        metadata: metadata(names::pod("orders", ordinal)),
        status: Some(PodStatus {
            pod_ip: Some("127.0.0.1".to_owned()),
            conditions: Some(vec![condition]),
            ..PodStatus::default()
        }),
        ..Pod::default()
    }
}

/// Of the class `standard`; a bound one has what it asks for.
pub(super) fn claim(ordinal: u32, phase: &str, size: &str) -> PersistentVolumeClaim {
    let sizes = BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))]);
    PersistentVolumeClaim {
        metadata: metadata(names::volume_claim("orders", ordinal)),
        spec: Some(PersistentVolumeClaimSpec {
            storage_class_name: Some("standard".to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(sizes.clone()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: Some(PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            capacity: (phase == "Bound").then_some(sizes),
            ..PersistentVolumeClaimStatus::default()
        }),
    }
}

pub(super) fn owned_by<K: Resource>(mut object: K, kind: &str, name: &str, uid: &str) -> K {
    object.meta_mut().owner_references = Some(vec![OwnerReference {
        api_version: "ackwell.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    object
}
