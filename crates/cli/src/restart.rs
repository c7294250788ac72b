//! `ackwell restart`: new pods for the brokers of a queue, one after the other.

use std::time::Duration;

use ackwell_api::names;
use anyhow::ensure;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::{Output, queue_name};
use crate::cluster::{Cluster, PODS, Place, QUEUES, is_ready, short_name};
use crate::wait::until;
use crate::{Outcome, clock, duration, output};

/// Give the brokers of a queue of a cluster new pods, one after the other, each when the one before serves.
///
/// It sets an annotation of the Queue, with your kubeconfig; the operator does the rest, as for every change of the pods.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell restart orders
  ackwell restart shop/orders --wait 10m")]
pub(crate) struct Restart {
    /// Name of the queue, like orders or shop/orders.
    #[arg(value_parser = queue_name)]
    queue: String,

    /// Wait until all brokers are new and serve, so long at most.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,

    #[command(flatten)]
    place: Place,
}

impl Restart {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let cluster = self.place.open(Some(&self.queue)).await?;
        let name = short_name(&self.queue);
        check(&cluster.queue(name).await?)?;
        let at = Timestamp::from_millisecond(i64::try_from(clock::now_ms())?)?.to_string();
        let annotations = json!({ names::RESTARTED_ANNOTATION: at });
        let queue = cluster.merge(QUEUES, name, &json!({"metadata": {"annotations": annotations}})).await?;
        if let Some(limit) = self.wait {
            let shards = shards(&queue);
            until(limit, async || left(&cluster, name, shards, &at).await).await?;
        }
        match output {
            Output::Text => {
                output::line(&told(&format!("{}/{name}", cluster.namespace()), self.wait.is_some()))?;
            }
            Output::Json | Output::Yaml => output::data(output, &json!({ "restartedAt": at }))?,
        }
        Ok(Outcome::Done)
    }
}

/// Nobody should wait for what cannot happen.
fn check(queue: &Value) -> anyhow::Result<()> {
    ensure!(
        queue["spec"]["suspend"] != true,
        "the queue is suspended: no broker runs; `ackwell suspend --end` starts them"
    );
    let paused = &queue["metadata"]["annotations"][names::PAUSED_ANNOTATION];
    ensure!(
        paused.is_null(),
        "the operator changes nothing while the annotation {} is there",
        names::PAUSED_ANNOTATION
    );
    Ok(())
}

/// Those that are about to leave are replaced as well.
fn shards(queue: &Value) -> u64 {
    let [wanted, there] = ["spec", "status"].map(|part| queue[part]["shards"].as_u64().unwrap_or(1));
    wanted.max(there)
}

fn told(full: &str, is_done: bool) -> String {
    if is_done {
        format!("{full}: its brokers are new, and serve")
    } else {
        format!("{full}: its brokers restart, one after the other")
    }
}

/// What is still to be done.
async fn left(cluster: &Cluster, queue: &str, shards: u64, at: &str) -> anyhow::Result<Option<String>> {
    let pods = cluster.list(PODS, &names::selector(queue)).await?;
    let done = pods.iter().filter(|pod| is_new(pod, at) && is_ready(pod)).count() as u64;
    Ok((done < shards).then(|| format!("{done} of {shards} brokers are new; `ackwell status` tells more")))
}

fn is_new(pod: &Value, at: &str) -> bool {
    pod["metadata"]["annotations"][names::RESTARTED_ANNOTATION] == at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: nobody waits for an operator that will do nothing.
    #[test]
    fn what_cannot_restart_is_said() {
        let error = |queue: Value| check(&queue).err().map(|error| error.to_string());
        assert_eq!(error(json!({"spec": {"suspend": false}, "metadata": {}})), None);
        assert!(error(json!({"spec": {"suspend": true}})).is_some_and(|error| error.contains("suspended")));
        let paused = json!({"metadata": {"annotations": {"ackwell.dev/paused": ""}}});
        assert!(error(paused).is_some_and(|error| error.contains("ackwell.dev/paused")));
    }
}
