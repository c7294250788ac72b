//! `ackwell debug-bundle`: what somebody else needs to find out what is wrong, without messages and secrets.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::args::queue_name;
use crate::cluster::Place;
use crate::{Outcome, output};

/// Enough to see how it came to what is wrong.
const LOG_LINES: &str = "--tail=5000";
/// What belongs to a queue. Never Secrets, and nothing of applications.
const KINDS: [&str; 7] = [
    "statefulsets",
    "pods",
    "services",
    "configmaps",
    "persistentvolumeclaims",
    "networkpolicies",
    "poddisruptionbudgets",
];
/// In names of environment variables, whose values are left out.
const SECRET_WORDS: [&str; 4] = ["TOKEN", "PASSWORD", "SECRET", "KEY"];

/// Collect what somebody else needs to find out what is wrong with a queue: objects, events, logs, metrics.
///
/// It asks the cluster through kubectl. What cannot be had is named, and the rest is there. Messages, Secrets and objects of
/// applications are not part of it; look through the folder before you give it away.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell debug-bundle orders
  ackwell debug-bundle orders -n shop --to bundle && tar czf bundle.tar.gz bundle")]
pub(crate) struct DebugBundle {
    /// Name of the queue.
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
        let place = self.place.within(Some(&self.queue));
        let name = self.queue.rsplit('/').next().unwrap_or(&self.queue).to_owned();
        let folder = self.to.unwrap_or_else(|| format!("ackwell-debug-{name}").into());
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut bundle = Bundle { folder, missing: Vec::new() };
        bundle.add_queue(&place, &name).await?;
        bundle.add_operators(&place.in_namespace(&self.operator_namespace)).await?;
        bundle.write("missing.txt", &bundle.missing.join("\n"))?;
        output::line(&bundle.folder.display().to_string())?;
        if bundle.missing.is_empty() {
            return Ok(Outcome::Done);
        }
        let count = output::count(bundle.missing.len() as u64, "thing");
        output::note(format_args!("{count} could not be had, see missing.txt in the folder"));
        Ok(Outcome::Incomplete)
    }
}

impl Bundle {
    async fn add_queue(&mut self, place: &Place, name: &str) -> anyhow::Result<()> {
        // First: without it nothing else makes sense.
        let queue = place.get(&["queues.ackwell.dev", name]).await?;
        let namespace = queue["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.write("queue.yaml", &yaml(queue)?)?;
        let selector = format!("--selector=ackwell.dev/queue={name}");
        for kind in KINDS {
            self.add_objects(place, &[kind, &selector], &format!("{kind}.yaml")).await?;
        }
        self.add_objects(place, &["events"], "events.yaml").await?;
        for pod in self.pods(place, &selector).await {
            let metrics = place.metrics(&namespace, &pod).await;
            self.add(&format!("{pod}.metrics"), metrics)?;
            self.add_logs(place, &pod).await?;
        }
        Ok(())
    }

    async fn add_operators(&mut self, place: &Place) -> anyhow::Result<()> {
        let selector = "--selector=app.kubernetes.io/name=ackwell,app.kubernetes.io/component=operator";
        for kind in ["deployments", "pods"] {
            self.add_objects(place, &[kind, selector], &format!("operator-{kind}.yaml")).await?;
        }
        self.add_objects(place, &["leases"], "operator-leases.yaml").await?;
        for pod in self.pods(place, selector).await {
            self.add_logs(place, &pod).await?;
        }
        let versions = place.kubectl(&["version"]).await;
        self.add("version.txt", versions)
    }

    async fn pods(&mut self, place: &Place, selector: &str) -> Vec<String> {
        let pods = place.list(&["pods", selector]).await.unwrap_or_else(|error| {
            self.missing.push(format!("pods: {error:#}"));
            Vec::new()
        });
        pods.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect()
    }

    async fn add_objects(&mut self, place: &Place, args: &[&str], file: &str) -> anyhow::Result<()> {
        let objects = place.get(args).await.and_then(yaml);
        self.add(file, objects)
    }

    /// Of the process that runs, and of the one before, which a pod that never crashed does not have.
    async fn add_logs(&mut self, place: &Place, pod: &str) -> anyhow::Result<()> {
        let logs = place.kubectl(&["logs", pod, "--all-containers", LOG_LINES]).await;
        self.add(&format!("{pod}.log"), logs)?;
        match place.kubectl(&["logs", pod, "--all-containers", LOG_LINES, "--previous"]).await {
            Ok(logs) => self.write(&format!("{pod}.previous.log"), &logs),
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
        let path: &Path = &self.folder.join(file);
        fs::write(path, content).with_context(|| format!("write {}", path.display()))
    }
}

fn yaml(mut object: Value) -> anyhow::Result<String> {
    redact(&mut object);
    Ok(serde_yaml_ng::to_string(&object)?)
}

/// Without what is long and tells nothing, and without what must not be told.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            let is_secret = fields.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
            if let Some(value) = fields.get_mut("value").filter(|_| is_secret) {
                *value = "(left out)".into();
            }
            fields.values_mut().for_each(redact);
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_uppercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what somebody put into an environment variable does not leave the cluster with the bundle.
    #[test]
    fn secrets_of_the_environment_are_left_out() {
        let pod = serde_json::json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "x"}]},
            "spec": {"containers": [{"env": [
                {"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "api_token", "value": "t0ken"},
                {"name": "RUST_LOG", "value": "info"},
            ]}]},
        });
        let text = yaml(pod).unwrap();
        assert!(
            !text.contains("hunter2") && !text.contains("t0ken") && !text.contains("managedFields"),
            "{text}"
        );
        assert!(text.contains("info") && text.contains("DB_PASSWORD"), "{text}");
    }

    /// Promise: neither Secrets nor anything that an application has is asked for.
    #[test]
    fn secrets_are_not_asked_for() {
        assert!(!KINDS.iter().any(|kind| kind.contains("secret")));
    }
}
