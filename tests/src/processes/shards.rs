//! The brokers of a queue with several shards, and what an operator does with them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{ConfigureRequest, Moving, Placement, QueueConfig, QueueSettings};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use super::broker::{Broker, NAMESPACE, QUEUE};
use super::sidecar::Sidecar;
use crate::certificates::{Authority, Shown, replace, text};
use crate::ports;

/// Of certificates: longer than any test.
const LIFE: Duration = Duration::from_hours(2);

/// Some brokers of one queue. Those that a placement does not name are there and are told nothing.
pub struct Shards {
    brokers: Vec<Broker>,
    config: QueueConfig,
}

/// A placement.
pub fn placement(generation: u64, from: u32, to: u32) -> Placement {
    Placement { generation, from, to }
}

impl Shards {
    /// Starts as many as the placement needs, of `count` that there may be.
    #[track_caller]
    pub fn start(count: u32, settings: QueueSettings, first: Placement) -> Self {
        Self::start_with(count, settings, first, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_with(count: u32, settings: QueueSettings, first: Placement, arguments: &[&str]) -> Self {
        let addresses: Vec<SocketAddr> = (0..count).map(|_| ports::free()).collect();
        let config = QueueConfig {
            namespace: NAMESPACE.to_owned(),
            name: QUEUE.to_owned(),
            generation: 1,
            shard_addresses: addresses.iter().map(SocketAddr::to_string).collect(),
            settings: Some(settings),
            access: None,
            placement: Some(first),
            restoring: false,
        };
        let prepare = |(ordinal, address): (u32, &SocketAddr)| {
            Broker::prepare_shard(Some(ordinal), *address, config.clone()).with(arguments)
        };
        let mut brokers: Vec<Broker> = (0..).zip(&addresses).map(prepare).collect();
        brokers.iter_mut().take(first.from.max(first.to) as usize).for_each(Broker::restart);
        let mut shards = Self { brokers, config };
        shards.note(first);
        shards
    }

    /// What brokers start with from now on. Starts those that are new.
    pub fn note(&mut self, placement: Placement) {
        let count = placement.from.max(placement.to) as usize;
        let shard_addresses =
            self.brokers.iter().take(count).map(|broker| broker.address().to_string()).collect();
        self.config = QueueConfig { placement: Some(placement), shard_addresses, ..self.config.clone() };
        let config = &self.config;
        self.brokers.iter_mut().for_each(|broker| broker.set_config(config.clone()));
    }

    /// Some brokers of a new queue that is being restored, or is open.
    #[must_use]
    #[track_caller]
    pub fn restoring(mut self, restoring: bool) -> Self {
        self.config.restoring = restoring;
        self.config.generation += 1;
        let config = &self.config;
        self.brokers.iter_mut().for_each(|broker| broker.set_config(config.clone()));
        self
    }

    /// Tells one of them, and asks how it gets on.
    pub async fn tell(&self, ordinal: usize) -> anyhow::Result<Moving> {
        let address = format!("http://{}", self.brokers[ordinal].address());
        let mut client = ShardClient::new(Endpoint::from_shared(address)?.connect().await?);
        let request = ConfigureRequest { config: Some(self.config.clone()) };
        let response = client.configure(request).await?.into_inner();
        response.moving.ok_or_else(|| anyhow::anyhow!("it says how it gets on"))
    }

    /// Tells all that run, and fails unless each has nothing left to do.
    pub async fn done(&self, count: usize) -> anyhow::Result<()> {
        for ordinal in 0..count {
            let moving = self.tell(ordinal).await?;
            anyhow::ensure!(moving.done, "shard {ordinal}: {moving:?}");
        }
        Ok(())
    }

    /// Where they serve.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.brokers.iter().map(Broker::address)
    }

    /// One of them.
    pub fn broker(&mut self, ordinal: usize) -> &mut Broker {
        &mut self.brokers[ordinal]
    }
}

/// What shards show each other. They are told apart by their ports, which certificates do not have.
pub struct Certificates {
    folder: TempDir,
    /// Who issued them.
    pub authority: Authority,
    /// The one of all shards.
    pub shown: Shown,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// Of one authority, the same for all shards.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a machine has a temporary folder");
        let (authority, shown) = (Authority::new("authority"), Shown::in_folder(folder.path()));
        authority.issue("127.0.0.1", LIFE, &shown);
        replace(&folder.path().join("ca.crt"), authority.pem());
        Self { folder, authority, shown }
    }

    /// The file with the authority.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Shards of whom the test may ask plainly how they get on, as through `kubectl port-forward`.
    pub fn shards(&self, count: u32, settings: QueueSettings, first: Placement) -> Shards {
        let bundle = self.bundle();
        let tls = [&self.shown.flags()[..], &["--plain-loopback", "--broker-ca", text(&bundle)]].concat();
        Shards::start_with(count, settings, first, &tls)
    }

    /// A sidecar that trusts it.
    pub fn sidecar(&self, broker: &Broker) -> Sidecar {
        Sidecar::start_with(broker, &["--broker-ca", text(&self.bundle())])
    }
}
