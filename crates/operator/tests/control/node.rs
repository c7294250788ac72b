//! Plays the kubelet and the storage: pods run, claims are bound and grow, as soon as they are there.

use std::net::{Ipv4Addr, SocketAddrV4};

use ackwell_api::names::BROKER_CONTAINER;
use ackwell_api::parse_bytes;
use ackwell_proto::exit::NEEDS_A_PERSON;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Where all brokers are: the one that is played answers for every Queue.
pub(crate) const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 77, 0, 1), 7400);
/// A class whose volumes cannot be larger than [`LIMIT`], though it says that they grow.
pub(crate) const LIMITED_CLASS: &str = "limited";
const LIMIT: u64 = 4 << 30;
/// A pod with this label has a broker that serves, and an application that does not.
pub(crate) const UNREADY: &str = "unready";
/// A pod that asks for such a node never runs.
pub(crate) const BROKEN: &str = "broken";

/// Runs pods.
pub(crate) async fn kubelet(client: &Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
    let run = async |pod: Result<Pod, watcher::Error>| {
        let Ok(pod) = pod else { return };
        let has_status = pod.status.as_ref().is_some_and(|status| status.conditions.is_some());
        if !has_status && pod.metadata.deletion_timestamp.is_none() {
            write(client, &pod, status(&pod)).await;
        }
    };
    changes.for_each(run).await;
}

/// A backup on such a claim goes on for ever; there is none to restore on the other.
pub(crate) const SLOW_CLAIM: &str = "slow";
pub(crate) const EMPTY_CLAIM: &str = "empty";

/// What a program that copies says when it ends; `None`: it goes on.
fn last_words(pod: &Pod) -> Option<(u8, &'static str)> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    let claim = volumes.iter().find_map(|volume| volume.persistent_volume_claim.as_ref())?;
    match claim.claim_name.as_str() {
        SLOW_CLAIM => None,
        EMPTY_CLAIM => Some((NEEDS_A_PERSON, r#"{"reason": "BackupMissing", "message": "there is none"}"#)),
        _ => Some((0, r#"{"messages": 3, "bytes": 9, "shards": [1, 2]}"#)),
    }
}

fn copied(pod: &Pod) -> Value {
    let conditions = json!([{"type": "Ready", "status": "False"}]);
    let Some((code, words)) = last_words(pod) else {
        return json!({"phase": "Running", "conditions": conditions});
    };
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let ended = json!({"exitCode": code, "message": words, "finishedAt": "2026-01-01T00:00:00Z"});
    let container = json!({
        "name": "program", "ready": false, "image": "", "imageID": "", "restartCount": 0, "state": {"terminated": ended},
    });
    json!({"phase": phase, "conditions": conditions, "containerStatuses": [container]})
}

fn status(pod: &Pod) -> Value {
    let component = pod.labels().get("app.kubernetes.io/component").map(String::as_str);
    if matches!(component, Some("backup" | "restore")) {
        return copied(pod);
    }
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let runs = selector.is_none_or(|selector| !selector.contains_key(BROKEN));
    let is_unready = pod.labels().contains_key(UNREADY);
    let phase = if runs { "Running" } else { "Pending" };
    let ready = if runs && !is_unready { "True" } else { "False" };
    let broker =
        json!({"name": BROKER_CONTAINER, "ready": runs, "image": "", "imageID": "", "restartCount": 0});
    let beside = if is_unready { json!([broker]) } else { Value::Null };
    // Long ago: nobody has to wait until a broker counts as settled.
    let ready = json!({"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let address = ADDRESS.ip();
    json!({
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [ready],
        "initContainerStatuses": beside,
    })
}

/// Binds claims, and grows volumes.
pub(crate) async fn storage(client: &Client) {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let changes = watcher(claims, watcher::Config::default()).default_backoff().applied_objects();
    let serve = async |claim: Result<PersistentVolumeClaim, watcher::Error>| {
        let Ok(claim) = claim else { return };
        if let Some(status) = volume(&claim) {
            write(client, &claim, status).await;
        }
    };
    changes.for_each(serve).await;
}

/// The status that a claim gets, if it is another than it has.
fn volume(claim: &PersistentVolumeClaim) -> Option<Value> {
    let spec = claim.spec.as_ref()?;
    let wanted = spec.resources.as_ref()?.requests.as_ref()?.get("storage")?;
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let infeasible = claim.status.as_ref().is_some_and(|status| status.allocated_resource_statuses.is_some());
    let bytes = parse_bytes(wanted).ok()?;
    if spec.storage_class_name.as_deref() == Some(LIMITED_CLASS) && bytes > LIMIT {
        let error = json!({"type": "ControllerResizeError", "status": "True", "message": "4Gi at most"});
        let state = json!({"storage": "ControllerResizeInfeasible"});
        return (!infeasible).then(|| json!({"allocatedResourceStatuses": state, "conditions": [error]}));
    }
    let has_it = has.is_some_and(|has| parse_bytes(has).is_ok_and(|has| has >= bytes));
    (!has_it || infeasible).then(|| {
        json!({
            "phase": "Bound",
            "capacity": {"storage": wanted},
            "allocatedResourceStatuses": null,
            "conditions": null,
        })
    })
}

/// It may be gone already.
async fn write<K>(client: &Client, object: &K, status: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"metadata": {"uid": object.uid()}, "status": status}));
    let _ = api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await;
}
