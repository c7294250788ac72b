//! What the cluster looks like around Queues, kept current by watches. Each change makes its Queue be visited.

use std::fmt::Debug;

use ackwell_api::Queue;
use ackwell_api::names::{self, QUEUE_LABEL};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::QueueRef;

/// Everything that carries the labels of a broker.
const OURS: &str = "ackwell.dev/queue,app.kubernetes.io/name=ackwell,app.kubernetes.io/component=broker";
/// Complaints of the StatefulSet controller: a quota or a policy refuses pods.
const STATEFUL_SET_WARNINGS: &str = "involvedObject.kind=StatefulSet,type=Warning";
/// Complaints of volume provisioners.
const CLAIM_WARNINGS: &str = "involvedObject.kind=PersistentVolumeClaim,type=Warning";

/// The caches of one namespace, or of all.
pub(crate) struct Caches {
    pub(super) service_accounts: Store<ServiceAccount>,
    pub(super) config_maps: Store<ConfigMap>,
    pub(super) services: Store<Service>,
    pub(super) network_policies: Store<NetworkPolicy>,
    pub(super) disruption_budgets: Store<PodDisruptionBudget>,
    pub(super) stateful_sets: Store<StatefulSet>,
    pub(super) pods: Store<Pod>,
    pub(super) claims: Store<PersistentVolumeClaim>,
    /// Of the whole cluster: there are few, and they hardly change.
    pub(super) classes: Store<StorageClass>,
    pub(super) stateful_set_warnings: Store<Event>,
    pub(super) claim_warnings: Store<Event>,
    _watches: Vec<AbortOnDropHandle<()>>,
}

/// Starts watches, one after the other.
struct Starter<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    visit: &'a mpsc::Sender<QueueRef>,
    watches: Vec<AbortOnDropHandle<()>>,
}

impl Caches {
    /// Starts the watches of `namespace`, or of all namespaces; each change sends its Queue to `visit`.
    pub(crate) fn start(client: &Client, namespace: Option<&str>, visit: &mpsc::Sender<QueueRef>) -> Self {
        let mut starter = Starter { client, namespace, visit, watches: Vec::new() };
        Self {
            service_accounts: starter.ours(),
            config_maps: starter.ours(),
            services: starter.ours(),
            network_policies: starter.ours(),
            disruption_budgets: starter.ours(),
            stateful_sets: starter.ours(),
            pods: starter.ours(),
            claims: starter.ours(),
            classes: starter.classes(),
            stateful_set_warnings: starter.warnings(STATEFUL_SET_WARNINGS, names::queue_of_child),
            claim_warnings: starter.warnings(CLAIM_WARNINGS, names::queue_of_claim),
            _watches: starter.watches,
        }
    }

    /// Waits until every cache has been filled once; `false` when a watch ended before.
    pub(crate) async fn ready(&self) -> bool {
        let ready = tokio::join!(
            self.service_accounts.wait_until_ready(),
            self.config_maps.wait_until_ready(),
            self.services.wait_until_ready(),
            self.network_policies.wait_until_ready(),
            self.disruption_budgets.wait_until_ready(),
            self.stateful_sets.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.claims.wait_until_ready(),
            self.classes.wait_until_ready(),
            self.stateful_set_warnings.wait_until_ready(),
            self.claim_warnings.wait_until_ready(),
        );
        <[_; 11]>::from(ready).iter().all(Result::is_ok)
    }
}

impl Starter<'_> {
    /// Objects with our labels.
    fn ours<K>(&mut self) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.watch(watcher::Config::default().labels(OURS), |object: &K| {
            let owner = object.owner_references().iter().find(|owner| owner.kind == Queue::kind(&()));
            // Pods and volume claims belong to the StatefulSet; the label of the others may have been changed by hand.
            let queue = owner.map(|owner| &owner.name).or_else(|| object.labels().get(QUEUE_LABEL))?;
            Some(QueueRef::new(queue).within(&object.namespace()?))
        })
    }

    /// Events about objects that are named like ours; `queue_of` reads the Queue from such a name.
    fn warnings(&mut self, fields: &str, queue_of: fn(&str) -> Option<&str>) -> Store<Event> {
        self.watch(watcher::Config::default().fields(fields), move |event: &Event| {
            let queue = queue_of(event.involved_object.name.as_deref()?)?;
            Some(QueueRef::new(queue).within(event.involved_object.namespace.as_deref()?))
        })
    }

    fn watch<K>(
        &mut self,
        config: watcher::Config,
        queue: impl Fn(&K) -> Option<QueueRef> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        self.watch_all_of(api, config, queue)
    }

    /// Whoever waits for a class to change looks again by itself.
    fn classes(&mut self) -> Store<StorageClass> {
        let api = Api::all(self.client.clone());
        self.watch_all_of(api, watcher::Config::default(), |_: &StorageClass| None)
    }

    fn watch_all_of<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        queue: impl Fn(&K) -> Option<QueueRef> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (reader, writer) = store();
        let visit = self.visit.clone();
        let changes = watcher(api, config)
            .default_backoff()
            .modify(|object: &mut K| object.managed_fields_mut().clear())
            .reflect(writer)
            .touched_objects();
        let forward = async move {
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                match change.as_ref().map(&queue) {
                    Ok(Some(queue)) => drop(visit.send(queue).await),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, kind = %K::kind(&()), "watch interrupted"),
                }
            }
        };
        self.watches.push(AbortOnDropHandle::new(tokio::spawn(forward)));
        reader
    }
}
