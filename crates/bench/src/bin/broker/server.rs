//! A broker in a process of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell_bench::clock::Stopwatch;
use ackwell_proto::v1::{Backoff, BackoffPolicy, QueueConfig, QueueSettings};
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

/// The queue that it serves.
pub(crate) const QUEUE: &str = "orders";
/// It is up, and gone after being told to stop, well within this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// Dropping it kills it.
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts it on an empty folder in `folder`, and waits until it is ready.
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (address, http) = (free()?, free()?);
        let config = folder.join("queue.json");
        std::fs::write(&config, serde_json::to_vec(&queue(address))?).context("write the broker's config")?;
        let log = File::create(folder.join("log")).context("make the broker's log")?;
        let child = Command::new(program)
            .args(["broker", "--listen", &address.to_string(), "--http", &http.to_string(), "--config"])
            .arg(config)
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut broker = Self { child, address };
        broker
            .wait_ready(http)
            .await
            .with_context(|| std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(broker)
    }

    async fn wait_ready(&mut self, http: SocketAddr) -> anyhow::Result<()> {
        let since = Stopwatch::start();
        while !is_ready(http) {
            ensure!(since.elapsed() < LIMIT, "the broker is not ready after {LIMIT:?}");
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A connection of its own, as our clients make them.
    pub(crate) async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true);
        endpoint.connect().await.context("connect to the broker")
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("tell the broker to stop")?;
        let since = Stopwatch::start();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the broker ended with {status}");
                return Ok(());
            }
            ensure!(since.elapsed() < LIMIT, "the broker still runs after {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Broker {
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
        namespace: "shop".to_owned(),
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
