//! Hands messages to the shards whose they are, page by page, while a placement says that they move.
//!
//! What is done is decided by the engines of both sides, by commands that are safe to repeat: this task only carries.
//! docs/adr/0008-shards-move.md has the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_engine::message::QueueId;
use ackwell_engine::moving::{Depart, Departing, Forget, Leaving, Placement, Traveller};
use ackwell_engine::slots::Slot;
use ackwell_engine::{Command, Reply};
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{ImportRequest, QueueConfig};
use ackwell_proto::{Failure, Reason, v1};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Channel;

use super::convert::moves;
use super::refusal::{self, failure};
use super::served::{Queues, Served};
use super::shard::Shard;
use crate::tls::Peers;

/// What was in flight is looked at again.
const ROUND_EVERY: Duration = Duration::from_millis(200);
/// A new placement is noticed within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A page is written by then even on a slow disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A page: small enough not to hold up the target's senders.
const PAGE_MESSAGES: usize = 500;
const PAGE_BYTES: u64 = 4 << 20;

/// How moves get on, by queue.
#[derive(Clone, Default)]
pub(crate) struct Reports(Arc<Mutex<BTreeMap<QueueId, Report>>>);

/// How a queue's move gets on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The placement for which every target accepts, and knows that nothing is left here.
    told: Option<u64>,
    /// Why nothing has moved lately; empty: it did.
    pub(crate) blocked: String,
}

impl Report {
    /// Whether every target of the placement knows that nothing is left here.
    pub(crate) fn is_told(&self, generation: u64) -> bool {
        self.told == Some(generation)
    }
}

impl Reports {
    pub(crate) fn of(&self, queue: QueueId) -> Report {
        self.lock().get(&queue).cloned().unwrap_or_default()
    }

    fn change(&self, queue: QueueId, change: impl FnOnce(&mut Report)) {
        change(self.lock().entry(queue).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<QueueId, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task, which ends when the process is `stopping`.
pub(crate) fn start(
    shard: &Shard,
    queues: &Queues,
    stopping: &CancellationToken,
    (sessions, peers): (&TaskTracker, Peers),
) -> Reports {
    let reports = Reports::default();
    let mover = Mover {
        peers,
        shard: shard.clone(),
        reports: reports.clone(),
        moves: BTreeMap::new(),
        settled: BTreeMap::new(),
    };
    let (queues, stopping) = (queues.clone(), stopping.clone());
    sessions.spawn(async move {
        tokio::select! { () = mover.run(queues) => {}, () = stopping.cancelled() => {} }
    });
    reports
}

struct Mover {
    peers: Peers,
    shard: Shard,
    reports: Reports,
    moves: BTreeMap<QueueId, Move>,
    /// Placements for which there is nothing to do here, and will not be.
    settled: BTreeMap<QueueId, v1::Placement>,
}

/// What is known of a queue's move: nothing that cannot be asked again.
#[derive(Default)]
struct Move {
    generation: u64,
    /// Targets that store what is sent to the slots which go there.
    accepting: BTreeSet<u32>,
    /// What each was told last of what still waits here.
    told: BTreeMap<u32, Vec<Slot>>,
    channels: BTreeMap<String, Channel>,
}

/// One queue, as it stands at the beginning of a round.
struct Scene<'a> {
    queue: QueueId,
    config: &'a QueueConfig,
    leaving: Leaving,
}

impl Scene<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    fn import(&self) -> ImportRequest {
        let Placement { generation, ordinal, .. } = self.leaving.placement;
        ImportRequest { queue: self.name(), generation, source: ordinal, ..ImportRequest::default() }
    }
}

impl Mover {
    async fn run(mut self, queues: Queues) {
        loop {
            let mut is_blocked = false;
            for Served { id, config, .. } in queues.served() {
                if config.placement.is_none() || self.settled.get(&id) == config.placement.as_ref() {
                    continue;
                }
                if let Err(failure) = self.round(id, &config).await {
                    tracing::warn!(queue = config.name, %failure, "messages do not move");
                    self.reports.change(id, |report| report.blocked = failure.to_string());
                    // What a connection was made with, certificates above all, may have changed.
                    self.moves.entry(id).or_default().channels.clear();
                    is_blocked = true;
                }
            }
            let pause = if self.moves.is_empty() || is_blocked { LOOK_EVERY } else { ROUND_EVERY };
            tokio::time::sleep(pause).await;
        }
    }

    /// Moves all that can be moved now.
    async fn round(&mut self, queue: QueueId, config: &QueueConfig) -> Result<(), Failure> {
        let look =
            move |view: super::shard::View<'_>| (view.engine.placement(queue), view.engine.leaving(queue));
        let (placement, leaving) = self.shard.look(look).await?;
        let Some(leaving) = leaving else {
            self.moves.remove(&queue);
            // Only of the placement that it was told last nothing more can follow.
            let is_newest = |told: &v1::Placement| told.generation == placement.generation;
            if let Some(told) = config.placement.filter(|told| is_newest(told) && told.from == told.to) {
                self.settled.insert(queue, told);
            }
            return Ok(());
        };
        let generation = leaving.placement.generation;
        let going = self.moves.entry(queue).or_default();
        if going.generation != generation {
            *going = Move { generation, ..Move::default() };
        }
        let mut scene = Scene { queue, config, leaving };
        for target in scene.leaving.targets.clone() {
            self.open(&scene, target).await?;
        }
        while scene.leaving.can_depart {
            self.carry_next(&scene).await?;
            let Some(leaving) = self.shard.look(move |view| view.engine.leaving(queue)).await? else { break };
            if leaving.placement.generation != generation {
                return Ok(());
            }
            scene.leaving = leaving;
        }
        for target in scene.leaving.targets.clone() {
            self.tell_waiting(&scene, target).await?;
        }
        let told = scene.leaving.is_left.then_some(generation);
        self.reports.change(queue, |report| *report = Report { told, blocked: String::new() });
        Ok(())
    }

    /// Has the target keep places, and gives it the dedup ids; from then on it stores what is sent to the slots.
    async fn open(&mut self, scene: &Scene<'_>, target: u32) -> Result<(), Failure> {
        if self.going(scene).accepting.contains(&target) {
            return Ok(());
        }
        let mut client = self.client(scene, target)?;
        let request = moves::arrive_to(scene.name(), &scene.leaving);
        let arrived = client.arrive(request).await.map_err(|status| told(target, &status))?.into_inner();
        if !arrived.accepts {
            self.hand_over_dedup_ids(scene, target, &mut client).await?;
        }
        self.going(scene).accepting.insert(target);
        Ok(())
    }

    async fn hand_over_dedup_ids(
        &self,
        scene: &Scene<'_>,
        target: u32,
        client: &mut ShardClient<Channel>,
    ) -> Result<(), Failure> {
        let (queue, mut after, mut accepts) = (scene.queue, String::new(), false);
        while !accepts {
            let behind = after.clone();
            let look = move |view: super::shard::View<'_>| {
                view.engine.dedup_ids(queue, &behind, moves::MAX_DEDUP_IDS)
            };
            let page = self.shard.look(look).await?;
            accepts = page.len() < moves::MAX_DEDUP_IDS;
            after = page.last().map(|known| known.dedup_id.clone()).unwrap_or_default();
            let dedup_ids = page.into_iter().map(moves::remembered_id_to).collect();
            let request = ImportRequest { dedup_ids, accepts, ..scene.import() };
            client.import(request).await.map_err(|status| told(target, &status))?;
        }
        Ok(())
    }

    /// The next page, if there is one: what was looked at may all be at home, or in flight.
    async fn carry_next(&mut self, scene: &Scene<'_>) -> Result<(), Failure> {
        let depart = Depart { queue: scene.queue, max_messages: PAGE_MESSAGES, max_bytes: PAGE_BYTES };
        match self.shard.apply(Command::Depart(depart)).await? {
            Reply::Departing(Some(page)) => self.carry(scene, &page).await,
            Reply::Departing(None) => Ok(()),
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("a Depart is not answered by {other:?}"),
        }
    }

    async fn carry(&mut self, scene: &Scene<'_>, page: &Departing) -> Result<(), Failure> {
        let (queue, target, transfer) = (scene.queue, page.target, page.transfer);
        self.open(scene, target).await?;
        let look = move |view: super::shard::View<'_>| {
            (view.engine.travellers(queue), view.engine.waiting(queue, target))
        };
        let (travellers, waiting) = self.shard.look(look).await?;
        let travellers = travellers.map_err(|error| refusal::storage_failure(&error))?;
        let messages = Bytes::from(Traveller::encode(&travellers));
        let waiting = Some(moves::slots_to(&waiting));
        let request = ImportRequest { transfer, messages, waiting, ..scene.import() };
        self.client(scene, target)?.import(request).await.map_err(|status| told(target, &status))?;
        self.shard.apply(Command::Forget(Forget { queue, target, transfer })).await?;
        Ok(())
    }

    /// Lets the target hand out what waited for messages that are not here any more.
    async fn tell_waiting(&mut self, scene: &Scene<'_>, target: u32) -> Result<(), Failure> {
        let queue = scene.queue;
        let waiting = self.shard.look(move |view| view.engine.waiting(queue, target)).await?;
        if self.going(scene).told.get(&target) == Some(&waiting) {
            return Ok(());
        }
        let request = ImportRequest { waiting: Some(moves::slots_to(&waiting)), ..scene.import() };
        self.client(scene, target)?.import(request).await.map_err(|status| told(target, &status))?;
        self.going(scene).told.insert(target, waiting);
        Ok(())
    }

    fn going(&mut self, scene: &Scene<'_>) -> &mut Move {
        self.moves.entry(scene.queue).or_default()
    }

    fn client(&mut self, scene: &Scene<'_>, target: u32) -> Result<ShardClient<Channel>, Failure> {
        let address = scene.config.shard_addresses.get(target as usize).ok_or_else(|| {
            Failure::new(Reason::BrokerUnavailable, format!("the address of shard {target} is not known yet"))
        })?;
        if let Some(channel) = self.going(scene).channels.get(address) {
            return Ok(ShardClient::new(channel.clone()));
        }
        let channel = self.peers.dial(address, CONNECT_TIMEOUT, CALL_TIMEOUT)?;
        self.going(scene).channels.insert(address.clone(), channel.clone());
        Ok(ShardClient::new(channel))
    }
}

/// What a target refused, with its name; what its connection says, as being away.
fn told(target: u32, status: &Status) -> Failure {
    let refused = Failure::from_status(status);
    let reason = refused.as_ref().map_or(Reason::BrokerUnavailable, |failure| failure.reason);
    Failure::new(reason, format!("shard {target}: {}", status.message()))
}
