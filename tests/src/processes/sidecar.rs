//! `ackwelld sidecar` in front of a broker.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, get};
use super::{Broker, NAMESPACE, QUEUE};
use crate::caller::Caller;
use crate::ports;

/// A sidecar: its addresses outlive its processes.
pub struct Sidecar {
    process: Process,
    address: SocketAddr,
    http: SocketAddr,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Sidecar {
    /// Starts one that knows the broker's queue; the broker itself need not run.
    #[track_caller]
    pub fn start(broker: &Broker) -> Self {
        Self::start_with(broker, &[])
    }

    /// The same, with more arguments.
    #[track_caller]
    pub fn start_with(broker: &Broker, arguments: &[&str]) -> Self {
        Self::start_to(broker.address(), arguments)
    }

    /// The same, where a broker is reached at that address.
    #[track_caller]
    pub fn start_to(broker: SocketAddr, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a machine has a temporary folder");
        let (address, http) = (ports::free(), ports::free());
        let broker = ["--broker-address".to_owned(), broker.to_string()];
        let arguments = broker.into_iter().chain(more.iter().map(ToString::to_string)).collect::<Vec<_>>();
        let process = launch(&arguments, address, http, &folder);
        Self { process, address, http, arguments, folder }
    }

    /// Starts it again, after its process ended or in its place: as a kill.
    #[track_caller]
    pub fn restart(&mut self) {
        // It may have ended before.
        self.process.end();
        self.process = launch(&self.arguments, self.address, self.http, &self.folder);
    }

    /// The same, once it has ended by itself.
    #[track_caller]
    pub fn restart_once_ended(&mut self) {
        self.process.wait_ended();
        self.restart();
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where applications reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The metrics it shows.
    pub fn metrics(&self) -> String {
        get(self.http, "/metrics").expect("a sidecar that runs shows its metrics")
    }

    /// A caller of its queue.
    pub async fn caller(&self) -> Caller {
        Caller::connect(self.address, QUEUE).await
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Its process, to be ended.
    pub fn into_process(self) -> Process {
        self.process
    }
}

#[track_caller]
fn launch(arguments: &[String], address: SocketAddr, http: SocketAddr, folder: &TempDir) -> Process {
    let mut command = Command::new(super::binary("ackwelld"));
    command.args(["sidecar", "--namespace", NAMESPACE, "--queues", QUEUE]).args(arguments);
    command.args(["--listen", &address.to_string(), "--http", &http.to_string()]);
    let mut process = Process::start(&mut command, &folder.path().join("log"));
    process.wait_ready(http);
    process
}

/// Tells the sidecar at `address` that its pod ends, as its container's preStop hook does.
///
/// # Errors
///
/// When that is not so: with what the hook printed.
pub fn drain(address: SocketAddr) -> anyhow::Result<()> {
    let output = Command::new(super::binary("ackwelld"))
        .args(["drain", "--address", &address.to_string()])
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
