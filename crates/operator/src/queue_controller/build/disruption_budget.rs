//! How many brokers an eviction may take at a time: one. A single shard has no budget: it could only be in the way of a drain.

use ackwell_api::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Plan, metadata};

pub(super) fn build(plan: &Plan) -> Option<PodDisruptionBudget> {
    let queue = plan.queue.name().name();
    let labels = Some(names::selector_labels(queue));
    // A broker that is not ready serves nobody, and may go in any case. A pod that is not ready for its application may serve.
    let evict_unhealthy = (!plan.queue.is_embedded()).then_some("AlwaysAllow");
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(LabelSelector { match_labels: labels, ..LabelSelector::default() }),
        unhealthy_pod_eviction_policy: evict_unhealthy.map(str::to_owned),
        ..PodDisruptionBudgetSpec::default()
    };
    (plan.shards > 1).then(|| PodDisruptionBudget {
        metadata: metadata(plan, names::child(queue)),
        spec: Some(spec),
        ..PodDisruptionBudget::default()
    })
}
