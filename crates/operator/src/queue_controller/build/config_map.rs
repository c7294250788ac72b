//! What a broker starts with. Changes reach running brokers by RPC; this file is for those that start later.

use std::collections::BTreeMap;

use ackwell_api::names;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{Plan, metadata};

pub(super) fn build(plan: &Plan) -> ConfigMap {
    let mut text = serde_json::to_string_pretty(&plan.config()).expect("numbers and strings serialize");
    text.push('\n');
    ConfigMap {
        metadata: metadata(plan, names::child(plan.queue.name().name())),
        data: Some(BTreeMap::from([(names::CONFIG_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}
