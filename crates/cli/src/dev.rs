//! `ackwell dev`: a broker on this machine for the Queues of some manifests.

mod invocation;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ackwell_api::ValidatedQueue;
use ackwell_client::DEFAULT_ADDRESS;
use ackwelld::broker;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::Output;
use crate::manifest::Manifests;
use crate::{Outcome, manifest, output};

/// Serve the Queues of manifests on this machine, without Kubernetes.
///
/// Reads the same YAML that `kubectl apply` takes; documents of other kinds are skipped. Prints one line once it serves.
/// Messages stay in the data folder: started again on it, the queues continue. Ctrl-C stops it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell dev queue.yaml
  ackwell dev orders.yaml logs.yaml --data /tmp/ackwell --listen 127.0.0.1:7500")]
pub(crate) struct Dev {
    /// Queue manifests.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Folder for the messages; made when missing.
    #[arg(long, value_name = "DIR", default_value = ".ackwell")]
    data: PathBuf,

    /// Address to serve on. Callers are not authenticated: keep it on this machine.
    #[arg(long, value_name = "IP:PORT", default_value = DEFAULT_ADDRESS)]
    listen: SocketAddr,

    /// What to log on stderr: error, warn, info, debug, trace, or a filter like ackwelld=debug.
    #[arg(long, value_name = "FILTER", env = "ACKWELL_LOG", default_value = "warn")]
    log: EnvFilter,
}

impl Dev {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let manifests = manifest::read(&self.files)?;
        self.warn(&manifests);
        let (data, listen) = (self.data.clone(), self.listen);
        let options = options(&manifests.queues, data.clone(), listen);
        tracing_subscriber::fmt().with_env_filter(self.log).with_writer(io::stderr).init();
        let started =
            Started { queues: shown_names(&manifests.queues, &options.namespace), data: &data, output };
        // Asked for before serving, so that a signal is never missed.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let ended = broker::run(options, |address| started.announce(address), shutdown).await;
        ended.map_err(|error| explain(error, &data, listen))?;
        Ok(Outcome::Done)
    }

    fn warn(&self, manifests: &Manifests) {
        for sentence in &manifests.skipped {
            output::note(format_args!("note: {sentence}"));
        }
        if !self.listen.ip().is_loopback() {
            output::note(format_args!(
                "note: whoever reaches {} can read and write these queues",
                self.listen
            ));
        }
    }
}

/// The namespace of the first queue is the one that short names mean.
fn options(queues: &[ValidatedQueue], data: PathBuf, listen: SocketAddr) -> broker::Options {
    broker::Options {
        ordinal: None,
        broker_ca: None,
        data,
        max_rows: broker::MAX_ROWS,
        encryption_keys: None,
        listen,
        http: None,
        tls: None,
        namespace: queues.first().map_or("default", |queue| queue.name().namespace()).to_owned(),
        queues: queues.iter().map(|queue| queue.config(Vec::new())).collect(),
    }
}

/// What is told once calls are served.
struct Started<'a> {
    queues: Vec<String>,
    data: &'a Path,
    output: Output,
}

impl Started<'_> {
    fn announce(&self, address: SocketAddr) {
        // When nobody reads it, the broker serves all the same.
        drop(self.print(address));
        let program = std::env::args_os().next().unwrap_or_else(|| OsString::from("ackwell"));
        let folder = std::env::current_dir().unwrap_or_default();
        let command =
            invocation::try_it(&invocation::program(Path::new(&program), &folder), &self.queues[0], address);
        output::note(format_args!("try: {command}"));
    }

    fn print(&self, address: SocketAddr) -> anyhow::Result<()> {
        let data = self.data.display();
        match self.output {
            Output::Text => {
                output::line(&format!("serving {} on {address}, messages in {data}", self.queues.join(", ")))
            }
            Output::Json | Output::Yaml => output::data(
                self.output,
                &json!({"address": address, "queues": self.queues, "data": data.to_string()}),
            ),
        }
    }
}

/// Names as they can be used in calls: short where the namespace is the default one.
fn shown_names(queues: &[ValidatedQueue], namespace: &str) -> Vec<String> {
    let short = |queue: &ValidatedQueue| match queue.name() {
        name if name.namespace() == namespace => name.name().to_owned(),
        name => name.to_string(),
    };
    queues.iter().map(short).collect()
}

/// Adds what to do: nearly always the port or the folder belongs to another process.
fn explain(error: anyhow::Error, data: &Path, listen: SocketAddr) -> anyhow::Error {
    let io_kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let advice = match io_kind {
        Some(ErrorKind::AddrInUse) => {
            format!("{listen} is in use: stop what listens there, or choose another with --listen")
        }
        Some(ErrorKind::AddrNotAvailable) => {
            format!("{} is no address of this machine: choose another with --listen", listen.ip())
        }
        _ => format!("cannot serve messages in {} (for another folder: --data)", data.display()),
    };
    error.context(advice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(namespace: &str, name: &str) -> ValidatedQueue {
        let manifest = json!({
            "apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"storage": {"size": "1Gi"}},
        });
        ValidatedQueue::from_manifest(&manifest).unwrap()
    }

    /// The advice is about what was refused: the address or the folder.
    #[test]
    fn failure_is_explained_by_its_cause() {
        let told = |kind: ErrorKind| {
            let error = anyhow::Error::from(io::Error::from(kind)).context("listen");
            explain(error, Path::new("data"), "192.0.2.1:7400".parse().unwrap()).to_string()
        };
        assert!(told(ErrorKind::AddrInUse).starts_with("192.0.2.1:7400 is in use"));
        assert!(told(ErrorKind::AddrNotAvailable).starts_with("192.0.2.1 is no address of this machine"));
        assert!(told(ErrorKind::NotFound).starts_with("cannot serve messages in data"));
    }

    /// The announced names must work as they are printed.
    #[test]
    fn names_are_short_in_the_namespace_of_the_first_queue() {
        let queues = [queue("shop", "orders"), queue("shop", "logs"), queue("other", "orders")];
        let options = options(&queues, "data".into(), "127.0.0.1:0".parse().unwrap());
        assert_eq!(options.namespace, "shop");
        assert_eq!(options.queues.len(), 3);
        assert_eq!(shown_names(&queues, &options.namespace), ["orders", "logs", "other/orders"]);
    }
}
