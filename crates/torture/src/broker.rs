//! `ackwelld broker` as a process that is killed and started again on the same addresses and folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell_client::Client;
use ackwell_proto::v1::{Backoff, BackoffPolicy, QueueConfig, QueueSettings};
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Stopwatch;

/// The queue that it serves.
pub(crate) const QUEUE: &str = "orders";
/// It is up, and gone after being told to stop, well within this, even on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// Dropping it kills the process.
pub(crate) struct Broker {
    program: PathBuf,
    data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    http: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    /// Everything but the process: the store is in `data`, the rest in `folder`.
    pub(crate) fn prepare(program: &Path, folder: &Path, data: &Path) -> anyhow::Result<Self> {
        let (address, http) = (free()?, free()?);
        let config = folder.join("queue.json");
        std::fs::write(&config, serde_json::to_vec(&queue(address))?).context("write the broker's config")?;
        let (program, data, log) = (program.to_owned(), data.to_owned(), folder.join("broker.log"));
        Ok(Self { program, data, config, log, address, http, child: None })
    }

    /// Starts the process, and does not wait for it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let open =
            || -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(&self.log) };
        let mut command = Command::new(&self.program);
        command.args(["broker", "--listen", &self.address.to_string(), "--http", &self.http.to_string()]);
        command.arg("--config").arg(&self.config).arg("--data").arg(&self.data);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it says that it is ready; how long that took.
    pub(crate) async fn wait_ready(&mut self) -> anyhow::Result<Duration> {
        let since = Stopwatch::start();
        while !self.is_ready() {
            ensure!(
                since.elapsed() < LIMIT,
                "the broker is not ready after {LIMIT:?}\n{}",
                self.last_words()
            );
            if let Some(status) = self.child()?.try_wait()? {
                bail!("the broker ended with {status}\n{}", self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(since.elapsed())
    }

    /// Ends the process, and waits until it is gone. Nothing is written down, nothing is closed.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("no broker runs")?;
        if let Some(status) = child.try_wait()? {
            bail!("the broker ended by itself with {status}\n{}", self.last_words());
        }
        child.kill().context("kill the broker")?;
        child.wait().context("wait for the broker")?;
        Ok(())
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(self.child()?), Signal::TERM).context("tell the broker to stop")?;
        let since = Stopwatch::start();
        loop {
            if let Some(status) = self.child()?.try_wait()? {
                ensure!(status.success(), "the broker ended with {status}\n{}", self.last_words());
                self.child = None;
                return Ok(());
            }
            ensure!(since.elapsed() < LIMIT, "the broker still runs after {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A connection of its own, which is made with the first call and again when it breaks.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect_lazy(&self.address.to_string())?)
    }

    /// Whether it says that it serves.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// How often it has logged that.
    pub(crate) fn said(&self, words: &str) -> usize {
        std::fs::read_to_string(&self.log).map_or(0, |log| log.matches(words).count())
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn child(&mut self) -> anyhow::Result<&mut Child> {
        self.child.as_mut().context("no broker runs")
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended before.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Deliveries whose answer was lost with the broker come back after a second, as often as it takes.
fn queue(address: SocketAddr) -> QueueConfig {
    let settings = QueueSettings {
        ack_timeout_seconds: 1,
        max_processing_seconds: 1800,
        max_attempts: 1_000_000,
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
