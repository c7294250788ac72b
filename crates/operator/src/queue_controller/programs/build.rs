//! The pod of a copy, and its certificate. Pure.

use std::collections::BTreeMap;

use ackwell_api::names;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, KeyToPath, PersistentVolumeClaimVolumeSource, Pod, PodSpec,
    ResourceRequirements, Secret, SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Kind, Program};
use crate::certificates::SecretData;
use crate::queue_controller::BrokerImage;
use crate::restricted;

const CERTIFICATE_FOLDER: &str = "/etc/ackwell-tls";
const AUTHORITIES_FOLDER: &str = "/etc/ackwell";
const BACKUP_FOLDER: &str = "/backup";
/// Where the kubelet takes a container's last words from.
const REPORT: &str = "/dev/termination-log";
/// The group of the pod may read it, nobody else.
const CERTIFICATE_MODE: i32 = 0o440;
/// It can be killed at any time.
const GRACE_SECONDS: i64 = 1;
/// A page and its copies: 1 MiB of bodies, or one body of 16 MiB.
const MEMORY: [&str; 2] = ["64Mi", "256Mi"];
const CPU: &str = "100m";

pub(super) fn secret(program: &Program<'_>, data: SecretData) -> Secret {
    Secret {
        metadata: metadata(program),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

pub(super) fn pod(program: &Program<'_>, image: &BrokerImage) -> Pod {
    let scheduling = &program.queue.spec.scheduling;
    let spec = PodSpec {
        service_account_name: Some(names::child(&program.queue.name_any())),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(restricted::pod()),
        containers: vec![container(program, image)],
        volumes: Some(volumes(program)),
        node_selector: Some(scheduling.node_selector.clone()),
        tolerations: Some(scheduling.tolerations.clone()),
        priority_class_name: scheduling.priority_class_name.clone(),
        image_pull_secrets: Some(scheduling.image_pull_secrets.clone()),
        ..PodSpec::default()
    };
    Pod { metadata: metadata(program), spec: Some(spec), ..Pod::default() }
}

fn metadata(program: &Program<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(program.name()),
        namespace: Some(program.namespace()),
        labels: Some(names::program_labels(&program.queue.name_any(), program.kind.word())),
        owner_references: Some(vec![program.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn container(program: &Program<'_>, image: &BrokerImage) -> Container {
    let quantities = |pairs: &[(&str, &str)]| {
        let quantity = |(name, value): &(&str, &str)| ((*name).to_owned(), Quantity((*value).to_owned()));
        Some(pairs.iter().map(quantity).collect::<BTreeMap<_, _>>())
    };
    Container {
        name: program.kind.word().to_owned(),
        image: Some(image.image.clone()),
        image_pull_policy: image.pull_policy.clone(),
        termination_message_path: Some(REPORT.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        args: Some(arguments(program)),
        resources: Some(ResourceRequirements {
            requests: quantities(&[("cpu", CPU), ("memory", MEMORY[0])]),
            limits: quantities(&[("memory", MEMORY[1])]),
            ..ResourceRequirements::default()
        }),
        security_context: Some(restricted::container()),
        volume_mounts: Some(vec![
            mount("tls", CERTIFICATE_FOLDER, true),
            mount("authorities", AUTHORITIES_FOLDER, true),
            mount("backup", BACKUP_FOLDER, program.kind == Kind::Restore),
        ]),
        ..Container::default()
    }
}

fn arguments(program: &Program<'_>) -> Vec<String> {
    let (namespace, queue) = (program.namespace(), program.queue.name_any());
    let folder = format!("{BACKUP_FOLDER}/{}", program.place.path);
    let mut arguments = vec![program.kind.word().to_owned(), format!("--queue={namespace}/{queue}")];
    arguments.extend(
        (0..program.shards)
            .map(|ordinal| format!("--shard={}", names::shard_address(&namespace, &queue, ordinal))),
    );
    arguments.extend([
        format!("--tls-cert={CERTIFICATE_FOLDER}/tls.crt"),
        format!("--tls-key={CERTIFICATE_FOLDER}/tls.key"),
        format!("--broker-ca={AUTHORITIES_FOLDER}/{}", names::AUTHORITIES_KEY),
        format!("--report={REPORT}"),
    ]);
    match program.kind {
        Kind::Backup => {
            arguments.extend([format!("--task={}", program.owner.uid), format!("--to={folder}")]);
        }
        Kind::Restore => arguments.push(format!("--from={folder}")),
    }
    arguments
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(program: &Program<'_>) -> Vec<Volume> {
    let certificate = SecretVolumeSource {
        secret_name: Some(program.name()),
        default_mode: Some(CERTIFICATE_MODE),
        ..SecretVolumeSource::default()
    };
    // Of the broker's own, without its settings.
    let key = names::AUTHORITIES_KEY.to_owned();
    let authorities = ConfigMapVolumeSource {
        name: names::child(&program.queue.name_any()),
        items: Some(vec![KeyToPath { path: key.clone(), key, ..KeyToPath::default() }]),
        ..ConfigMapVolumeSource::default()
    };
    let backup = PersistentVolumeClaimVolumeSource {
        claim_name: program.place.claim_name.clone(),
        read_only: (program.kind == Kind::Restore).then_some(true),
    };
    vec![
        Volume { name: "tls".to_owned(), secret: Some(certificate), ..Volume::default() },
        Volume { name: "authorities".to_owned(), config_map: Some(authorities), ..Volume::default() },
        Volume { name: "backup".to_owned(), persistent_volume_claim: Some(backup), ..Volume::default() },
    ]
}
