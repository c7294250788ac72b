//! The two Services: one address for any ready shard, and one name for each shard.

use ackwell_api::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Plan, metadata};

/// Any shard that is ready, or all where the pods are applications, too.
pub(super) fn ready(plan: &Plan) -> Service {
    let queue = plan.queue.name().name();
    // A pod may be unready because of its application, which may wait for this very Service; its broker serves all the same.
    let publish_not_ready_addresses = plan.queue.is_embedded().then_some(true);
    let spec = ServiceSpec { ports: Some(vec![grpc()]), publish_not_ready_addresses, ..spec(queue) };
    Service { metadata: metadata(plan, names::child(queue)), spec: Some(spec), ..Service::default() }
}

/// A name for each shard, ready or not: a sidecar must find a shard that is just starting.
pub(super) fn shards(plan: &Plan) -> Service {
    let queue = plan.queue.name().name();
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ports: Some(vec![grpc(), port("http", names::HTTP_PORT, "http")]),
        ..spec(queue)
    };
    Service { metadata: metadata(plan, names::shards_service(queue)), spec: Some(spec), ..Service::default() }
}

fn spec(queue: &str) -> ServiceSpec {
    ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(names::selector_labels(queue)),
        ..ServiceSpec::default()
    }
}

/// Meshes read the protocol from `appProtocol`, older ones from the name.
fn grpc() -> ServicePort {
    port("grpc", names::GRPC_PORT, "grpc")
}

fn port(name: &str, number: u16, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        // By number: an application beside the broker may have a port of the same name.
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}
