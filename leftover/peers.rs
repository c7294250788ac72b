//! The other shards of a queue, for what only all of them know together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell_proto::Failure;
use ackwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use tonic::transport::{Channel, Endpoint};

/// As sidecars have it: a broker in the same cluster answers a SYN in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Shards of the queues that are asked about. Beyond it connections are made anew.
const MAX_CHANNELS: usize = 1024;

/// Connections, made when they are first used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Arc<Mutex<HashMap<String, Channel>>>);

impl Peers {
    /// The scaler of the shard at `host:port`.
    pub(crate) fn scaler(&self, address: &str) -> Result<ExternalScalerClient<Channel>, Failure> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(ExternalScalerClient::new(channel.clone()));
        }
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Failure::invalid(format!("shard address {address:?} is not host:port: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(ExternalScalerClient::new(channel))
    }
}
