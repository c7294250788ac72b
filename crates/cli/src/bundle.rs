//! `ackwell debug-bundle`: what somebody else needs to find out what is wrong, without messages and secrets.

mod redact;

use std::fs;
use std::path::PathBuf;

use ackwell_api::names;
use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::args::queue_name;
use crate::cluster::{CLAIMS, Cluster, EVENTS, Kind, PODS, Place, short_name};
use crate::{Outcome, output};

/// Enough to see how it came to what is wrong.
const LOG: &str = "tailLines=5000&limitBytes=10485760";
/// What is made for a queue. Never Secrets, and nothing of applications.
const OF_QUEUE: [Kind; 7] = [
    Kind::new("apis/apps/v1", "statefulsets"),
    PODS,
    CLAIMS,
    Kind::new("api/v1", "services"),
    Kind::new("api/v1", "configmaps"),
    Kind::new("apis/networking.k8s.io/v1", "networkpolicies"),
    Kind::new("apis/policy/v1", "poddisruptionbudgets"),
];
/// What operators consist of.
const OF_OPERATORS: [Kind; 2] = [Kind::new("apis/apps/v1", "deployments"), PODS];
const LEASES: Kind = Kind::new("apis/coordination.k8s.io/v1", "leases");
const OPERATORS: &str = "app.kubernetes.io/name=ackwell,app.kubernetes.io/component=operator";

/// Collect what somebody else needs to find out what is wrong with a queue: objects, events, logs, metrics.
///
/// Asks the API server with your kubeconfig. What cannot be had is named, and the rest is there. Messages, Secrets, values
/// of environment variables and objects of applications are not part of it; look through the folder before you give it
/// away.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell debug-bundle orders
  ackwell debug-bundle orders -n shop --to bundle && tar czf bundle.tar.gz bundle")]
pub(crate) struct DebugBundle {
    /// Name of the queue, like orders or shop/orders.
    #[arg(value_parser = queue_name)]
    queue: String,

    #[command(flatten)]
    place: Place,

    /// Folder for the files; made, and must not be there yet. Default: ackwell-debug-QUEUE.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Namespace of the operators.
    #[arg(long, value_name = "NAME", default_value = "ackwell-system")]
    operator_namespace: String,
}

/// Where files go, and what could not be had.
struct Bundle {
    folder: PathBuf,
    missing: Vec<String>,
}

impl DebugBundle {
    pub(crate) async fn run(self) -> anyhow::Result<Outcome> {
        let cluster = self.place.open(Some(&self.queue)).await?;
        let name = short_name(&self.queue);
        // First: without it nothing else makes sense.
        let queue = cluster.queue(name).await?;
        let folder = self.to.unwrap_or_else(|| format!("ackwell-debug-{name}").into());
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut bundle = Bundle { folder, missing: Vec::new() };
        bundle.write("queue.yaml", &redact::yaml(queue)?)?;
        bundle.add_queue(&cluster, name).await?;
        bundle.add_operators(&cluster.in_namespace(&self.operator_namespace)).await?;
        bundle.add_versions(&cluster).await?;
        bundle.end()
    }
}

impl Bundle {
    async fn add_queue(&mut self, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
        let labels = format!("{}={name}", names::QUEUE_LABEL);
        for kind in OF_QUEUE {
            self.add_objects(cluster, kind, &labels, &format!("{kind}.yaml")).await?;
        }
        self.add_objects(cluster, EVENTS, "", "events.yaml").await?;
        for pod in self.pods(cluster, &labels).await {
            let metrics = cluster.of_pod(&format!("{pod}:{}", names::HTTP_PORT), "proxy/metrics").await;
            self.add(&format!("{pod}.metrics"), metrics)?;
            self.add_logs(cluster, &pod, &format!("container={}&", names::BROKER_CONTAINER)).await?;
        }
        Ok(())
    }

    async fn add_operators(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        for kind in OF_OPERATORS {
            self.add_objects(cluster, kind, OPERATORS, &format!("operator-{kind}.yaml")).await?;
        }
        self.add_objects(cluster, LEASES, "", "operator-leases.yaml").await?;
        for pod in self.pods(cluster, OPERATORS).await {
            self.add_logs(cluster, &pod, "").await?;
        }
        Ok(())
    }

    async fn add_versions(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let kubernetes = cluster.text("/version").await;
        let ours = concat!("ackwell ", env!("CARGO_PKG_VERSION"));
        self.add("version.txt", kubernetes.map(|kubernetes| format!("{ours}\nKubernetes {kubernetes}\n")))
    }

    async fn pods(&mut self, cluster: &Cluster, labels: &str) -> Vec<String> {
        let pods = cluster.list(PODS, labels).await.unwrap_or_default();
        pods.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect()
    }

    async fn add_objects(
        &mut self,
        cluster: &Cluster,
        kind: Kind,
        labels: &str,
        file: &str,
    ) -> anyhow::Result<()> {
        let objects = cluster.list(kind, labels).await;
        self.add(file, objects.and_then(|objects| redact::yaml(Value::Array(objects))))
    }

    /// Of the process that runs, and of the one before, which a pod that never crashed does not have.
    /// `container` says which where there may be several: the log of an application may have messages in it.
    async fn add_logs(&mut self, cluster: &Cluster, pod: &str, container: &str) -> anyhow::Result<()> {
        let log = cluster.of_pod(pod, &format!("log?{container}{LOG}")).await;
        self.add(&format!("{pod}.log"), log)?;
        match cluster.of_pod(pod, &format!("log?{container}{LOG}&previous=true")).await {
            Ok(log) => self.write(&format!("{pod}.previous.log"), &log),
            Err(_) => Ok(()),
        }
    }

    fn add(&mut self, file: &str, content: anyhow::Result<String>) -> anyhow::Result<()> {
        match content {
            Ok(content) => self.write(file, &content),
            Err(error) => {
                self.missing.push(format!("{file}: {error:#}"));
                Ok(())
            }
        }
    }

    fn write(&self, file: &str, content: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    fn end(self) -> anyhow::Result<Outcome> {
        output::line(&self.folder.display().to_string())?;
        if self.missing.is_empty() {
            return Ok(Outcome::Done);
        }
        self.write("missing.txt", &(self.missing.join("\n") + "\n"))?;
        let count = output::count(self.missing.len() as u64, "file");
        output::note(format_args!("{count} could not be had, see missing.txt in the folder"));
        Ok(Outcome::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: Secrets are not asked for.
    #[test]
    fn no_kind_is_a_secret() {
        assert!(OF_QUEUE.iter().chain(&OF_OPERATORS).all(|kind| kind.to_string() != "secrets"));
    }
}
