//! The messages of all shards, which only all of them know together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell_engine::message::QueueId;
use ackwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use ackwell_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use ackwell_proto::{Failure, Reason};
use futures::future::try_join_all;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tonic::transport::{Channel, Endpoint};

use super::METRIC;
use super::trigger::Trigger;
use crate::broker::served::Served;
use crate::clock;

/// Streams that look once a second: more than one cluster has KEDAs.
pub(super) const MAX_WATCHERS: usize = 64;
/// However many ask, the other shards are asked so often: otherwise one call here would be as many there as there are
/// shards.
const FRESH: Duration = Duration::from_millis(500);
/// A broker answers from memory.
const TIMEOUT: Duration = Duration::from_secs(2);
/// As sidecars have it: a broker in the same cluster answers a SYN in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts of queues, and who is told of them.
#[derive(Clone)]
pub(crate) struct Counts(Arc<Inner>);

struct Inner {
    /// Whether other brokers take plain connections.
    is_plain: bool,
    sums: Mutex<HashMap<QueueId, Slot>>,
    channels: Mutex<HashMap<String, Channel>>,
    watchers: Arc<Semaphore>,
}

/// The last sum. Whoever comes while it is looked for waits, and has it too.
type Slot = Arc<AsyncMutex<Option<Sum>>>;

struct Sum {
    at: Instant,
    /// Or why there is none: an answer that does not come is not asked for again and again either.
    messages: Result<f64, Failure>,
}

impl Counts {
    pub(crate) fn new(is_plain: bool) -> Self {
        Self(Arc::new(Inner {
            is_plain,
            sums: Mutex::default(),
            channels: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }))
    }

    /// A place for one who is told of changes, as long as it is held.
    pub(super) fn watcher(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.watchers).try_acquire_owned().ok()
    }

    /// Of all shards, this one too: it is asked like the others.
    pub(super) async fn of_all(&self, served: &Served) -> Result<f64, Failure> {
        let slot = Arc::clone(
            self.0.sums.lock().unwrap_or_else(PoisonError::into_inner).entry(served.id).or_default(),
        );
        let mut last = slot.lock().await;
        match &*last {
            Some(sum) if sum.at.elapsed() < FRESH => sum.messages.clone(),
            _ => {
                let messages = self.ask_all(served).await;
                *last = Some(Sum { at: clock::stopwatch(), messages: messages.clone() });
                messages
            }
        }
    }

    async fn ask_all(&self, served: &Served) -> Result<f64, Failure> {
        let name = served.name();
        let asked = served.config.shard_addresses.iter().map(|address| self.ask(address, &name));
        Ok(try_join_all(asked).await?.into_iter().sum())
    }

    async fn ask(&self, address: &str, queue: &str) -> Result<f64, Failure> {
        let away = |why: &str| {
            let message = format!("the shard at {address} did not tell how many messages it has: {why}");
            Failure::new(Reason::BrokerUnavailable, message).retry_after(TIMEOUT)
        };
        let scaler_metadata = Trigger::of_own_shard(queue);
        let request = GetMetricsRequest {
            scaled_object_ref: Some(ScaledObjectRef { scaler_metadata, ..ScaledObjectRef::default() }),
            metric_name: METRIC.to_owned(),
        };
        let mut shard = ExternalScalerClient::new(self.channel(address)?);
        let answer = tokio::time::timeout(TIMEOUT, shard.get_metrics(request)).await;
        let answer = answer.map_err(|_| away(&format!("no answer within {TIMEOUT:?}")))?;
        let values = answer.map_err(|status| away(status.message()))?.into_inner().metric_values;
        values.first().map(|value| value.metric_value_float).ok_or_else(|| away("it told nothing"))
    }

    /// Made when it is first used.
    fn channel(&self, address: &str) -> Result<Channel, Failure> {
        if !self.0.is_plain {
            let message =
                "brokers with TLS know their own shard only; have a trigger for each shard, and add them up";
            return Err(Failure::new(Reason::CrossShard, message));
        }
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Failure::invalid(format!("shard address {address:?} is not host:port: {error}"))
        })?;
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
