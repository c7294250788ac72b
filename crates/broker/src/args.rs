//! The command line of `ackwelld`, and the only place that knows its environment variables, but for those of [`Variables`].

use std::net::{AddrParseError, SocketAddr};
use std::path::{Path, PathBuf};

use ackwell_proto::QueueName;
use ackwell_proto::v1::QueueConfig;
use ackwelld::tls::ServerFiles;
use ackwelld::traces::Variables;
use ackwelld::{backup, broker, sidecar};
use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

/// The daemon of Ackwell queues.
#[derive(Parser)]
#[command(name = "ackwelld", version, about)]
pub(crate) struct Args {
    /// What to log: error, warn, info, debug, trace, or per module (tracing-subscriber's filter).
    #[arg(long, env = "ACKWELL_LOG", default_value = "info", global = true)]
    pub(crate) log: String,
    /// How to log.
    #[arg(long, env = "ACKWELL_LOG_FORMAT", default_value = "json", global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) role: Role,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// One object a line.
    Json,
    /// For people.
    Text,
}

#[derive(Subcommand)]
pub(crate) enum Role {
    /// Store messages: one shard of a Queue.
    Broker(Broker),
    /// Serve the API on loopback, routed to brokers.
    Sidecar(Sidecar),
    /// Tell the sidecar of this pod that the pod ends: no more deliveries; sends and settlements go on. Its preStop hook.
    Drain(Drain),
    /// Copy what all shards of a queue have into files. Ends when that is done.
    Backup(Backup),
    /// Store what a backup has in the shards of a new queue. Ends when that is done.
    Restore(Restore),
}

/// With fewer, every batch of a busy queue would begin a checkpoint.
const LEAST_ROWS: u64 = 10_000;
/// 20 GB.
const MOST_ROWS: u64 = 100_000_000;

#[derive(clap::Args)]
pub(crate) struct Broker {
    /// The queue and its settings: a `QueueConfig` in JSON.
    #[arg(long, default_value = "/etc/ackwell/queue.json")]
    config: PathBuf,
    /// Folder of the store; made when missing.
    #[arg(long, default_value = "/var/lib/ackwell")]
    data: PathBuf,
    /// Keep what is known of so many messages in memory, about 200 bytes each; of the others it is read from disk when it is
    /// needed. Bodies are on disk.
    #[arg(long, default_value_t = broker::MAX_ROWS as u64, value_parser = clap::value_parser!(u64).range(LEAST_ROWS..=MOST_ROWS))]
    max_rows: u64,
    /// Seal all that is stored with the keys in this folder, a file each: 32 bytes in base64, as `openssl rand -base64 32` makes
    /// them. The one whose name comes last seals what is new; the others still open what they sealed. Looked at every five seconds.
    /// A store that was made without cannot be sealed afterwards.
    #[arg(long, value_name = "DIR")]
    encryption_keys: Option<PathBuf>,
    /// gRPC. With the address of its pod a sidecar can have the same port on loopback.
    #[arg(long, default_value = "0.0.0.0:7400", value_parser = address)]
    listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, default_value = "0.0.0.0:7410")]
    http: SocketAddr,
    /// Certificate to show, with those between it and its authority: PEM. Read again when it changes. Without it
    /// connections are plain, which is for one machine only. Other shards of the queue have to show one that is good for their
    /// own address.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate: PEM.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Take plain connections from the loopback address all the same, which is how `kubectl port-forward` arrives.
    #[arg(long, requires = "tls_cert")]
    plain_loopback: bool,
    /// Which of the queue's shards this is; without, it takes the messages of all keys.
    #[arg(long, env = "ACKWELL_ORDINAL")]
    ordinal: Option<u32>,
    /// Authorities of the certificates that the other shards show, which hand messages over to this one and get some of it: PEM.
    /// Read again when it changes. Without it, where there is a certificate, no messages move.
    #[arg(long = "broker-ca", requires = "tls_cert")]
    authorities: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) traces: Variables,
}

#[derive(clap::Args)]
pub(crate) struct Sidecar {
    /// Namespace of queue names without one: the pod's own.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Queues that may be used, comma-separated; without: every queue of the namespace.
    #[arg(long, value_delimiter = ',')]
    queues: Vec<String>,
    /// gRPC.
    #[arg(long, default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// gRPC on this UNIX socket too; whoever reaches the file may connect.
    #[arg(long)]
    unix_socket: Option<PathBuf>,
    /// Health and metrics.
    #[arg(long, default_value = "0.0.0.0:7410")]
    http: SocketAddr,
    /// Where a queue's brokers answer; {queue} and {namespace} are filled in.
    #[arg(long, default_value = sidecar::DEFAULT_BROKER_ADDRESS)]
    broker_address: String,
    /// Where to ask first for the brokers of one queue, instead: `queue=host:port`. May be given more than once.
    #[arg(long = "entry", value_parser = entry, value_name = "QUEUE=ADDRESS")]
    entries: Vec<(String, String)>,
    /// Authorities whose certificates brokers have to show, for the name that is dialled: PEM. Read again when it
    /// changes. Without it connections are plain, which is for one machine only.
    #[arg(long)]
    broker_ca: Option<PathBuf>,
    /// Token of a ServiceAccount to show to brokers. Read again when it changes.
    #[arg(long, requires = "broker_ca")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) traces: Variables,
}

#[derive(clap::Args)]
pub(crate) struct Drain {
    /// Where the sidecar listens.
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub(crate) address: SocketAddr,
}

/// The shards of a queue, and how to reach them.
#[derive(clap::Args)]
pub(crate) struct Reach {
    /// The queue, as NAMESPACE/NAME.
    #[arg(long)]
    queue: String,
    /// Where a shard answers, host:port; once for each, by ordinal.
    #[arg(long = "shard", required = true, value_name = "ADDRESS")]
    shards: Vec<String>,
    /// Certificate to show to them: PEM. Without it connections are plain, which is for one machine only.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate: PEM.
    #[arg(long, requires = "authorities")]
    tls_key: Option<PathBuf>,
    /// Authorities of the certificates that they show: PEM.
    #[arg(long = "broker-ca", requires = "tls_cert")]
    authorities: Option<PathBuf>,
    /// Write here, as JSON, what was done or why not: a container's termination log.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Names the backup: for the same name it is made once.
    #[arg(long)]
    pub(crate) task: String,
    /// Folder to write into; made when missing. One that has another backup is left as it is.
    #[arg(long = "to", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Folder of the backup.
    #[arg(long = "from", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

impl Reach {
    pub(crate) fn reach(&self) -> backup::Reach {
        let own = self.tls_cert.clone().zip(self.tls_key.clone());
        let own = own.map(|(certificate, key)| ServerFiles { certificate, key, plain_loopback: false });
        let tls = own.zip(self.authorities.clone());
        backup::Reach { queue: self.queue.clone(), shards: self.shards.clone(), tls }
    }
}

impl Broker {
    pub(crate) fn options(self) -> anyhow::Result<broker::Options> {
        let config = read_config(&self.config)?;
        let plain_loopback = self.plain_loopback;
        let tls = self.tls_cert.zip(self.tls_key);
        Ok(broker::Options {
            data: self.data,
            max_rows: usize::try_from(self.max_rows)?,
            encryption_keys: self.encryption_keys,
            listen: self.listen,
            http: Some(self.http),
            tls: tls.map(|(certificate, key)| ServerFiles { certificate, key, plain_loopback }),
            namespace: config.namespace.clone(),
            ordinal: self.ordinal,
            broker_ca: self.authorities,
            queues: vec![config],
        })
    }
}

impl Sidecar {
    pub(crate) fn options(self) -> anyhow::Result<sidecar::Options> {
        let queues = self
            .queues
            .iter()
            .map(|name| QueueName::parse(name, &self.namespace))
            .collect::<Result<_, _>>()?;
        let name = |(queue, address): (String, String)| {
            anyhow::Ok((QueueName::parse(&queue, &self.namespace)?, address))
        };
        let entries = self.entries.into_iter().map(name).collect::<Result<_, _>>()?;
        Ok(sidecar::Options {
            listen: self.listen,
            unix_socket: self.unix_socket,
            http: Some(self.http),
            namespace: self.namespace,
            queues,
            broker_address: self.broker_address,
            entries,
            broker_ca: self.broker_ca,
            token: self.token_file,
        })
    }
}

/// Also one of IPv6 without brackets, as Kubernetes writes the address of a pod.
fn address(text: &str) -> Result<SocketAddr, AddrParseError> {
    let bare = || {
        let (host, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
    };
    text.parse().or_else(|error| bare().ok_or(error))
}

fn entry(text: &str) -> Result<(String, String), &'static str> {
    let (queue, address) = text.split_once('=').ok_or("expected QUEUE=HOST:PORT")?;
    Ok((queue.to_owned(), address.to_owned()))
}

fn read_config(path: &Path) -> anyhow::Result<QueueConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the queue's config {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse the queue's config {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kubernetes puts the address of the pod into `--listen`, and writes it without brackets.
    #[test]
    fn address_of_a_pod_is_taken_in_both_families() {
        for (text, expected) in [
            ("10.244.0.7:7400", "10.244.0.7:7400"),
            ("fd00:10:244::7:7400", "[fd00:10:244::7]:7400"),
            ("[fd00:10:244::7]:7400", "[fd00:10:244::7]:7400"),
        ] {
            assert_eq!(address(text).unwrap(), expected.parse().unwrap());
        }
        for wrong in ["7400", "fd00::7:", "fd00::7:port", "broker:7400"] {
            address(wrong).expect_err(wrong);
        }
    }
}
