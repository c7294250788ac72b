//! Calls to the shards, tried again while a broker is away.

use std::time::{Duration, Instant};

use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::{Failure, Reason};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{Fault, Reach};
use crate::clock;

/// A page is read, or written, by then even on a slow disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A broker that was killed checks its store before it answers; a large one takes minutes.
const PATIENCE: Duration = Duration::from_mins(10);
const TRY_EVERY: Duration = Duration::from_millis(500);
/// As brokers take it.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// What calls are made by.
pub(super) type Client = ShardClient<Channel>;

/// A shard.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) ordinal: u32,
    client: Client,
}

impl Reach {
    /// Connections are made when they are used.
    pub(super) fn links(&self) -> Result<Vec<Link>, Fault> {
        let peers = self.peers();
        let link = |(address, ordinal): (&String, u32)| {
            let channel = peers.dial(address, CONNECT_TIMEOUT, CALL_TIMEOUT);
            let channel = channel.map_err(|failure| Fault::Unavailable(failure.to_string()))?;
            let client = ShardClient::new(channel).max_decoding_message_size(MAX_PAGE_BYTES);
            Ok(Link { ordinal, client })
        };
        self.shards.iter().zip(0..).map(link).collect()
    }
}

impl Link {
    /// The answer, as soon as there is one that does not depend on the moment. `call` is safe to repeat.
    pub(super) async fn ask<T>(
        &self,
        call: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, Fault> {
        let started = clock::stopwatch();
        loop {
            let status = match call(self.client.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            self.judge(&status, started)?;
            tracing::debug!(shard = self.ordinal, %status, "tried again");
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Whether to try again.
    fn judge(&self, status: &Status, started: Instant) -> Result<(), Fault> {
        let text = format!("shard {}: {}", self.ordinal, status.message());
        let refused = Failure::from_status(status).map(|failure| failure.reason);
        match (refused, status.code()) {
            // It takes another look at all shards.
            (Some(Reason::ShardMoved), _) => Err(Fault::Unavailable(text)),
            // Certificates reach brokers and this program at different times.
            (Some(Reason::PermissionDenied) | None, _) | (_, Code::Unavailable | Code::ResourceExhausted) => {
                if started.elapsed() < PATIENCE {
                    Ok(())
                } else {
                    Err(Fault::Unavailable(text))
                }
            }
            _ => Err(Fault::Refused(text)),
        }
    }
}
