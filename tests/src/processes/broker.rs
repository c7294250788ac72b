//! `ackwelld broker` on a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ackwell_proto::v1::{Access, Backoff, BackoffPolicy, QueueConfig, QueueSettings};
use tempfile::TempDir;

use super::process::{Process, get};
use crate::caller::Caller;
use crate::ports;

/// The queue that brokers of tests serve, unless told otherwise.
pub const QUEUE: &str = "orders";
/// Its namespace.
pub const NAMESPACE: &str = "shop";

/// A broker: its addresses and folder outlive its processes.
pub struct Broker {
    process: Option<Process>,
    address: SocketAddr,
    http: SocketAddr,
    folder: TempDir,
    config: QueueConfig,
    more: Vec<String>,
    /// Among other shards.
    ordinal: Option<u32>,
}

/// Settings as a Queue's defaults make them, but with times that a test can wait for.
pub fn settings() -> QueueSettings {
    QueueSettings {
        ack_timeout_seconds: 30,
        max_processing_seconds: 1800,
        max_attempts: 10,
        backoff: Some(Backoff { policy: BackoffPolicy::Constant.into(), min_seconds: 1, max_seconds: 1 }),
        max_messages: 0,
        max_bytes: 0,
        max_message_bytes: 1 << 20,
        max_in_flight: 100_000,
        dead_seconds: 1_209_600,
        dedup_window_seconds: 600,
        dead_letter_expired: true,
    }
}

impl Broker {
    /// Starts one on an empty folder.
    #[track_caller]
    pub fn start(settings: QueueSettings) -> Self {
        let mut broker = Self::prepare(settings);
        broker.restart();
        broker
    }

    /// Everything but the process.
    pub fn prepare(settings: QueueSettings) -> Self {
        let address = ports::free();
        let config = QueueConfig {
            placement: None,
            restoring: false,
            namespace: NAMESPACE.to_owned(),
            name: QUEUE.to_owned(),
            generation: 1,
            shard_addresses: vec![address.to_string()],
            settings: Some(settings),
            access: None,
        };
        Self::prepare_shard(None, address, config)
    }

    /// One shard of several.
    pub(super) fn prepare_shard(ordinal: Option<u32>, address: SocketAddr, config: QueueConfig) -> Self {
        let folder = tempfile::tempdir().expect("a machine has a temporary folder");
        let http = ports::free();
        let broker = Self { process: None, address, http, folder, config, more: Vec::new(), ordinal };
        broker.write_config();
        broker
    }

    /// What its next process starts with.
    pub(super) fn set_config(&mut self, config: QueueConfig) {
        self.config = config;
        self.write_config();
    }

    /// Serves those whom `access` lets in, from its next start on.
    #[must_use]
    pub fn for_known(mut self, access: Access) -> Self {
        self.config.access = Some(access);
        self.write_config();
        self
    }

    fn write_config(&self) {
        let json = serde_json::to_vec_pretty(&self.config).expect("a config is JSON");
        std::fs::write(self.path("queue.json"), json).expect("a test can write into its own folder");
    }

    /// Changes who is let in while it runs, as an operator with this token does.
    pub async fn let_in(&mut self, operator: &Caller, access: Access) {
        self.config.access = Some(access);
        self.config.generation += 1;
        operator.configure(self.config.clone()).await.expect("the operator may configure");
    }

    /// Makes it one of several shards, as sidecars reach them, from its next start on.
    pub fn is_among(&self, shards: &[SocketAddr]) {
        let path = self.path("queue.json");
        let read = std::fs::read(&path).expect("it was written");
        let mut config: QueueConfig = serde_json::from_slice(&read).expect("it is a config");
        config.shard_addresses = shards.iter().map(ToString::to_string).collect();
        let json = serde_json::to_vec_pretty(&config).expect("a config is JSON");
        std::fs::write(path, json).expect("a test can write into its own folder");
    }

    /// Adds arguments to its command line, from its next start on.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Starts it on the same addresses and folder as before.
    #[track_caller]
    pub fn restart(&mut self) {
        let mut process = self.spawn();
        process.wait_ready(self.http);
        self.process = Some(process);
    }

    /// The same, where it will not serve.
    #[track_caller]
    pub fn spawn(&self) -> Process {
        let mut command = Command::new(super::binary("ackwelld"));
        command.arg("broker").arg("--config").arg(self.path("queue.json")).arg("--data").arg(self.data());
        command.args(["--listen", &self.address.to_string(), "--http", &self.http.to_string()]);
        command.args(&self.more);
        if let Some(ordinal) = self.ordinal {
            command.args(["--ordinal", &ordinal.to_string()]);
        }
        Process::start(&mut command, &self.path("log"))
    }

    /// Ends its process as a power cut would.
    pub fn kill(&mut self) {
        self.take().kill();
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the broker runs")
    }

    /// Its process, to be ended otherwise.
    pub fn take(&mut self) -> Process {
        self.process.take().expect("the broker runs")
    }

    /// Where it serves gRPC.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A caller of its queue.
    pub async fn caller(&self) -> Caller {
        Caller::connect(self.address, QUEUE).await
    }

    /// The metrics it shows.
    pub fn metrics(&self) -> String {
        get(self.http, "/metrics").expect("a broker that runs shows its metrics")
    }

    /// The memory it has in use, in bytes.
    pub fn memory(&self) -> u64 {
        self.process.as_ref().expect("the broker runs").memory()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What it is configured by.
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Where its store is.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}
