//! The queues that this process serves.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use ackwell_engine::message::QueueId;
use ackwell_engine::moving::Place;
use ackwell_engine::{Command, Reply, command};
use ackwell_proto::v1::{self, QueueConfig};
use ackwell_proto::{Failure, QueueName, Reason};

use super::convert::moves;
use super::settings::settings;
use super::shard::Shard;

/// A queue by name, with what its brokers need to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) id: QueueId,
    pub(crate) config: Arc<QueueConfig>,
}

/// All of them.
#[derive(Clone)]
pub(crate) struct Queues {
    default_namespace: Arc<str>,
    /// Of the shard that this process is; `None`: there is no other.
    ordinal: Option<u32>,
    by_name: Arc<RwLock<BTreeMap<QueueName, Served>>>,
}

impl Queues {
    pub(crate) fn new(default_namespace: &str, ordinal: Option<u32>) -> Self {
        Self { default_namespace: default_namespace.into(), ordinal, by_name: Arc::default() }
    }

    /// The queue of that name, or a refusal that names those there are.
    pub(crate) fn find(&self, name: &str) -> Result<Served, Failure> {
        let name = self.parse(name)?;
        self.lock().get(&name).cloned().ok_or_else(|| self.unknown(&name))
    }

    /// Serves a queue, or changes its settings.
    pub(crate) async fn add(&self, shard: &Shard, config: QueueConfig) -> Result<u64, Failure> {
        let name = self.parse(&format!("{}/{}", config.namespace, config.name))?;
        let settings = settings(&config.settings.unwrap_or_default())?;
        let configure =
            command::Configure { name: name.to_string(), generation: config.generation, settings };
        match shard.apply(Command::Configure(configure)).await? {
            Reply::Configured(id, generation) => {
                self.place(shard, id, config.placement).await?;
                self.serve(name, Served { id, config: Arc::new(config) });
                Ok(generation)
            }
            other => unreachable!("a Configure is answered by its generation, not {other:?}"),
        }
    }

    /// The newest placement is kept, whatever else the config says.
    async fn place(
        &self,
        shard: &Shard,
        queue: QueueId,
        placement: Option<v1::Placement>,
    ) -> Result<(), Failure> {
        let Some((placement, ordinal)) = placement.zip(self.ordinal) else { return Ok(()) };
        let placement = moves::placement(placement, ordinal)?;
        let has = shard.look(move |view| view.engine.placement(queue)).await?;
        if placement.generation > has.generation {
            shard.apply(Command::Place(Place { queue, placement })).await?;
        }
        Ok(())
    }

    /// An older config than the store's is still where the queue is known from. It only gives way to what came after it.
    fn serve(&self, name: QueueName, served: Served) {
        let mut by_name = self.by_name.write().expect(POISON);
        let age = |config: &QueueConfig| {
            (config.generation, config.placement.map_or(0, |placement| placement.generation))
        };
        let is_newer = |known: &Served| age(&known.config) > age(&served.config);
        if !by_name.get(&name).is_some_and(is_newer) {
            by_name.insert(name, served);
        }
    }

    /// Changes the settings of a queue that is served here.
    pub(crate) async fn change(&self, shard: &Shard, config: QueueConfig) -> Result<u64, Failure> {
        self.find(&format!("{}/{}", config.namespace, config.name))?;
        self.add(shard, config).await
    }

    /// Which shard this process is.
    pub(crate) fn ordinal(&self) -> Result<u32, Failure> {
        self.ordinal
            .ok_or_else(|| Failure::invalid("this broker is no shard of several: it has no --ordinal"))
    }

    /// Every queue, with its config.
    pub(crate) fn served(&self) -> Vec<Served> {
        self.lock().values().cloned().collect()
    }

    /// Every queue, for metrics.
    pub(crate) fn all(&self) -> Vec<(QueueName, QueueId)> {
        self.lock().iter().map(|(name, served)| (name.clone(), served.id)).collect()
    }

    fn parse(&self, name: &str) -> Result<QueueName, Failure> {
        QueueName::parse(name, &self.default_namespace).map_err(|error| Failure::invalid(error.to_string()))
    }

    fn unknown(&self, name: &QueueName) -> Failure {
        let known: Vec<String> = self.lock().keys().take(10).map(QueueName::to_string).collect();
        Failure::new(
            Reason::QueueNotFound,
            format!("queue {name} is not served here; there is: {}", known.join(", ")),
        )
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<QueueName, Served>> {
        self.by_name.read().expect(POISON)
    }
}

const POISON: &str = "no code that holds this lock can panic";
