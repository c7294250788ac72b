//! Brokers and sidecars in processes of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell_proto::v1::{Backoff, BackoffPolicy, QueueConfig, QueueSettings};
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

use crate::clock::Stopwatch;
use crate::process::Observed;

/// The queue that brokers serve.
pub const QUEUE: &str = "orders";
const NAMESPACE: &str = "shop";
/// It is up, and gone after being told to stop, well within this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// A process `ackwelld`. Dropping it kills it.
pub struct Server {
    role: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a broker on an empty folder in `folder`, and waits until it is ready.
    pub async fn broker(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = free()?;
        let config = folder.join("queue.json");
        std::fs::write(&config, serde_json::to_vec(&queue(address))?).context("write the broker's config")?;
        let mut command = Command::new(program);
        command.arg("broker").arg("--config").arg(config).arg("--data").arg(folder.join("data"));
        Self::start("broker", command, address, folder).await
    }

    /// Starts a sidecar before a broker, and waits until it is ready.
    pub async fn sidecar(program: &Path, folder: &Path, broker: &Self) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["sidecar", "--namespace", NAMESPACE, "--queues", QUEUE]);
        command.args(["--broker-address", &broker.address.to_string()]);
        Self::start("sidecar", command, free()?, folder).await
    }

    async fn start(
        role: &'static str,
        mut command: Command,
        address: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let (http, path) = (free()?, folder.join(format!("{role}.log")));
        let log = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        command.args(["--listen", &address.to_string(), "--http", &http.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        let mut server = Self { role, child, address };
        let ready = server.wait_ready(http).await;
        ready.with_context(|| std::fs::read_to_string(path).unwrap_or_default())?;
        Ok(server)
    }

    async fn wait_ready(&mut self, http: SocketAddr) -> anyhow::Result<()> {
        let since = Stopwatch::start();
        while !is_ready(http) {
            ensure!(since.elapsed() < LIMIT, "the {} is not ready after {LIMIT:?}", self.role);
            if let Some(status) = self.child.try_wait()? {
                bail!("the {} ended with {status}", self.role);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A connection of its own, as our clients make them.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true);
        endpoint.connect().await.with_context(|| format!("connect to the {}", self.role))
    }

    /// Its process.
    pub fn observed(&self) -> Observed {
        Observed::with_id(self.child.id())
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Self { role, child, .. } = self;
        kill_process(Pid::from_child(child), Signal::TERM)
            .with_context(|| format!("tell the {role} to stop"))?;
        let since = Stopwatch::start();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the {role} ended with {status}");
                return Ok(());
            }
            ensure!(since.elapsed() < LIMIT, "the {role} still runs after {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn queue(address: SocketAddr) -> QueueConfig {
    let settings = QueueSettings {
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
    };
    QueueConfig {
        placement: None,
        restoring: false,
        namespace: NAMESPACE.to_owned(),
        name: QUEUE.to_owned(),
        generation: 1,
        shard_addresses: vec![address.to_string()],
        settings: Some(settings),
        access: None,
    }
}

/// One that nobody listens at just now.
fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

fn is_ready(http: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
