//! `ackwell status`: a queue and all that it is made of, as the cluster sees it.

mod gather;
mod traffic;
mod tree;

use clap::Args;
use serde::Serialize;

use crate::args::{Output, queue_name};
use crate::cluster::{Place, no_queue, short_name};
use crate::{Outcome, output};

/// Show a queue of a cluster: its conditions, shards, volumes, consumers, rates and last events.
///
/// Asks the API server with your kubeconfig, and for consumers and rates the brokers through it; without the right to do
/// that they are unknown.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell status orders
  ackwell status --namespace shop
  kubectl ackwell status orders -o yaml")]
pub(crate) struct Status {
    /// Name of the queue, like orders or shop/orders; without: every queue of the namespace.
    #[arg(value_parser = queue_name)]
    queue: Option<String>,

    #[command(flatten)]
    place: Place,
}

/// A queue, as the cluster sees it.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueStatus {
    namespace: String,
    name: String,
    conditions: Vec<Condition>,
    /// As the operator counted them last; none while no broker serves.
    messages: Option<Messages>,
    oldest_ready_seconds: Option<i64>,
    shards_wanted: i64,
    shards: Vec<Shard>,
    /// Absent when a broker could not be asked, or none was.
    traffic: Option<Traffic>,
    events: Vec<Event>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Messages {
    ready: i64,
    in_flight: i64,
    delayed: i64,
    dead: i64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    since: String,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Shard {
    pod: String,
    /// `Running`, or what the pod waits for.
    phase: String,
    ready: bool,
    restarts: i64,
    node: String,
    volume: Option<Volume>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Volume {
    claim: String,
    phase: String,
    /// What it has; before it is bound, what it asks for.
    size: String,
    /// What it asks for, where that is more.
    wanted: Option<String>,
}

/// Of all shards.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Traffic {
    consumers: f64,
    sent_per_second: f64,
    acked_per_second: f64,
    failed_per_second: f64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Event {
    last: String,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    about: String,
    message: String,
}

impl Status {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let cluster = self.place.open(self.queue.as_deref()).await?;
        let name = self.queue.as_deref().map(short_name);
        let (statuses, missing) = gather::statuses(&cluster, name).await?;
        if statuses.is_empty() {
            output::note(format_args!("{}", nothing(cluster.namespace(), name)));
            return Ok(Outcome::Nothing);
        }
        for status in &statuses {
            match output {
                Output::Text => output::print(tree::text(status).as_bytes())?,
                Output::Json | Output::Yaml => output::data(output, status)?,
            }
        }
        for missing in &missing {
            output::note(format_args!("error: {missing}"));
        }
        Ok(if missing.is_empty() { Outcome::Done } else { Outcome::Incomplete })
    }
}

fn nothing(namespace: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => no_queue(namespace, name),
        None => format!("there are no queues in the namespace {namespace}; --namespace names another"),
    }
}
