//! One Queue in a namespace of its own, with an operator.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use ackwell_api::names::PLACEMENT_ANNOTATION;
use ackwell_api::{Queue, QueueTask, QueueTaskStatus};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::broker;
use crate::faults::Faults;
use crate::operator::Operator;
use crate::plane::Plane;

/// Everything here takes a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Many worlds at once look at one API server.
const PAUSE: Duration = Duration::from_millis(300);
/// What differs from run to run, or tells of the way and not of its end.
const VOLATILE: [&str; 15] = [
    "uid",
    "resourceVersion",
    "generation",
    "observedGeneration",
    "creationTimestamp",
    "managedFields",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "time",
    "podIP",
    "podIPs",
    "collisionCount",
    "startTime",
    "completionTime",
];

/// A condition of a claim that its protector sets by what it has heard of pods so far: it may stay behind them.
const UNUSED: &str = "Unused";

/// A namespace, and who works in it.
pub(crate) struct World {
    pub(crate) namespace: String,
    pub(crate) faults: Faults,
    client: Client,
    operator: Option<Operator>,
}

impl World {
    /// With an operator; `name` is unique in the run.
    pub(crate) async fn new(name: &str, faults: Faults) -> Self {
        let client = Plane::get().client();
        let namespace = format!("{name}-{}", std::process::id());
        let object = Namespace {
            metadata: kube::api::ObjectMeta { name: Some(namespace.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let operator = Some(Operator::start(&namespace, &faults));
        Self { namespace, faults, client, operator }
    }

    /// The operator dies.
    pub(crate) fn kill_operator(&mut self) {
        self.operator = None;
    }

    /// Another operator begins.
    pub(crate) fn start_operator(&mut self, faults: Faults) {
        self.operator = Some(Operator::start(&self.namespace, &faults));
        self.faults = faults;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes the Queue `orders`, or changes its spec.
    pub(crate) async fn change(&self, spec: &Value) -> kube::Result<Queue> {
        let queues = self.api::<Queue>();
        let manifest = json!({
            "apiVersion": "ackwell.dev/v1alpha1",
            "kind": "Queue",
            "metadata": {"name": "orders"},
            "spec": spec,
        });
        match queues.get_metadata_opt("orders").await? {
            Some(_) => queues.patch("orders", &PatchParams::default(), &Patch::Merge(manifest)).await,
            None => queues.patch("orders", &PatchParams::apply("test"), &Patch::Apply(manifest)).await,
        }
    }

    /// Makes a `QueueTask`, or changes its spec.
    pub(crate) async fn order(&self, name: &str, spec: &Value) -> kube::Result<QueueTask> {
        let manifest = json!({
            "apiVersion": "ackwell.dev/v1alpha1",
            "kind": "QueueTask",
            "metadata": {"name": name},
            "spec": spec,
        });
        let tasks = self.api::<QueueTask>();
        if tasks.get_metadata_opt(name).await?.is_some() {
            return tasks.patch(name, &PatchParams::default(), &Patch::Merge(manifest)).await;
        }
        let field_validation = Some(ValidationDirective::Strict);
        let parameters = PatchParams { field_validation, ..PatchParams::apply("test") };
        tasks.patch(name, &parameters, &Patch::Apply(manifest)).await
    }

    /// Waits until a `QueueTask` is over.
    pub(crate) async fn until_over(&self, name: &str) -> QueueTaskStatus {
        until(&format!("{}: {name} to be over", self.namespace), async || {
            let status = self.api::<QueueTask>().get(name).await.unwrap().status.unwrap_or_default();
            if status.state.is_final() { Ok(status) } else { Err(status) }
        })
        .await
    }

    pub(crate) async fn annotate(&self, name: &str, value: Option<&str>) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {name: value}}}));
        self.api::<Queue>().patch("orders", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn delete(&self) {
        self.api::<Queue>().delete("orders", &DeleteParams::background()).await.unwrap();
    }

    pub(crate) async fn queue(&self) -> Queue {
        self.api::<Queue>().get("orders").await.unwrap()
    }

    /// `Status/Reason` of a condition, if it is about the newest spec.
    pub(crate) async fn condition(&self, type_: &str) -> String {
        let queue = self.queue().await;
        let status = queue.status.clone().unwrap_or_default();
        if status.observed_generation != queue.metadata.generation {
            return "old".to_owned();
        }
        let found = status.conditions.iter().find(|one| one.type_ == type_);
        found.map_or_else(String::new, |one| format!("{}/{}", one.status, one.reason))
    }

    /// Waits for a condition like `True/AllShardsReady`.
    pub(crate) async fn until_condition(&self, type_: &str, wanted: &str) {
        until(&format!("{}: {type_} to be {wanted}", self.namespace), async || {
            let is = self.condition(type_).await;
            if is == wanted { Ok(()) } else { Err(is) }
        })
        .await;
    }

    /// Waits until the operator has nothing left to do for the newest spec.
    pub(crate) async fn until_settled(&self) {
        until(&format!("{} to settle", self.namespace), async || {
            let (ready, reconciling) = (self.condition("Ready").await, self.condition("Reconciling").await);
            let settled = ["True/AllShardsReady", "False/Suspended"].contains(&ready.as_str());
            if settled && reconciling.starts_with("False/") { Ok(()) } else { Err((ready, reconciling)) }
        })
        .await;
    }

    /// Uids by name.
    pub(crate) async fn uids<K>(&self) -> BTreeMap<String, String>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + serde::de::DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.unwrap();
        list.iter().map(|object| (object.name_any(), object.uid().unwrap())).collect()
    }

    /// Everything there is, without what differs from run to run.
    pub(crate) async fn state(&self) -> Value {
        let kinds = [
            ApiResource::erase::<Queue>(&()),
            ApiResource::erase::<QueueTask>(&()),
            ApiResource::erase::<ServiceAccount>(&()),
            ApiResource::erase::<ConfigMap>(&()),
            ApiResource::erase::<Service>(&()),
            ApiResource::erase::<NetworkPolicy>(&()),
            ApiResource::erase::<PodDisruptionBudget>(&()),
            ApiResource::erase::<StatefulSet>(&()),
            ApiResource::erase::<PersistentVolumeClaim>(&()),
            ApiResource::erase::<Pod>(&()),
        ];
        let mut state = BTreeMap::new();
        for kind in kinds {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
            for object in api.list(&ListParams::default()).await.unwrap() {
                state.insert(
                    format!("{}/{}", kind.kind, object.name_any()),
                    lasting(&object, &self.namespace),
                );
            }
        }
        json!(state)
    }

    /// No placement meant two things.
    pub(crate) fn assert_consistent(&self) {
        let contradictions = broker::contradictions(&self.namespace);
        assert!(contradictions.is_empty(), "{}: {contradictions:?}", self.namespace);
    }

    /// The same, once it does not change any more.
    pub(crate) async fn final_state(&self) -> Value {
        let mut last = self.state().await;
        until(&format!("{} to stand still", self.namespace), async || {
            sleep(PAUSE * 4).await;
            let now = self.state().await;
            if std::mem::replace(&mut last, now.clone()) == now { Ok(now) } else { Err("it changes") }
        })
        .await
    }
}

fn lasting(object: &DynamicObject, namespace: &str) -> Value {
    let text = serde_json::to_string(object).unwrap().replace(namespace, "NAMESPACE");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    strip(&mut value);
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(note)) = fields.get_mut(PLACEMENT_ANNOTATION) {
                // Its generation begins with the time when the Queue was made.
                *note = note.split_once('/').map(|(_, shards)| shards.to_owned()).unwrap_or_default();
            }
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => {
            items.retain(|item| item["type"] != UNUSED);
            items.iter_mut().for_each(strip);
        }
        // Each operator has an authority of its own.
        Value::String(text) if text.starts_with("-----BEGIN CERTIFICATE-----") => text.clear(),
        // By which the program of a backup knows its own.
        Value::String(text) if text.starts_with("--task=") => text.clear(),
        // The cold-start file of the brokers.
        Value::String(text) if text.starts_with("{\n") => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                strip(&mut inner);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

/// Looks until it is so.
pub(crate) async fn until<T, E: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}; last: {last:?}"),
        }
        sleep(PAUSE).await;
    }
}
