//! A broker's pod. It carries nothing of the settings that are pushed, so that changing them restarts nothing.

mod embedded;

use ackwell_api::{Encryption, Scheduling, names};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, PodAffinityTerm,
    PodAntiAffinity, PodSpec, Probe, SecretVolumeSource, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BrokerImage, Plan};
use crate::restricted;
use crate::traces::from_field;

const CONFIG_FOLDER: &str = "/etc/ackwell";
const CONFIG_VOLUME: &str = "ackwell-config";
const CERTIFICATE_FOLDER: &str = "/etc/ackwell-tls";
const CERTIFICATE_VOLUME: &str = "ackwell-tls";
/// The group of the pod may read it, nobody else.
const CERTIFICATE_MODE: i32 = 0o440;
/// Kubernetes puts it on the pods of a StatefulSet.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const KEYS_FOLDER: &str = "/etc/ackwell-keys";
const KEYS_VOLUME: &str = "ackwell-keys";
const DATA_FOLDER: &str = "/var/lib/ackwell";
/// A broker that was killed checks its store before it answers; a large one takes minutes.
const STARTUP_SECONDS: i32 = 600;
/// Weight among the scheduler's preferences: the highest.
const SPREAD_WEIGHT: i32 = 100;

pub(super) fn build(plan: &Plan, image: &BrokerImage) -> PodSpec {
    match plan.queue.template() {
        None => alone(plan, image),
        Some(template) => embedded::build(plan, image, &template.spec),
    }
}

fn alone(plan: &Plan, image: &BrokerImage) -> PodSpec {
    let queue = plan.queue.name().name();
    PodSpec {
        service_account_name: Some(names::child(queue)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(restricted::pod()),
        containers: vec![container(plan, image)],
        volumes: Some(volumes(plan)),
        ..of_queue(plan)
    }
}

/// What the spec of the Queue says about its pods, whatever is in them.
fn of_queue(plan: &Plan) -> PodSpec {
    let (spec, queue) = (plan.queue.spec(), plan.queue.name().name());
    let scheduling = &spec.scheduling;
    let Scheduling { node_selector, tolerations, topology_spread_constraints, image_pull_secrets, .. } =
        scheduling;
    PodSpec {
        termination_grace_period_seconds: Some(i64::from(spec.termination_grace_period_seconds)),
        affinity: Some(scheduling.affinity.clone().unwrap_or_else(|| different_nodes(queue))),
        node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
        tolerations: some(tolerations),
        topology_spread_constraints: some(topology_spread_constraints),
        priority_class_name: scheduling.priority_class_name.clone(),
        image_pull_secrets: some(image_pull_secrets),
        ..PodSpec::default()
    }
}

/// Server-side apply tells an empty list from an absent one.
fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn different_nodes(queue: &str) -> Affinity {
    let selector =
        LabelSelector { match_labels: Some(names::selector_labels(queue)), ..LabelSelector::default() };
    let term = PodAffinityTerm {
        label_selector: Some(selector),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let preferred = vec![WeightedPodAffinityTerm { weight: SPREAD_WEIGHT, pod_affinity_term: term }];
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(preferred),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn container(plan: &Plan, image: &BrokerImage) -> Container {
    let config = format!("{CONFIG_FOLDER}/{}", names::CONFIG_KEY);
    let [certificate, key] = ["tls.crt", "tls.key"].map(|file| format!("{CERTIFICATE_FOLDER}/{file}"));
    // Loopback is how `kubectl port-forward` arrives, under the protection of the API server's own TLS.
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--plain-loopback"];
    let authorities = format!("{CONFIG_FOLDER}/{}", names::AUTHORITIES_KEY);
    let args = ["broker", "--config", &config, "--data", DATA_FOLDER, "--broker-ca", &authorities];
    let keys = plan.queue.spec().encryption.iter().flat_map(|_| ["--encryption-keys", KEYS_FOLDER]);
    let args = args.into_iter().chain(tls).chain(keys);
    Container {
        name: names::BROKER_CONTAINER.to_owned(),
        image: Some(image.image.clone()),
        image_pull_policy: image.pull_policy.clone(),
        // The status shows why a broker crashes, without a look at its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        args: Some(args.map(str::to_owned).collect()),
        env: Some(environment(plan, image)),
        ports: Some(vec![port("grpc", names::GRPC_PORT), port("http", names::HTTP_PORT)]),
        resources: Some(plan.queue.spec().resources.clone()),
        security_context: Some(restricted::container()),
        startup_probe: Some(probe("/livez", 1, STARTUP_SECONDS)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        volume_mounts: Some(mounts(plan)),
        ..Container::default()
    }
}

fn environment(plan: &Plan, image: &BrokerImage) -> Vec<EnvVar> {
    // Which shard the broker is.
    let ordinal = from_field("ACKWELL_ORDINAL", &format!("metadata.labels['{POD_INDEX}']"));
    let traces = image.traces.iter().flat_map(|traces| traces.environment(plan.queue.name().namespace()));
    std::iter::once(ordinal).chain(traces).collect()
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// What a broker mounts besides its data.
fn volumes(plan: &Plan) -> Vec<Volume> {
    let queue = plan.queue.name().name();
    let keys = plan.queue.spec().encryption.iter().map(keys_volume);
    [config_volume(queue), certificate_volume(queue)].into_iter().chain(keys).collect()
}

fn mounts(plan: &Plan) -> Vec<VolumeMount> {
    let keys = plan.queue.spec().encryption.iter().map(|_| keys_mount());
    [config_mount(), certificate_mount(), data_mount()].into_iter().chain(keys).collect()
}

/// A pod without the Secret would never start, and nobody would say which key is needed: the broker does.
fn keys_volume(encryption: &Encryption) -> Volume {
    Volume {
        name: KEYS_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(encryption.secret_name.clone()),
            default_mode: Some(CERTIFICATE_MODE),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn keys_mount() -> VolumeMount {
    VolumeMount {
        name: KEYS_VOLUME.to_owned(),
        mount_path: KEYS_FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn config_volume(queue: &str) -> Volume {
    Volume {
        name: CONFIG_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::child(queue),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn certificate_volume(queue: &str) -> Volume {
    Volume {
        name: CERTIFICATE_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::certificate(queue)),
            default_mode: Some(CERTIFICATE_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn certificate_mount() -> VolumeMount {
    VolumeMount {
        name: CERTIFICATE_VOLUME.to_owned(),
        mount_path: CERTIFICATE_FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn config_mount() -> VolumeMount {
    VolumeMount {
        name: CONFIG_VOLUME.to_owned(),
        mount_path: CONFIG_FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn data_mount() -> VolumeMount {
    VolumeMount {
        name: names::DATA_VOLUME.to_owned(),
        mount_path: DATA_FOLDER.to_owned(),
        ..VolumeMount::default()
    }
}
