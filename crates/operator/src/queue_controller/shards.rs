//! Links to the brokers of every Queue: settings go out, counts come in. An unreachable broker only shows in the status.

mod link;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ackwell_api::names;
use ackwell_proto::v1::{Moving, QueueConfig, RunTaskRequest, RunTaskResponse, StatsResponse};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::link::Peer;
use super::QueueRef;
use super::dereference::Observed;
use super::validate::Plan;
use crate::certificates::broker::Authority;

/// What is known of one shard that Kubernetes calls ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ShardView {
    pub(super) ordinal: u32,
    /// Uid of its pod.
    pub(super) pod: String,
    /// The generation the broker confirmed last.
    pub(super) generation: Option<u64>,
    /// How it gets on with its placement.
    pub(super) moving: Option<Moving>,
    /// Its newest counts.
    pub(super) stats: Option<StatsResponse>,
    /// Why it cannot be reached, once that has lasted.
    pub(super) unreachable: Option<String>,
}

struct Link {
    ordinal: u32,
    peer: Arc<Peer>,
    config: watch::Sender<QueueConfig>,
    view: watch::Receiver<ShardView>,
    _task: AbortOnDropHandle<()>,
}

/// All links of this operator.
pub(crate) struct Shards {
    /// By Queue, and by the pod's uid: a new pod of the same name is another process.
    links: Mutex<HashMap<QueueRef, BTreeMap<String, Link>>>,
    visit: mpsc::Sender<QueueRef>,
    authority: Authority,
    token: PathBuf,
}

impl Shards {
    /// News of a shard sends its Queue to `visit`; brokers have to show a certificate of `authority`, and
    /// are shown the token in the file `token`.
    pub(crate) fn new(visit: mpsc::Sender<QueueRef>, authority: Authority, token: PathBuf) -> Self {
        Self { links: Mutex::default(), visit, authority, token }
    }

    /// Keeps exactly one link to each broker that serves, and tells all of them the current settings.
    pub(super) fn sync(&self, plan: &Plan, observed: &Observed) {
        let (config, queue) = (&plan.config(), &plan.queue);
        let key = QueueRef::new(queue.name().name()).within(queue.name().namespace());
        let mut all = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let links = all.entry(key.clone()).or_default();
        let serving: BTreeMap<String, (u32, SocketAddr)> =
            observed.pods.iter().filter_map(serving_pod).collect();
        links.retain(|uid, link| serving.get(uid).is_some_and(|(_, address)| *address == link.peer.address));
        for (uid, (ordinal, address)) in serving {
            let link = links
                .entry(uid)
                .or_insert_with_key(|pod| self.connect(&key, (ordinal, pod), address, config));
            link.config.send_if_modified(|old| std::mem::replace(old, config.clone()) != *config);
        }
    }

    /// What is known of the ready shards of a Queue.
    pub(super) fn views(&self, queue: &QueueRef) -> Vec<ShardView> {
        let all = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(queue).into_iter().flat_map(BTreeMap::values).map(|link| link.view.borrow().clone()).collect()
    }

    /// Has the broker of a shard do a part of a task; the error says why it did not answer.
    pub(super) async fn run_task(
        &self,
        queue: &QueueRef,
        ordinal: u32,
        request: RunTaskRequest,
    ) -> Result<RunTaskResponse, String> {
        let peer = self.peer(queue, ordinal).ok_or_else(|| format!("shard {ordinal} does not serve"))?;
        link::run_task(&peer, request).await.map_err(|error| format!("shard {ordinal}: {error}"))
    }

    fn peer(&self, queue: &QueueRef, ordinal: u32) -> Option<Arc<Peer>> {
        let all = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = all.get(queue)?.values().find(|link| link.ordinal == ordinal)?;
        Some(Arc::clone(&link.peer))
    }

    /// Ends the links of a Queue that is gone.
    pub(super) fn forget(&self, queue: &QueueRef) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    fn connect(
        &self,
        queue: &QueueRef,
        (ordinal, pod): (u32, &str),
        address: SocketAddr,
        config: &QueueConfig,
    ) -> Link {
        let (config, configs) = watch::channel(config.clone());
        let (views, view) =
            watch::channel(ShardView { ordinal, pod: pod.to_owned(), ..ShardView::default() });
        let name = names::server_name(queue.namespace.as_deref().unwrap_or_default(), &queue.name, ordinal);
        let peer = Peer { address, name, authority: self.authority.clone(), token: self.token.clone() };
        let peer = Arc::new(peer);
        let task = link::run(Arc::clone(&peer), configs, views, self.visit.clone(), queue.clone());
        Link { ordinal, peer, config, view, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

fn serving_pod((ordinal, pod): &(u32, Arc<Pod>)) -> Option<(String, (u32, SocketAddr))> {
    let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    serves(pod).then_some((pod.uid()?, (*ordinal, SocketAddr::new(address, names::GRPC_PORT))))
}

/// Whether the broker in `pod` is ready, whatever an application beside it is.
pub(super) fn serves(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref());
    let broker =
        statuses.unwrap_or_default().iter().find(|container| container.name == names::BROKER_CONTAINER);
    let is_up = |broker: &ContainerStatus| {
        broker.ready && !is_cut_off(pod) && pod.metadata.deletion_timestamp.is_none()
    };
    broker.map_or_else(|| is_ready(pod), is_up)
}

/// Whether the node of `pod` is not heard of: its containers are then what they last were, and it is not ready all the same.
fn is_cut_off(pod: &Pod) -> bool {
    let is = |type_, status| condition(pod, type_).is_some_and(|condition| condition.status == status);
    is("Ready", "False") && is("ContainersReady", "True")
}

/// Whether all in `pod` is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let ready = condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Since when it is ready, or not.
pub(super) fn ready_since(pod: &Pod) -> Option<&Time> {
    condition(pod, "Ready")?.last_transition_time.as_ref()
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == type_)
}
