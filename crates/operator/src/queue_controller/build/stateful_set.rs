//! The brokers: one pod and one volume per shard.

use std::collections::BTreeMap;

use ackwell_api::{AccessMode, DeletionPolicy, names};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{BrokerImage, Plan, metadata, pod};
use crate::queue_controller::placement;

/// Old revisions kept for `kubectl rollout undo`, which nobody should need: the operator sets the template again.
const REVISION_HISTORY: i32 = 3;

/// `live` is the set that exists: what Kubernetes does not let change is taken from there. Which pods follow the template
/// is not decided here.
pub(super) fn build(plan: &Plan, live: Option<&StatefulSet>, image: &BrokerImage) -> StatefulSet {
    let queue = plan.queue.name().name();
    let mut spec = StatefulSetSpec {
        replicas: i32::try_from(plan.replicas()).ok(),
        service_name: Some(names::shards_service(queue)),
        selector: LabelSelector {
            match_labels: Some(names::selector_labels(queue)),
            ..LabelSelector::default()
        },
        // Shards are independent: none waits for another to start.
        pod_management_policy: Some("Parallel".to_owned()),
        revision_history_limit: Some(REVISION_HISTORY),
        persistent_volume_claim_retention_policy: Some(retention(plan)),
        template: template(plan, image),
        volume_claim_templates: Some(vec![claim_template(plan)]),
        ..StatefulSetSpec::default()
    };
    if let Some(live) = live.and_then(|live| live.spec.clone()) {
        spec.service_name = live.service_name;
        spec.selector = live.selector;
        spec.pod_management_policy = live.pod_management_policy;
        spec.volume_claim_templates = live.volume_claim_templates;
    }
    let metadata = ObjectMeta { annotations: Some(notes(plan)), ..metadata(plan, names::child(queue)) };
    StatefulSet { metadata, spec: Some(spec), ..StatefulSet::default() }
}

/// What a later visit needs to know.
fn notes(plan: &Plan) -> BTreeMap<String, String> {
    let emptied: Vec<_> = plan.step.emptied.iter().map(u32::to_string).collect();
    let notes = [
        (names::SHARDS_ANNOTATION, Some(plan.shards.to_string())),
        (names::PLACEMENT_ANNOTATION, plan.step.placement.as_ref().map(placement::note)),
        (names::EMPTIED_ANNOTATION, (!emptied.is_empty()).then(|| emptied.join(","))),
    ];
    notes.into_iter().filter_map(|(name, note)| Some((name.to_owned(), note?))).collect()
}

fn template(plan: &Plan, image: &BrokerImage) -> PodTemplateSpec {
    let theirs = plan.queue.template().map(|template| template.metadata.clone()).unwrap_or_default();
    let (mut labels, mut annotations) = (theirs.labels, theirs.annotations);
    labels.extend(names::labels(plan.queue.name().name()));
    annotations.extend(plan.restarted.clone().map(|when| (names::RESTARTED_ANNOTATION.to_owned(), when)));
    let annotations = (!annotations.is_empty()).then_some(annotations);
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() }),
        spec: Some(pod::build(plan, image)),
    }
}

/// A volume outlives its shard, and its Queue unless the user said otherwise. A set that is about to be made anew must not
/// take the volumes with it.
fn retention(plan: &Plan) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match plan.queue.spec().deletion_policy {
        DeletionPolicy::Delete if !plan.storage.outdates_template() => "Delete",
        DeletionPolicy::Retain | DeletionPolicy::Delete => "Retain",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_scaled: Some("Retain".to_owned()),
        when_deleted: Some(when_deleted.to_owned()),
    }
}

fn claim_template(plan: &Plan) -> PersistentVolumeClaim {
    let storage = &plan.queue.spec().storage;
    let access_mode = match storage.access_mode {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
    };
    let requests = BTreeMap::from([("storage".to_owned(), storage.size.clone())]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(names::labels(plan.queue.name().name())),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![access_mode.to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
