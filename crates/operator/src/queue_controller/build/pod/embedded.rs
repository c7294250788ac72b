//! A pod of an Embedded Queue: the application of the template, and as native sidecars the broker and the sidecar by which the
//! application reaches all shards.
//!
//! Both are first among the init containers: Kubernetes starts these in order, and before all others, and ends them last, in the
//! other order. The broker listens on the address of the pod, for everybody; the sidecar on loopback, for the application.

use ackwell_api::names;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, Volume};

use super::{BrokerImage, Plan, container, of_queue, volumes};
use crate::restricted::USER;
use crate::traces::from_field;
use crate::webhook::{Place, SidecarOptions, sidecar_container, sidecar_volume, tell_address};

/// A native sidecar is an init container that is always restarted.
const NATIVE_SIDECAR: &str = "Always";
const POD_IP: &str = "POD_IP";

pub(super) fn build(plan: &Plan, image: &BrokerImage, template: &PodSpec) -> PodSpec {
    let queue = plan.queue.name().name();
    let mut spec = placed(plan, template);
    // The older name of the field means the same.
    let named = template.service_account_name.clone().or(spec.service_account.take());
    spec.service_account_name = named.or(Some(names::child(queue)));
    spec.automount_service_account_token = template.automount_service_account_token.or(Some(false));
    spec.enable_service_links = template.enable_service_links.or(Some(false));
    spec.security_context = Some(security(template));
    spec.containers.iter_mut().for_each(tell_address);
    let mut init_containers = spec.init_containers.take().unwrap_or_default();
    init_containers.iter_mut().for_each(tell_address);
    init_containers.insert(0, broker(plan, image));
    spec.init_containers = Some(init_containers);
    let sidecar = sidecar(plan, image, &spec);
    spec.init_containers.get_or_insert_default().insert(1, sidecar);
    spec.volumes.get_or_insert_default().splice(0..0, own_volumes(plan));
    spec
}

/// The template, where and for how long the spec of the Queue says.
fn placed(plan: &Plan, template: &PodSpec) -> PodSpec {
    let of_queue = of_queue(plan);
    PodSpec {
        affinity: of_queue.affinity,
        node_selector: of_queue.node_selector,
        tolerations: of_queue.tolerations,
        topology_spread_constraints: of_queue.topology_spread_constraints,
        priority_class_name: of_queue.priority_class_name,
        image_pull_secrets: of_queue.image_pull_secrets,
        termination_grace_period_seconds: of_queue.termination_grace_period_seconds,
        ..template.clone()
    }
}

/// The group of the volumes is the application's, if it has one: the broker then has it, too.
fn security(template: &PodSpec) -> PodSecurityContext {
    let mut security = template.security_context.clone().unwrap_or_default();
    security.fs_group.get_or_insert(USER);
    security.fs_group_change_policy.get_or_insert_with(|| "OnRootMismatch".to_owned());
    security
}

fn broker(plan: &Plan, image: &BrokerImage) -> Container {
    let mut broker = container(plan, image);
    broker.restart_policy = Some(NATIVE_SIDECAR.to_owned());
    let listen = format!("--listen=$({POD_IP}):{}", names::GRPC_PORT);
    broker.args.get_or_insert_default().push(listen);
    broker.env.get_or_insert_default().push(from_field(POD_IP, "status.podIP"));
    broker
}

/// Of the broker's image, so that both change together.
fn sidecar(plan: &Plan, image: &BrokerImage, spec: &PodSpec) -> Container {
    let own = plan.queue.name();
    let mut queues = plan.other_queues.clone();
    queues.insert(own.clone());
    let place = Place { namespace: own.namespace(), queues: &queues, has_socket: false, beside: Some(own) };
    let BrokerImage { image, pull_policy, traces } = image.clone();
    let pod = Pod { spec: Some(spec.clone()), ..Pod::default() };
    sidecar_container(&pod, place, &SidecarOptions { image, pull_policy, traces })
}

fn own_volumes(plan: &Plan) -> Vec<Volume> {
    let mut volumes = volumes(plan);
    // The authorities are in it as well, whether or not there are other pods with sidecars.
    volumes.push(sidecar_volume(&names::child(plan.queue.name().name())));
    volumes
}
