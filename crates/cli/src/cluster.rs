//! The cluster, asked through kubectl: it has the credentials, and the plugins that make them.

use std::process::Stdio;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::process::Command;

/// Which cluster, and where in it.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Namespace of the queue; else that of the current context.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Context of the kubeconfig; else the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Place {
    /// In the namespace that the queue's name has, if it has one.
    pub(crate) fn within(&self, queue: Option<&str>) -> Self {
        match queue.and_then(|queue| queue.split_once('/')) {
            Some((namespace, _)) => self.in_namespace(namespace),
            None => self.clone(),
        }
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// Objects as JSON; a list has `items`.
    pub(crate) async fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], args].concat()).await?;
        serde_json::from_str(&text).context("read the answer of kubectl")
    }

    /// The items of a list, none for what is not there.
    pub(crate) async fn list(&self, args: &[&str]) -> anyhow::Result<Vec<Value>> {
        match self.get(args).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// What a broker answers over HTTP, through the API server.
    pub(crate) async fn metrics(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:7410/proxy/metrics");
        self.kubectl(&["get", "--raw", &path]).await
    }

    /// What kubectl prints, or why it failed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("kubectl");
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        let output = command.output().await.context("start kubectl; it has to be on the PATH")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("read the answer of kubectl")
    }
}
