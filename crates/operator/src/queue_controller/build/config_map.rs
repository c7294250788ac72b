//! What a broker starts with: its configuration, of which changes reach running brokers by RPC, and whom it trusts among the other
//! shards, of which they reach the file.

use std::collections::BTreeMap;

use ackwell_api::names;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{Plan, metadata};

pub(super) fn build(plan: &Plan) -> ConfigMap {
    let mut text = serde_json::to_string_pretty(&plan.config()).expect("numbers and strings serialize");
    text.push('\n');
    let authorities = plan.authorities.clone().map(|bundle| (names::AUTHORITIES_KEY.to_owned(), bundle));
    let files = [(names::CONFIG_KEY.to_owned(), text)].into_iter().chain(authorities);
    ConfigMap {
        metadata: metadata(plan, names::child(plan.queue.name().name())),
        data: Some(files.collect::<BTreeMap<_, _>>()),
        ..ConfigMap::default()
    }
}
