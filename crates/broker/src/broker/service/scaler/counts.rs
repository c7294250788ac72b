//! How many messages there are: asked for seldom, however often it is told; and of all shards, which only they know together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell_engine::message::QueueId;
use ackwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use ackwell_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use ackwell_proto::{Failure, Reason};
use futures::future::try_join_all;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tonic::transport::Channel;

use super::METRIC;
use super::trigger::Trigger;
use crate::broker::served::Served;
use crate::clock;
use crate::tls::Peers;

/// Streams that look once a second: more than one cluster has KEDAs.
pub(super) const MAX_WATCHERS: usize = 64;
/// However many ask, so often is a count made: otherwise anybody could keep a broker busy, and all shards by one call.
const FRESH: Duration = Duration::from_millis(500);
/// A broker answers from memory, and the API server gives KEDA half a minute.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Counts of queues, and who is told of them.
#[derive(Clone)]
pub(crate) struct Counts(Arc<Inner>);

struct Inner {
    peers: Peers,
    last: Mutex<HashMap<(QueueId, Of), Last>>,
    channels: Mutex<HashMap<String, Channel>>,
    watchers: Arc<Semaphore>,
}

/// Whose messages are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    ThisShard,
    AllShards,
}

/// The last count. It is locked while the next one is made.
type Last = Arc<AsyncMutex<Option<Count>>>;

struct Count {
    at: Instant,
    /// Or why there is none: an answer that does not come is not asked for again and again either.
    messages: Result<f64, Failure>,
}

impl Counts {
    pub(crate) fn new(peers: Peers) -> Self {
        Self(Arc::new(Inner {
            peers,
            last: Mutex::default(),
            channels: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }))
    }

    /// A place for one who is told of changes, as long as it is held.
    pub(super) fn watcher(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.watchers).try_acquire_owned().ok()
    }

    /// What was found a moment ago, or what `ask` finds. Whoever comes while it is asked waits, and has it too.
    pub(super) async fn fresh(
        &self,
        what: (QueueId, Of),
        ask: impl Future<Output = Result<f64, Failure>>,
    ) -> Result<f64, Failure> {
        let last =
            Arc::clone(self.0.last.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default());
        let mut last = last.lock().await;
        match &*last {
            Some(count) if count.at.elapsed() < FRESH => count.messages.clone(),
            _ => {
                let messages = ask.await;
                *last = Some(Count { at: clock::stopwatch(), messages: messages.clone() });
                messages
            }
        }
    }

    /// Of all shards, this one too: it is asked like the others.
    pub(super) async fn ask_all(&self, served: &Served) -> Result<f64, Failure> {
        let name = served.name();
        let asked = served.config.shard_addresses.iter().map(|address| self.ask(address, &name));
        Ok(try_join_all(asked).await?.into_iter().sum())
    }

    async fn ask(&self, address: &str, queue: &str) -> Result<f64, Failure> {
        let away = |why: &str| {
            let message = format!("the shard at {address} did not tell how many messages it has: {why}");
            Failure::new(Reason::BrokerUnavailable, message).retry_after(FRESH)
        };
        let scaler_metadata = Trigger::of_own_shard(queue);
        let request = GetMetricsRequest {
            scaled_object_ref: Some(ScaledObjectRef { scaler_metadata, ..ScaledObjectRef::default() }),
            metric_name: METRIC.to_owned(),
        };
        let mut shard = ExternalScalerClient::new(self.channel(address)?);
        let answer = shard.get_metrics(request).await;
        let values = answer.map_err(|status| away(status.message()))?.into_inner().metric_values;
        values.first().map(|value| value.metric_value_float).ok_or_else(|| away("it told nothing"))
    }

    /// Made when it is first used.
    fn channel(&self, address: &str) -> Result<Channel, Failure> {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.0.peers.dial(address, TIMEOUT, TIMEOUT)?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Promise: however many ask at once and one after the other, a count is made twice a second at most.
    #[tokio::test]
    async fn many_askers_make_few_counts() {
        let (counts, made, begun) =
            (Counts::new(Peers::new(None, None)), AtomicU32::new(0), clock::stopwatch());
        let ask = |number: u32| {
            let count = async {
                tokio::task::yield_now().await;
                Ok(f64::from(made.fetch_add(1, Ordering::Relaxed)))
            };
            counts.fresh((QueueId(number % 2), Of::ThisShard), count)
        };
        futures::future::join_all((0..1000).map(ask)).await;
        for number in 0..1000 {
            ask(number).await.unwrap();
        }
        let most = 2.0 * (1.0 + 2.0 * begun.elapsed().as_secs_f64());
        let made = f64::from(made.into_inner());
        assert!((2.0..=most).contains(&made), "{made} of at most {most}");
    }
}
