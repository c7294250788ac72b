//! The queues that this process serves.

mod lease;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use ackwell_engine::message::QueueId;
use ackwell_engine::moving::Place;
use ackwell_engine::{Command, Reply, command};
use ackwell_proto::v1::{self, QueueConfig};
use ackwell_proto::{Failure, QueueName, Reason};
use tokio::sync::watch;

use super::access::{Access, BadTokens, Caller, Proved, Sender, Verb};
use super::convert::moves;
use super::refusal;
use super::settings::settings;
use super::shard::Shard;
pub(crate) use lease::Lease;

/// A queue by name, with what its brokers need to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) id: QueueId,
    pub(crate) config: Arc<QueueConfig>,
    /// Nothing where everybody may do everything.
    access: Option<Arc<Access>>,
}

impl Served {
    /// `namespace/name`, whatever the caller called it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    /// Whether callers have to prove who they are.
    pub(crate) fn is_guarded(&self) -> bool {
        self.access.is_some()
    }
}

/// A queue that a caller may do with what it wants.
pub(crate) struct Allowed {
    pub(crate) served: Served,
    /// Who that is, where it had to be proved.
    pub(crate) sender: Sender,
}

/// All of them.
#[derive(Clone)]
pub(crate) struct Queues {
    default_namespace: Arc<str>,
    /// Of the shard that this process is; `None`: there is no other.
    ordinal: Option<u32>,
    by_name: Arc<RwLock<BTreeMap<QueueName, Served>>>,
    /// Told after each change of `by_name`.
    changes: watch::Sender<()>,
    bad_tokens: Arc<BadTokens>,
}

impl Queues {
    pub(crate) fn new(default_namespace: &str, ordinal: Option<u32>) -> Self {
        Self {
            default_namespace: default_namespace.into(),
            ordinal,
            by_name: Arc::default(),
            changes: watch::Sender::default(),
            bad_tokens: Arc::default(),
        }
    }

    /// The queue of that name, or a refusal that names those there are.
    pub(crate) fn find(&self, name: &str) -> Result<Served, Failure> {
        let name = self.parse(name)?;
        self.lock().get(&name).cloned().ok_or_else(|| self.unknown(&name))
    }

    /// The queue of that name, if the caller may do this with it.
    pub(crate) fn allow(&self, caller: &Caller, verb: Verb, name: &str) -> Result<Allowed, Failure> {
        let served = self.find(name)?;
        let sender = self.prove(&served, caller, verb)?.map(|proved| proved.account);
        if served.config.restoring && !matches!(verb, Verb::Look | Verb::Configure) {
            return Err(refusal::restoring());
        }
        Ok(Allowed { served, sender })
    }

    /// What a call that lasts, and was allowed, goes on by.
    pub(crate) fn lease(&self, caller: Caller, verb: Verb, name: &str) -> Lease {
        Lease::new(self.clone(), caller, verb, name)
    }

    /// Nothing where nobody has to prove anything.
    fn prove(&self, served: &Served, caller: &Caller, verb: Verb) -> Result<Option<Proved>, Failure> {
        served.access.as_ref().map(|access| access.allow(caller, verb, &self.bad_tokens)).transpose()
    }

    /// Serves a queue, or changes the settings of one that is served.
    pub(crate) async fn add(&self, shard: &Shard, config: QueueConfig) -> Result<u64, Failure> {
        let name = self.parse(&format!("{}/{}", config.namespace, config.name))?;
        let settings = settings(&config.settings.unwrap_or_default())?;
        let access = config.access.clone().map(Access::new).transpose()?.map(Arc::new);
        let configure =
            command::Configure { name: name.to_string(), generation: config.generation, settings };
        match shard.apply(Command::Configure(configure)).await? {
            Reply::Configured(id, generation) => {
                self.place(shard, id, config.placement).await?;
                self.serve(name, Served { id, config: Arc::new(config), access });
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
        drop(by_name);
        self.changes.send_replace(());
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
        let by_name = self.lock();
        // Names are told to those only who need not say who they are.
        let open = by_name.iter().filter(|(_, served)| served.access.is_none());
        let known: Vec<String> = open.take(10).map(|(name, _)| name.to_string()).collect();
        let known =
            if known.is_empty() { String::new() } else { format!("; there is: {}", known.join(", ")) };
        Failure::new(Reason::QueueNotFound, format!("queue {name} is not served here{known}"))
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<QueueName, Served>> {
        self.by_name.read().expect(POISON)
    }
}

const POISON: &str = "no code that holds this lock can panic";
