//! What is read of a shard for a backup, and taken from one: by programs that the operator starts, which are known by
//! certificates that it gives them.
//!
//! Nothing is kept of a snapshot but how far it is, for people: the names of its store and placement, and the place where it ends, come
//! with every call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ackwell_engine::kept::Snapshot;
use ackwell_engine::message::{QueueId, Seq};
use ackwell_engine::moving::{Arrive, Import, Placement, Source};
use ackwell_engine::{Command, Reply};
use ackwell_proto::v1::read_snapshot_request::From;
use ackwell_proto::v1::{
    BeginRestoreRequest, BeginRestoreResponse, ReadSnapshotRequest, ReadSnapshotResponse, RestorePageRequest,
    RunTaskResponse, TaskState,
};
use ackwell_proto::{Failure, Reason, v1};

use super::Service;
use crate::broker::convert::backups;
use crate::broker::refusal::{failure, storage_failure};
use crate::broker::served::Served;
use crate::tls::Chain;

/// A page: read in some milliseconds, in which nobody else is served.
const PAGE_MESSAGES: usize = 250;
const PAGE_BYTES: u64 = 1 << 20;
const PAGE_DEDUP_IDS: usize = 1000;
/// Backups whose progress is known; one is made at a time.
const MAX_KNOWN: usize = 8;

/// Who calls.
#[derive(Clone, Copy)]
pub(super) enum Program {
    Backup,
    Restore,
}

/// How far the newest backups are, by the uid of their task. A broker that was restarted hears it with the next page.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<String, RunTaskResponse>>>);

impl Progress {
    fn note(&self, task: &str, answer: RunTaskResponse) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(task) {
            known.pop_first();
        }
        known.insert(task.to_owned(), answer);
    }

    pub(super) fn of(&self, task: &str) -> RunTaskResponse {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = RunTaskResponse { state: TaskState::Running.into(), ..RunTaskResponse::default() };
        known.get(task).copied().unwrap_or(unknown)
    }
}

impl Service {
    /// Refuses whoever is not the program of this queue.
    pub(super) fn admit_program(&self, chain: &Chain, served: &Served, who: Program) -> Result<(), Failure> {
        if served.is_guarded() && self.peers.are_anyone() {
            let message = "this broker has no certificates to know by who backs up and restores";
            return Err(Failure::new(Reason::PermissionDenied, message));
        }
        let program = match who {
            Program::Backup => "backup",
            Program::Restore => "restore",
        };
        let name = format!("{program}.ackwell-{}.{}.svc", served.config.name, served.config.namespace);
        self.peers.is(chain, &name).map_err(|error| {
            let message = format!("only the operator's {program} of this queue may call so: {error:#}");
            Failure::new(Reason::PermissionDenied, message)
        })
    }

    pub(super) async fn snapshot(&self, queue: QueueId) -> Result<Snapshot, Failure> {
        let snapshot = self.shard.look(move |view| view.engine.snapshot(queue)).await?;
        let Placement { from, to, .. } = snapshot.placement;
        if from == to { Ok(snapshot) } else { Err(moved("messages are on their way from shard to shard")) }
    }

    pub(super) async fn read_stretch(
        &self,
        queue: QueueId,
        request: ReadSnapshotRequest,
    ) -> Result<ReadSnapshotResponse, Failure> {
        let ReadSnapshotRequest { salt, placement, end, from, task, processed, total, .. } = request;
        let now = self.snapshot(queue).await?;
        if (now.source.salt, now.placement.generation) != (salt, placement) {
            return Err(moved("the shard is another one than when the backup began"));
        }
        let end = Seq(end);
        let response = match from.ok_or_else(|| Failure::invalid("from is missing: place or dedup_id"))? {
            From::Place(place) => {
                let bounds = (PAGE_MESSAGES, PAGE_BYTES);
                let look = move |view: crate::broker::shard::View<'_>| {
                    view.engine.kept(queue, (Seq(place), end), bounds)
                };
                let stretch = self.shard.look(look).await?;
                backups::stretch_to(stretch.map_err(|error| storage_failure(&error))?)
            }
            From::DedupId(after) => {
                let look = move |view: crate::broker::shard::View<'_>| {
                    view.engine.kept_dedup_ids(queue, &after, end, PAGE_DEDUP_IDS)
                };
                backups::ids_to(self.shard.look(look).await?)
            }
        };
        let read = response.page.as_ref().map_or(0, |page| page.messages.len() as u64);
        let answer = RunTaskResponse {
            state: TaskState::Running.into(),
            processed: processed + read,
            total,
            ..RunTaskResponse::default()
        };
        self.backups.note(&task, answer);
        Ok(response)
    }

    pub(super) async fn begin_restoring(
        &self,
        queue: QueueId,
        request: BeginRestoreRequest,
    ) -> Result<BeginRestoreResponse, Failure> {
        let BeginRestoreRequest { shards, sources, .. } = request;
        let sources = backups::sources(sources)?;
        let asked = sources.clone();
        let look = move |view: crate::broker::shard::View<'_>| {
            (view.engine.placement(queue), view.engine.can_restore(queue, &asked))
        };
        let (placement, is_new) = self.shard.look(look).await?;
        if placement.from != placement.to || placement.to.max(1) != shards {
            return Err(moved("the queue has another number of shards"));
        }
        if !is_new {
            let message = "this shard had messages before, or parts of another backup, and a backup is restored into a new \
                           queue only: delete the Queue and the volumes that it or an earlier one of its name left, or give \
                           it another name";
            return Err(Failure::invalid(message));
        }
        let mut transfers = Vec::new();
        for source in sources {
            transfers.push(self.keep_places(queue, placement, source).await?);
        }
        Ok(BeginRestoreResponse { transfers })
    }

    /// And notes it, so that it is known what began. The number of the last page that is there.
    async fn keep_places(
        &self,
        queue: QueueId,
        placement: Placement,
        source: Source,
    ) -> Result<u64, Failure> {
        let nothing = import(queue, placement, source.ordinal);
        match self.shard.apply(Command::Arrive(Arrive { queue, placement, source })).await? {
            Reply::Arrived(_) => self.import(nothing).await,
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("an Arrive is not answered by {other:?}"),
        }
    }

    async fn import(&self, import: Import) -> Result<u64, Failure> {
        match self.shard.apply(Command::Import(import)).await? {
            Reply::Imported(transfers) => Ok(transfers),
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("an Import is not answered by {other:?}"),
        }
    }

    pub(super) async fn restore(&self, queue: QueueId, request: RestorePageRequest) -> Result<(), Failure> {
        let RestorePageRequest { source, transfer, page, .. } = request;
        let (messages, dedup_ids) = backups::page(page.unwrap_or_default())?;
        let placement = self.shard.look(move |view| view.engine.placement(queue)).await?;
        let empty = import(queue, placement, backups::ordinal(source));
        self.import(Import { transfer, messages, dedup_ids, ..empty }).await.map(drop)
    }
}

fn import(queue: QueueId, placement: Placement, source: u32) -> Import {
    Import {
        queue,
        generation: placement.generation,
        source,
        transfer: 0,
        messages: Vec::new(),
        dedup_ids: Vec::new(),
        waiting: None,
        accepts: false,
    }
}

/// Refuses to restore where senders may be.
pub(super) fn check_restoring(config: &v1::QueueConfig) -> Result<(), Failure> {
    if config.restoring {
        return Ok(());
    }
    Err(Failure::invalid(
        "the queue is not being restored: a backup is restored into a new Queue, with spec.bootstrap",
    ))
}

fn moved(why: &str) -> Failure {
    Failure::new(Reason::ShardMoved, why)
}
