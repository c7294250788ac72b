//! Who reaches the brokers' messages: pods of the Queue's namespace and of those that it names in `clients`, the operator, and who
//! else the installation lets in. A second wall: brokers know who calls. Health and metrics are open, since who reads them may be
//! anywhere.

use std::collections::BTreeSet;

use ackwell_api::names;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Plan, metadata};

/// The label that the API server gives each namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// `from`: the namespaces that reach all brokers.
pub(super) fn build(plan: &Plan, from: &BTreeSet<String>) -> NetworkPolicy {
    let queue = plan.queue.name();
    let labels = Some(names::selector_labels(queue.name()));
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector { match_labels: labels, ..LabelSelector::default() }),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![messages(plan, from), open()]),
        ..NetworkPolicySpec::default()
    };
    NetworkPolicy { metadata: metadata(plan, names::child(queue.name())), spec: Some(spec) }
}

fn messages(plan: &Plan, from: &BTreeSet<String>) -> NetworkPolicyIngressRule {
    let granted = plan.queue.grants().into_iter().map(|grant| grant.namespace);
    let own = plan.queue.name().namespace().to_owned();
    let namespaces: BTreeSet<_> = granted.chain([own]).chain(from.iter().cloned()).collect();
    NetworkPolicyIngressRule {
        ports: Some(vec![port(names::GRPC_PORT)]),
        from: Some(namespaces.into_iter().map(pods_of).collect()),
    }
}

fn open() -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { ports: Some(vec![port(names::HTTP_PORT)]), from: None }
}

fn pods_of(namespace: String) -> NetworkPolicyPeer {
    let labels = [(NAMESPACE_LABEL.to_owned(), namespace)].into();
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ..NetworkPolicyPeer::default()
    }
}

/// By number: not every network knows the names of the ports of native sidecars.
fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(number.into())), ..NetworkPolicyPort::default() }
}
