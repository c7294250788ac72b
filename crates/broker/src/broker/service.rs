//! The gRPC services: validate, hand over to the shard, answer. No decisions about messages.

pub(crate) mod admin;
mod audit;
mod backups;
mod commit;
mod consume;
mod explain;
mod produce;
mod queues;
mod scaler;
mod shard;
mod tasks;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use ackwell_proto::v1::queue_admin_server::QueueAdminServer;
use ackwell_proto::v1::queues_server::QueuesServer;
use ackwell_proto::v1::shard_server::ShardServer;

use super::mover::Reports;
use super::served::Queues;
use super::shard::Shard;
use crate::answering::Answering;
use crate::receiving::Receiving;
use crate::tls::Peers;
pub(crate) use backups::Progress;
pub(crate) use scaler::Counts;

/// Largest request: the largest body, with room for its headers.
const MAX_REQUEST_BYTES: usize = 20 << 20;

/// Largest page of a move: 4 MiB of bodies, or one body, with headers and histories.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// What every handler works with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) shard: Shard,
    pub(crate) queues: Queues,
    /// Ends the streams that nobody else ends.
    pub(crate) stopping: CancellationToken,
    /// The tasks of Consume and Produce streams: each tells the shard how its stream ended, or its caller what is stored.
    pub(crate) sessions: TaskTracker,
    /// What is on its way in.
    pub(crate) receiving: Receiving,
    /// What is on its way out.
    pub(crate) answering: Answering,
    /// How many messages the other shards have.
    pub(crate) counts: Counts,
    /// How moves get on.
    pub(crate) reports: Reports,
    /// Who may move messages here.
    pub(crate) peers: Peers,
    /// How backups get on.
    pub(crate) backups: Progress,
}

impl Service {
    /// All services of a broker.
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(QueuesServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(QueueAdminServer::new(self.clone()))
            .add_service(ShardServer::new(self.clone()).max_decoding_message_size(MAX_PAGE_BYTES))
            .add_service(scaler::server(self))
    }
}
