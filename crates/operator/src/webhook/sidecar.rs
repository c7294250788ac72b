//! The container that is inserted.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use ackwell_api::names::{self, AUDIENCE, AUTHORITIES_KEY, HTTP_PORT, SIDECAR_HTTP_PORT};
use ackwell_proto::QueueName;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, ContainerPort, EnvVar, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, Pod, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::socket;
use crate::restricted;
use crate::traces::{Traces, from_field};

/// Name of the container; a pod that has one is not touched again.
pub(crate) const CONTAINER: &str = "ackwell-sidecar";

/// What a sidecar takes when it is idle, and what schedulers and autoscalers count for it.
const REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "32Mi")];
/// Requests and limits where the pod is Guaranteed, which it stays only if they are equal: enough for a busy sidecar.
const GUARANTEED: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "64Mi")];

/// The application starts within a second of the sidecar ...
const STARTUP_PERIOD_SECONDS: i32 = 1;
/// ... which needs none itself, but may wait for its turn on a busy node.
const STARTUP_FAILURES: i32 = 30;

/// What the sidecar reads: whom to trust, and who it is itself. Application containers do not see it.
const VOLUME: &str = "ackwell";
const FOLDER: &str = "/var/run/ackwell";
const TOKEN: &str = "token";
const POD_NAME: &str = "POD_NAME";
/// Kubernetes replaces the token after four fifths of this.
const TOKEN_SECONDS: i64 = 3600;

/// What is inserted.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Image with `ackwelld`.
    pub image: String,
    /// `imagePullPolicy`; Kubernetes decides by the tag when absent.
    pub pull_policy: Option<String>,
    /// Absent: there are none.
    pub traces: Option<Traces>,
}

/// What one sidecar is for.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The pod's.
    pub(crate) namespace: &'a str,
    pub(crate) queues: &'a BTreeSet<QueueName>,
    pub(crate) has_socket: bool,
    /// The queue whose broker is in the same pod.
    pub(crate) beside: Option<&'a QueueName>,
}

impl Place<'_> {
    /// For health and metrics.
    fn http_port(&self) -> u16 {
        if self.beside.is_some() { SIDECAR_HTTP_PORT } else { HTTP_PORT }
    }
}

/// The sidecar for the rest of `pod`.
pub(crate) fn container(pod: &Pod, place: Place<'_>, options: &SidecarOptions) -> Container {
    let has_socket = place.has_socket;
    Container {
        name: CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: options.pull_policy.clone(),
        restart_policy: Some("Always".to_owned()),
        args: Some(arguments(place)),
        env: environment(place, options),
        ports: Some(vec![port(place.http_port())]),
        startup_probe: Some(startup_probe(place.http_port())),
        lifecycle: Some(lifecycle()),
        resources: pod.spec.as_ref().map(resources),
        security_context: Some(restricted::container()),
        volume_mounts: Some(iter::once(mount()).chain(has_socket.then(|| socket::mount(true))).collect()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn arguments(place: Place<'_>) -> Vec<String> {
    let Place { namespace, queues, has_socket, beside } = place;
    let name = |queue: &QueueName| {
        if queue.namespace() == namespace { queue.name().to_owned() } else { queue.to_string() }
    };
    let queues: Vec<_> = queues.iter().map(name).collect();
    let [authorities, token] = [AUTHORITIES_KEY, TOKEN].map(|file| format!("{FOLDER}/{file}"));
    let queues = queues.join(",");
    let reach = ["sidecar", "--namespace", namespace, "--queues", &queues];
    let prove = ["--broker-ca", &authorities, "--token-file", &token];
    let socket = if has_socket { &["--unix-socket", socket::PATH][..] } else { &[] };
    let arguments = reach.iter().chain(&prove).chain(socket).map(ToString::to_string);
    let own = beside.into_iter().flat_map(|own| {
        let shards = names::shards_service(own.name());
        let entry = format!("{own}=$({POD_NAME}).{shards}.{}.svc:{}", own.namespace(), names::GRPC_PORT);
        ["--entry".to_owned(), entry, "--http".to_owned(), format!("0.0.0.0:{}", place.http_port())]
    });
    arguments.chain(own).collect()
}

/// The pod's name is for the address of the broker in the same pod, too: that one is asked first, whether or not the pod is ready.
fn environment(place: Place<'_>, options: &SidecarOptions) -> Option<Vec<EnvVar>> {
    match &options.traces {
        Some(traces) => Some(traces.environment(place.namespace)),
        None => place.beside.map(|_| vec![from_field(POD_NAME, "metadata.name")]),
    }
}

/// What comes from outside, and changes while the pod runs: the authorities in a ConfigMap, and the pod's token. The pod waits
/// until they are there.
pub(crate) fn volume(config_map: &str) -> Volume {
    let authorities = ConfigMapProjection { name: config_map.to_owned(), ..ConfigMapProjection::default() };
    let token = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: TOKEN.to_owned(),
    };
    Volume {
        name: VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![
                VolumeProjection { config_map: Some(authorities), ..VolumeProjection::default() },
                VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
            ]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount() -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn port(number: u16) -> ContainerPort {
    ContainerPort {
        name: Some("ackwell-http".to_owned()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    }
}

/// The sidecar's own listener: it is up before the application, and never waits for brokers.
fn startup_probe(port: u16) -> Probe {
    let get = HTTPGetAction {
        path: Some("/readyz".to_owned()),
        port: IntOrString::Int(i32::from(port)),
        ..HTTPGetAction::default()
    };
    Probe {
        http_get: Some(get),
        period_seconds: Some(STARTUP_PERIOD_SECONDS),
        failure_threshold: Some(STARTUP_FAILURES),
        ..Probe::default()
    }
}

/// Runs when the pod begins to end, beside the SIGTERM of the application; its own SIGTERM comes after the application's
/// end. From then on the sidecar delivers nothing, and serves everything else.
fn lifecycle() -> Lifecycle {
    let command = ["/ackwelld", "drain"].map(str::to_owned);
    let exec = ExecAction { command: Some(command.into()) };
    let pre_stop = LifecycleHandler { exec: Some(exec), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() }
}

/// A pod with resources of its own has said what everything in it may take.
fn resources(spec: &PodSpec) -> ResourceRequirements {
    if spec.resources.is_some() {
        return ResourceRequirements::default();
    }
    let guaranteed = is_guaranteed(spec);
    ResourceRequirements {
        limits: guaranteed.then(|| quantities(GUARANTEED)),
        requests: Some(quantities(if guaranteed { GUARANTEED } else { REQUESTS })),
        ..ResourceRequirements::default()
    }
}

/// As Kubernetes decides it: every container has limits of both resources, and requests the same.
fn is_guaranteed(spec: &PodSpec) -> bool {
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.all(|container| {
        let quantity = |map: &Option<BTreeMap<_, _>>, name: &str| map.as_ref()?.get(name).cloned();
        let resources = container.resources.clone().unwrap_or_default();
        ["cpu", "memory"].iter().all(|name| {
            let limit = quantity(&resources.limits, name).filter(|limit| !is_zero(limit));
            limit.is_some_and(|limit| quantity(&resources.requests, name).is_none_or(|it| same(&it, &limit)))
        })
    })
}

fn is_zero(quantity: &Quantity) -> bool {
    quantity.0 == "0"
}

/// The API server has brought both to their shortest form; only powers of two and of ten stay apart.
fn same(one: &Quantity, other: &Quantity) -> bool {
    let bytes = ackwell_api::parse_bytes;
    one == other || bytes(one).ok().zip(bytes(other).ok()).is_some_and(|(one, other)| one == other)
}

fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Quantity(value.to_owned()))).collect()
}
