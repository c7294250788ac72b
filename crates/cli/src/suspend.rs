//! `ackwell suspend`: stop the brokers of a queue, or start them again.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::args::{Output, queue_name};
use crate::cluster::{Cluster, Place, QUEUES, short_name};
use crate::wait::{condition, until};
use crate::{Outcome, duration, output};

/// Stop the brokers of a queue of a cluster, and keep all messages; --end starts them again.
///
/// Sends and receives wait meanwhile. It sets `spec.suspend`, with your kubeconfig. To stop handing messages out and go on
/// taking them, see `ackwell pause`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell suspend orders --wait 2m
  ackwell suspend orders --end")]
pub(crate) struct Suspend {
    /// Name of the queue, like orders or shop/orders.
    #[arg(value_parser = queue_name)]
    queue: String,

    /// Start the brokers again.
    #[arg(long)]
    end: bool,

    /// Wait until it is done, so long at most.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,

    #[command(flatten)]
    place: Place,
}

impl Suspend {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let cluster = self.place.open(Some(&self.queue)).await?;
        let name = short_name(&self.queue);
        cluster.queue(name).await?;
        let suspend = !self.end;
        cluster.merge(QUEUES, name, &json!({"spec": {"suspend": suspend}})).await?;
        if let Some(limit) = self.wait {
            until(limit, async || Ok(left(&cluster.queue(name).await?, suspend))).await?;
        }
        match output {
            Output::Text => output::line(&self.told(&cluster))?,
            Output::Json | Output::Yaml => output::data(output, &json!({ "suspend": suspend }))?,
        }
        Ok(Outcome::Done)
    }

    fn told(&self, cluster: &Cluster) -> String {
        let Self { queue, end, wait, .. } = self;
        let full = format!("{}/{}", cluster.namespace(), short_name(queue));
        match (end, wait.is_some()) {
            (false, false) => format!("{full}: its brokers stop, and all messages are kept"),
            (false, true) => format!("{full}: its brokers have stopped, and all messages are kept"),
            (true, false) => format!("{full}: its brokers start"),
            (true, true) => format!("{full}: its brokers serve"),
        }
    }
}

/// What is still to be done.
fn left(queue: &Value, suspend: bool) -> Option<String> {
    let is = |kind: &str, status: &str| condition(queue, kind) == Some(status);
    let (done, wanted) = if suspend {
        (is("Suspended", "True") && is("Reconciling", "False"), "some brokers still run")
    } else {
        (is("Suspended", "False") && is("Ready", "True"), "some brokers do not serve yet")
    };
    (!done).then(|| format!("{wanted}; `ackwell status` tells more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<_> =
            conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        json!({
            "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "conditions": conditions},
        })
    }

    /// `Suspended` says what is wished; that it is done, `Reconciling` says.
    #[test]
    fn waiting_ends_when_brokers_have_stopped_or_serve() {
        let stopping = queue(&[("Suspended", "True"), ("Reconciling", "True"), ("Ready", "False")]);
        assert!(left(&stopping, true).is_some());
        let stopped = queue(&[("Suspended", "True"), ("Reconciling", "False"), ("Ready", "False")]);
        assert_eq!(left(&stopped, true), None);
        assert!(left(&stopped, false).is_some());
        assert_eq!(left(&queue(&[("Suspended", "False"), ("Ready", "True")]), false), None);
    }
}
