//! The brokers' ServiceAccount. It has no rights and no token: brokers do not talk to the API server.

use ackwell_api::names;
use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Plan, metadata};

pub(super) fn build(plan: &Plan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan, names::child(plan.queue.name().name())),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
