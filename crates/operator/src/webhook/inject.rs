//! What happens to a pod: a JSON patch, computed from the pod alone.

use std::collections::BTreeSet;

use ackwell_api::names::{AUTHORITIES, GRPC_PORT, HTTP_PORT};
use ackwell_proto::QueueName;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};
use serde_json::{Value, json};

use super::sidecar::{self, CONTAINER, Place, SidecarOptions};
use super::socket;

/// Where applications find their sidecar.
const ADDRESS_VARIABLE: &str = "ACKWELL_ADDRESS";

/// Inserts the sidecar before all other containers, and its address into each of them. Applied again it changes nothing,
/// except that containers which others added meanwhile get the address too.
pub fn inject(
    pod: &Pod,
    namespace: &str,
    queues: &BTreeSet<QueueName>,
    wants_socket: bool,
    options: &SidecarOptions,
) -> Vec<PatchOperation> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    // Who brings the sidecar themselves has it listen where they want.
    let has_socket = wants_socket && (!has_sidecar(spec) || socket::has_volume(spec));
    let mut patch = Vec::new();
    for (field, containers) in
        [("containers", spec.containers.as_slice()), ("initContainers", init_containers)]
    {
        patch.extend(addresses(field, containers, has_socket));
        if has_socket {
            patch.extend(mounts(field, containers));
        }
    }
    // Last: it moves the init containers.
    if !has_sidecar(spec) {
        let place = Place { namespace, queues, has_socket, beside: None };
        let sidecar = json!(sidecar::container(pod, place, options));
        patch.push(insert(&["spec", "initContainers"], init_containers.is_empty(), sidecar));
        let no_volumes = spec.volumes.as_ref().is_none_or(Vec::is_empty);
        patch.push(insert(&["spec", "volumes"], no_volumes, json!(sidecar::volume(AUTHORITIES))));
        if has_socket {
            patch.push(insert(&["spec", "volumes"], false, json!(socket::volume())));
        }
    }
    patch
}

/// Tells a container of a pod that is made here where the API is.
pub(crate) fn tell_address(container: &mut Container) {
    if lacks_address(container) {
        let value = Some(format!("127.0.0.1:{GRPC_PORT}"));
        let address = EnvVar { name: ADDRESS_VARIABLE.to_owned(), value, ..EnvVar::default() };
        container.env.get_or_insert_default().insert(0, address);
    }
}

/// What the author of a pod should know although it is accepted.
pub fn warnings(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let ports = [GRPC_PORT, HTTP_PORT];
    let mut warnings = Vec::new();
    if spec.host_network == Some(true) {
        let [grpc, http] = ports;
        warnings.push(format!(
            "hostNetwork: the Ackwell sidecar takes ports {grpc} and {http} of the node, once per node, \
             and everything on the node reaches it"
        ));
    }
    for container in others(spec) {
        let declared = container.ports.iter().flatten().map(|port| port.container_port);
        let taken = declared.filter(|port| ports.iter().any(|own| i32::from(*own) == *port));
        warnings.extend(taken.map(|port| {
            format!(
                "container {:?} declares port {port}, which the Ackwell sidecar listens on",
                container.name
            )
        }));
    }
    warnings
}

fn others(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.filter(|container| container.name != CONTAINER)
}

fn has_sidecar(spec: &PodSpec) -> bool {
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.any(|container| container.name == CONTAINER)
}

fn addresses(field: &str, containers: &[Container], has_socket: bool) -> Vec<PatchOperation> {
    let lacking = containers.iter().enumerate().filter(|(_, container)| lacks_address(container));
    let address =
        if has_socket { format!("unix:{}", socket::PATH) } else { format!("127.0.0.1:{GRPC_PORT}") };
    let address = json!({"name": ADDRESS_VARIABLE, "value": address});
    lacking
        .map(|(index, container)| {
            let empty = container.env.as_ref().is_none_or(Vec::is_empty);
            insert(&["spec", field, &index.to_string(), "env"], empty, address.clone())
        })
        .collect()
}

fn mounts(field: &str, containers: &[Container]) -> Vec<PatchOperation> {
    let lacks = |container: &Container| container.name != CONTAINER && !socket::is_mounted(container);
    let lacking = containers.iter().enumerate().filter(|(_, container)| lacks(container));
    lacking
        .map(|(index, container)| {
            let empty = container.volume_mounts.as_ref().is_none_or(Vec::is_empty);
            insert(&["spec", field, &index.to_string(), "volumeMounts"], empty, json!(socket::mount(false)))
        })
        .collect()
}

fn lacks_address(container: &Container) -> bool {
    let mut variables = container.env.iter().flatten();
    container.name != CONTAINER && !variables.any(|variable| variable.name == ADDRESS_VARIABLE)
}

/// First in the list: later variables can refer to it, and later containers find it running.
fn insert(list: &[&str], empty: bool, value: Value) -> PatchOperation {
    let list = PointerBuf::from_tokens(list.iter().copied());
    let (path, value) =
        if empty { (list, json!([value])) } else { (list.with_trailing_token(0_usize), value) };
    PatchOperation::Add(AddOperation { path, value })
}

#[cfg(test)]
mod tests;
