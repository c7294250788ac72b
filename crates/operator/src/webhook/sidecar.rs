//! The container that is inserted.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use ackwell_api::names::{AUDIENCE, AUTHORITIES, AUTHORITIES_KEY, HTTP_PORT};
use ackwell_proto::QueueName;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, Pod, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::socket;

/// Name of the container; a pod that has one is not touched again.
pub(super) const CONTAINER: &str = "ackwell-sidecar";

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
/// Kubernetes replaces the token after four fifths of this.
const TOKEN_SECONDS: i64 = 3600;

/// The user of our images.
const USER: i64 = 65532;

/// What is inserted.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Image with `ackwelld`.
    pub image: String,
    /// `imagePullPolicy`; Kubernetes decides by the tag when absent.
    pub pull_policy: Option<String>,
}

pub(super) fn container(
    pod: &Pod,
    namespace: &str,
    queues: &BTreeSet<QueueName>,
    has_socket: bool,
    options: &SidecarOptions,
) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: options.pull_policy.clone(),
        restart_policy: Some("Always".to_owned()),
        args: Some(arguments(namespace, queues, has_socket)),
        ports: Some(vec![port()]),
        startup_probe: Some(startup_probe()),
        lifecycle: Some(lifecycle()),
        resources: pod.spec.as_ref().map(resources),
        security_context: Some(security_context()),
        volume_mounts: Some(iter::once(mount()).chain(has_socket.then(|| socket::mount(true))).collect()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn arguments(namespace: &str, queues: &BTreeSet<QueueName>, has_socket: bool) -> Vec<String> {
    let name = |queue: &QueueName| {
        if queue.namespace() == namespace { queue.name().to_owned() } else { queue.to_string() }
    };
    let queues: Vec<_> = queues.iter().map(name).collect();
    let [authorities, token] = [AUTHORITIES_KEY, TOKEN].map(|file| format!("{FOLDER}/{file}"));
    let queues = queues.join(",");
    let reach = ["sidecar", "--namespace", namespace, "--queues", &queues];
    let prove = ["--broker-ca", &authorities, "--token-file", &token];
    let socket = if has_socket { &["--unix-socket", socket::PATH][..] } else { &[] };
    reach.iter().chain(&prove).chain(socket).map(ToString::to_string).collect()
}

/// What comes from outside, and changes while the pod runs. The pod waits until it is there.
pub(super) fn volume() -> Volume {
    let authorities = ConfigMapProjection { name: AUTHORITIES.to_owned(), ..ConfigMapProjection::default() };
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

fn port() -> ContainerPort {
    ContainerPort {
        name: Some("ackwell-http".to_owned()),
        container_port: i32::from(HTTP_PORT),
        ..ContainerPort::default()
    }
}

/// The sidecar's own listener: it is up before the application, and never waits for brokers.
fn startup_probe() -> Probe {
    let get = HTTPGetAction {
        path: Some("/readyz".to_owned()),
        port: IntOrString::Int(i32::from(HTTP_PORT)),
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

/// Passes the restricted Pod Security Standard, whatever the pod's own settings are.
fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(USER),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
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
