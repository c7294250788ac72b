//! The connection to one broker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ackwell_proto::Failure;
use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::shard_client::ShardClient;
use tonic::Status;
use tonic::transport::Endpoint;

use super::retry::is_transient;
use crate::tls::{Connection, Trust};

/// A broker in the same cluster answers a SYN in milliseconds; a moved pod's old address never does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// With [`PING_TIMEOUT`]: a node that vanished is noticed within 8 s, although TCP itself would wait for minutes.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Above the largest answer of a broker: 16 MiB of bodies and what surrounds them.
pub(crate) const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// One HTTP/2 connection, made when first used and made again, name resolution included, after it broke.
#[derive(Debug)]
pub(crate) struct ShardChannel {
    address: String,
    connection: Connection,
    outstanding: AtomicUsize,
    failing: AtomicBool,
}

impl ShardChannel {
    /// Does not connect yet.
    pub(crate) fn new(address: &str, trust: &Trust) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| {
                Failure::invalid(format!("broker address {address:?} is not host:port: {error}"))
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .tcp_nodelay(true);
        Ok(Self {
            address: address.to_owned(),
            connection: trust.connection(&endpoint),
            outstanding: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn queues(&self) -> QueuesClient<Connection> {
        QueuesClient::new(self.connection.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn admin(&self) -> QueueAdminClient<Connection> {
        QueueAdminClient::new(self.connection.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn shard(&self) -> ShardClient<Connection> {
        ShardClient::new(self.connection.clone())
    }

    /// Lower is better: shards that failed last time come after all others.
    pub(crate) fn load(&self) -> (bool, usize) {
        (self.failing.load(Ordering::Relaxed), self.outstanding.load(Ordering::Relaxed))
    }

    /// Counts a call until it is done, and remembers how it ended.
    pub(crate) async fn watch<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let _outstanding = Outstanding::begin(&self.outstanding);
        let result = call.await;
        let failed = result.as_ref().is_err_and(is_transient);
        self.failing.store(failed, Ordering::Relaxed);
        result
    }
}

/// Counts down when dropped, so that cancelled calls are not counted for ever.
struct Outstanding<'a>(&'a AtomicUsize);

impl<'a> Outstanding<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
