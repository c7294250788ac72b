//! Step 3: the objects a Queue is made of. Pure.

mod config_map;
mod disruption_budget;
mod network_policy;
mod pod;
mod service;
mod service_account;
mod stateful_set;
#[cfg(test)]
mod tests;

use ackwell_api::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::dereference::Observed;
use super::validate::Plan;
use super::{BrokerImage, Reach};
use crate::certificates::SecretData;

/// The objects, in the order in which they are applied.
#[derive(Clone, Debug)]
pub(crate) struct Children {
    pub(super) service_account: ServiceAccount,
    pub(super) config_map: ConfigMap,
    pub(super) shards_service: Service,
    pub(super) service: Service,
    pub(super) network_policy: Option<NetworkPolicy>,
    pub(super) disruption_budget: Option<PodDisruptionBudget>,
    pub(super) stateful_set: StatefulSet,
}

/// Builds the objects of the Queue in `plan`, whose brokers run `image` and are reached by `reach`.
pub(super) fn build(plan: &Plan, observed: &Observed, image: &BrokerImage) -> Children {
    Children {
        service_account: service_account::build(plan),
        config_map: config_map::build(plan),
        shards_service: service::shards(plan),
        service: service::ready(plan),
        network_policy: None,
        disruption_budget: disruption_budget::build(plan),
        stateful_set: stateful_set::build(plan, observed.stateful_set.as_deref(), image),
    }
}

/// Who reaches the brokers' messages, where that is limited at all. The ports of an application beside a broker are its own
/// matter, and a policy for its pod would close them.
pub(super) fn network_policy(plan: &Plan, observed: &Observed, reach: &Reach) -> Option<NetworkPolicy> {
    let is_embedded = |pod: &Pod| {
        let spec = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref());
        spec.unwrap_or_default().iter().any(|container| container.name == names::BROKER_CONTAINER)
    };
    let any_is = plan.queue.is_embedded() || observed.pods.iter().any(|(_, pod)| is_embedded(pod));
    match reach {
        Reach::Namespaces(from) if !any_is => Some(network_policy::build(plan, from)),
        _ => None,
    }
}

/// The Secret of the brokers' certificate, whose content is made elsewhere.
pub(super) fn certificate(plan: &Plan, data: SecretData) -> Secret {
    Secret {
        metadata: metadata(plan, names::certificate(plan.queue.name().name())),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Name, namespace, labels and owner: everything is deleted with the Queue by garbage collection.
fn metadata(plan: &Plan, name: String) -> ObjectMeta {
    let queue = plan.queue.name();
    ObjectMeta {
        name: Some(name),
        namespace: Some(queue.namespace().to_owned()),
        labels: Some(names::labels(queue.name())),
        owner_references: plan.queue.queue().controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
