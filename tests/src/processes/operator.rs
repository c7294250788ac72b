//! `ackwell-operator` without a cluster: it has metrics and waits for an API server.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, get};
use crate::{ports, wait};

/// It serves HTTP at once, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// An operator whose API server never answers.
pub struct Operator {
    http: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Operator {
    /// Starts one.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a machine has a temporary folder");
        let kubeconfig = folder.path().join("kubeconfig");
        let (http, webhook) = (ports::free(), ports::free());
        std::fs::write(&kubeconfig, nowhere(ports::free())).expect("a test can write into its own folder");
        let mut command = Command::new(super::binary("ackwell-operator"));
        command.args(["--broker-image=none", "--sidecar-image=none", "--namespace=none", "--identity=none"]);
        command.arg("--service-account=none");
        command.args(["--http", &http.to_string(), "--webhook-listen", &webhook.to_string()]);
        let process = Process::start(command.env("KUBECONFIG", kubeconfig), &folder.path().join("log"));
        wait::until("an operator to be alive", LIMIT, || get(http, "/livez"));
        Self { http, _process: process, _folder: folder }
    }

    /// The metrics it shows.
    pub fn metrics(&self) -> String {
        get(self.http, "/metrics").expect("an operator that runs shows its metrics")
    }
}

fn nowhere(address: SocketAddr) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Config\", \"current-context\": \"none\",\n\
         \"clusters\": [{{\"name\": \"none\", \"cluster\": {{\"server\": \"http://{address}\"}}}}],\n\
         \"users\": [{{\"name\": \"none\", \"user\": {{}}}}],\n\
         \"contexts\": [{{\"name\": \"none\", \"context\": {{\"cluster\": \"none\", \"user\": \"none\"}}}}]}}"
    )
}
