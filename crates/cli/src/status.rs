//! `ackwell status`: a queue and all that it is made of, as the cluster sees it.

mod gather;
mod tree;

use clap::Args;
use serde::Serialize;

use crate::args::{Output, queue_name};
use crate::cluster::Place;
use crate::{Outcome, output};

/// Show a queue of a cluster: its shards, volumes, conditions, rates and last events.
///
/// Asks the cluster through kubectl, and the brokers through the API server; without the right to do that, rates are left out.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell status orders
  ackwell status --namespace shop
  kubectl ackwell status orders -o yaml")]
pub(crate) struct Status {
    /// Name of the queue; without: every queue of the namespace.
    #[arg(value_parser = queue_name)]
    queue: Option<String>,

    #[command(flatten)]
    place: Place,
}

/// A queue, as the cluster sees it.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueStatus {
    namespace: String,
    name: String,
    conditions: Vec<Condition>,
    /// As the operator counted them last; none while no broker serves.
    messages: Option<Messages>,
    oldest_ready_seconds: Option<i64>,
    shards_wanted: i64,
    shards: Vec<Shard>,
    /// Absent when a broker could not be asked.
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
#[serde(rename_all = "camelCase")]
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
    size: String,
}

/// Of all shards.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Traffic {
    sent_per_second: f64,
    acked_per_second: f64,
    failed_per_second: f64,
    consumers: f64,
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
        let place = self.place.within(self.queue.as_deref());
        let name = self.queue.as_deref().map(|queue| queue.rsplit('/').next().unwrap_or(queue));
        let statuses = gather::statuses(&place, name).await?;
        if statuses.is_empty() {
            output::note(format_args!("no queues here; --namespace names another namespace"));
            return Ok(Outcome::Nothing);
        }
        for status in &statuses {
            match output {
                Output::Text => output::print(tree::text(status).as_bytes())?,
                _ => output::data(output, status)?,
            }
        }
        Ok(Outcome::Done)
    }
}
