//! What operator, sidecars and other shards ask about the shard itself.

use ackwell_engine::message::QueueId;
use ackwell_engine::{Command, Reply};
use ackwell_proto::v1::run_task_request::Work;
use ackwell_proto::v1::{
    ArriveRequest, ArriveResponse, BeginRestoreRequest, BeginRestoreResponse, BeginSnapshotRequest,
    ConfigureRequest, ConfigureResponse, ImportRequest, ImportResponse, Moving, ReadSnapshotRequest,
    ReadSnapshotResponse, RestorePageRequest, RestorePageResponse, RouteRequest, RouteResponse,
    RunTaskRequest, RunTaskResponse, Snapshot, shard_server,
};
use ackwell_proto::{Failure, Reason};
use tonic::{Request, Response, Status};

use super::backups::{Program, check_restoring};
use super::{Service, audit};
use crate::broker::access::{Caller, Verb};
use crate::broker::convert::backups::snapshot_to;
use crate::broker::convert::{moves, tasks};
use crate::broker::refusal::failure;
use crate::broker::served::Served;
use crate::clock;
use crate::tls::{Chain, Remote};

#[tonic::async_trait]
impl shard_server::Shard for Service {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let caller = Caller::of(&request);
        let config = request.into_inner().config.ok_or_else(|| Failure::invalid("config is missing"))?;
        let name = format!("{}/{}", config.namespace, config.name);
        let allowed = self.queues.allow(&caller, Verb::Configure, &name)?;
        // While messages move it is said again and again, to hear how they get on.
        let is_news = *allowed.served.config != config;
        let generation = self.queues.add(&self.shard, config).await?;
        if is_news {
            audit::configured(&allowed, generation);
        }
        let moving = Some(self.moving(allowed.served.id).await?);
        Ok(Response::new(ConfigureResponse { generation, moving }))
    }

    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let caller = Caller::of(&request);
        let config = self.queues.allow(&caller, Verb::Look, &request.into_inner().queue)?.served.config;
        let (generation, shard_addresses) = (config.generation, config.shard_addresses.clone());
        Ok(Response::new(RouteResponse { generation, shard_addresses, placement: config.placement }))
    }

    async fn arrive(&self, request: Request<ArriveRequest>) -> Result<Response<ArriveResponse>, Status> {
        let chain = chain(&request);
        let request = request.into_inner();
        let served = self.queues.find(&request.queue)?;
        self.admit(&chain, &served, request.source)?;
        let arrive = moves::arrive(served.id, self.queues.ordinal()?, request)?;
        match self.shard.apply(Command::Arrive(arrive)).await? {
            Reply::Arrived(arrived) => Ok(Response::new(ArriveResponse { accepts: arrived.accepts })),
            Reply::Refused(refused) => Err(failure(&refused).into()),
            other => unreachable!("an Arrive is not answered by {other:?}"),
        }
    }

    async fn import(&self, request: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        let chain = chain(&request);
        let request = request.into_inner();
        let served = self.queues.find(&request.queue)?;
        self.admit(&chain, &served, request.source)?;
        let import = moves::import(served.id, request)?;
        match self.shard.apply(Command::Import(import)).await? {
            Reply::Imported(_) => Ok(Response::new(ImportResponse {})),
            Reply::Refused(refused) => Err(failure(&refused).into()),
            other => unreachable!("an Import is not answered by {other:?}"),
        }
    }

    async fn run_task(&self, request: Request<RunTaskRequest>) -> Result<Response<RunTaskResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let allowed = self.queues.allow(&caller, Verb::Configure, &request.queue)?;
        if let Some(Work::Backup(_)) = request.work {
            return Ok(Response::new(self.backups.of(&request.uid)));
        }
        let task = tasks::task(allowed.served.id, request)?;
        let progress = self.work_on(&allowed, task).await?;
        Ok(Response::new(tasks::progress_to(progress)))
    }

    async fn begin_snapshot(
        &self,
        request: Request<BeginSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let chain = chain(&request);
        let served = self.queues.find(&request.into_inner().queue)?;
        self.admit_program(&chain, &served, Program::Backup)?;
        let snapshot = self.snapshot(served.id).await?;
        audit::read(&served, snapshot.messages);
        Ok(Response::new(snapshot_to(&snapshot)))
    }

    async fn read_snapshot(
        &self,
        request: Request<ReadSnapshotRequest>,
    ) -> Result<Response<ReadSnapshotResponse>, Status> {
        let chain = chain(&request);
        let request = request.into_inner();
        let served = self.queues.find(&request.queue)?;
        self.admit_program(&chain, &served, Program::Backup)?;
        Ok(Response::new(self.read_stretch(served.id, request).await?))
    }

    async fn begin_restore(
        &self,
        request: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        let chain = chain(&request);
        let request = request.into_inner();
        let served = self.queues.find(&request.queue)?;
        self.admit_program(&chain, &served, Program::Restore)?;
        check_restoring(&served.config)?;
        let sources = request.sources.len();
        let begun = self.begin_restoring(served.id, request).await?;
        audit::restored(&served, sources);
        Ok(Response::new(begun))
    }

    async fn restore_page(
        &self,
        request: Request<RestorePageRequest>,
    ) -> Result<Response<RestorePageResponse>, Status> {
        let chain = chain(&request);
        let request = request.into_inner();
        let served = self.queues.find(&request.queue)?;
        self.admit_program(&chain, &served, Program::Restore)?;
        check_restoring(&served.config)?;
        self.restore(served.id, request).await?;
        Ok(Response::new(RestorePageResponse {}))
    }
}

/// The certificates that the caller showed.
fn chain<T>(request: &Request<T>) -> Chain {
    request.extensions().get::<Remote>().map(|remote| remote.chain.clone()).unwrap_or_default()
}

impl Service {
    /// Refuses a caller that is not that shard of the queue. Shards are known by their certificates, not by tokens.
    fn admit(&self, chain: &Chain, served: &Served, source: u32) -> Result<(), Failure> {
        if served.is_guarded() && self.peers.are_anyone() {
            let message = "this broker has no certificates to know other shards by; only they may call so";
            return Err(Failure::new(Reason::PermissionDenied, message));
        }
        let address = served.config.shard_addresses.get(source as usize).ok_or_else(|| {
            let message = format!("the address of shard {source} is not known here yet");
            Failure::new(Reason::BrokerUnavailable, message)
        })?;
        self.peers.is(chain, address).map_err(|error| {
            let message = format!("only shard {source} of this queue may call as such: {error:#}");
            Failure::new(Reason::PermissionDenied, message)
        })
    }

    /// How the shard gets on with its placement.
    async fn moving(&self, queue: QueueId) -> Result<Moving, Failure> {
        let report = self.reports.of(queue);
        let now = clock::now();
        let look = self.shard.look(move |view| {
            let (placement, leaving) = (view.engine.placement(queue), view.engine.leaving(queue));
            (placement, leaving, view.engine.salt())
        });
        let (placement, leaving, store) = look.await?;
        let is_done = leaving.as_ref().is_none_or(|leaving| {
            leaving.is_left && report.is_told(placement.generation) && leaving.remembers_until <= now
        });
        Ok(Moving {
            generation: placement.generation,
            from: placement.from,
            to: placement.to,
            done: is_done,
            messages: leaving.map_or(0, |leaving| leaving.messages),
            store,
            blocked: report.blocked,
        })
    }
}
