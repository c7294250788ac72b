//! KEDA's external scaler: how many messages wait for consumers or are with them, in all shards of the queue.
//!
//! It is served to whoever reaches the broker, since KEDA has no token to show; it tells nothing but this number, and whether
//! the queue is here. Any shard can be asked: it asks the others by the same protocol.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use ackwell_proto::externalscaler::external_scaler_server::ExternalScaler;
use ackwell_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use ackwell_proto::{Failure, Reason};
use futures::future::try_join_all;
use futures::{Stream, StreamExt, stream};
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status};

use super::{Service, admin};

/// What KEDA calls the number.
const METRIC: &str = "messages";
/// Of the trigger.
const QUEUE: &str = "queue";
const PER_REPLICA: &str = "messagesPerReplica";
const ACTIVATION: &str = "activationMessages";
/// From one shard to another: its own count, no other shard's.
const OWN_ONLY: &str = "ownShardOnly";
/// A replica that is meant for fewer messages than one would be meant for none.
const DEFAULT_PER_REPLICA: f64 = 10.0;
/// How soon KEDA hears by push that there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A broker answers from memory; KEDA itself waits for three seconds.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the trigger of a `ScaledObject` says.
#[derive(Debug, PartialEq)]
struct Trigger {
    queue: String,
    per_replica: f64,
    activation: f64,
    is_own_only: bool,
}

impl Trigger {
    fn parse(metadata: &HashMap<String, String>) -> Result<Self, Failure> {
        let queue = metadata.get(QUEUE).cloned();
        let number = |name: &str, default: f64| match metadata.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite() && *number >= 0.0)
                .ok_or_else(|| Failure::invalid(format!("{name} of the trigger is {text:?}; use a number like 10"))),
        };
        let per_replica = number(PER_REPLICA, DEFAULT_PER_REPLICA)?;
        if per_replica < 1.0 {
            return Err(Failure::invalid(format!("{PER_REPLICA} of the trigger must be at least 1")));
        }
        Ok(Self {
            queue: queue.ok_or_else(|| Failure::invalid(format!("the trigger's metadata have no {QUEUE}")))?,
            per_replica,
            activation: number(ACTIVATION, 0.0)?,
            is_own_only: metadata.contains_key(OWN_ONLY),
        })
    }
}

#[tonic::async_trait]
impl ExternalScaler for Service {
    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        let trigger = Trigger::parse(&request.into_inner().scaler_metadata)?;
        Ok(Response::new(IsActiveResponse { result: self.is_wanted(&trigger).await? }))
    }

    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::parse(&request.into_inner().scaler_metadata)?;
        self.queues.find(&trigger.queue)?;
        let stopping = self.stopping.clone().cancelled_owned();
        Ok(Response::new(Box::pin(watch(self.clone(), trigger).take_until(stopping))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let trigger = Trigger::parse(&request.into_inner().scaler_metadata)?;
        self.queues.find(&trigger.queue)?;
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: whole(trigger.per_replica),
            target_size_float: trigger.per_replica,
        };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest { scaled_object_ref, metric_name } = request.into_inner();
        let trigger = Trigger::parse(&scaled_object_ref.unwrap_or_default().scaler_metadata)?;
        let messages = self.messages(&trigger).await?;
        let value = MetricValue { metric_name, metric_value: whole(messages), metric_value_float: messages };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

impl Service {
    async fn is_wanted(&self, trigger: &Trigger) -> Result<bool, Failure> {
        Ok(self.messages(trigger).await? > trigger.activation)
    }

    /// Ready and in flight, in all shards: a consumer that is at work must not be scaled away for having emptied the queue.
    /// When a shard does not answer it is an error, on which KEDA leaves everything as it is.
    async fn messages(&self, trigger: &Trigger) -> Result<f64, Failure> {
        let served = self.queues.find(&trigger.queue)?;
        let shards = &served.config.shard_addresses;
        if trigger.is_own_only || shards.len() <= 1 {
            let stats = admin::stats(&self.shard, served.id).await?;
            return Ok(float(stats.ready) + float(stats.in_flight));
        }
        let counts = try_join_all(shards.iter().map(|address| self.messages_of(address, &trigger.queue))).await?;
        Ok(counts.into_iter().sum())
    }

    /// Of one shard, which may be this one: nobody here knows its own address.
    async fn messages_of(&self, address: &str, queue: &str) -> Result<f64, Failure> {
        let away = |why: String| {
            Failure::new(Reason::BrokerUnavailable, format!("the shard at {address} did not tell its count: {why}"))
        };
        let metadata = [(QUEUE, queue), (OWN_ONLY, "true")];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let request = GetMetricsRequest {
            scaled_object_ref: Some(ScaledObjectRef { scaler_metadata: metadata, ..ScaledObjectRef::default() }),
            metric_name: METRIC.to_owned(),
        };
        let mut peer = self.peers.scaler(address)?;
        let answer = tokio::time::timeout(PEER_TIMEOUT, peer.get_metrics(request)).await;
        let answer = answer.map_err(|_| away(format!("no answer within {PEER_TIMEOUT:?}")))?;
        let values = answer.map_err(|status| away(status.message().to_owned()))?.into_inner().metric_values;
        values.first().map(|value| value.metric_value_float).ok_or_else(|| away("it told nothing".to_owned()))
    }
}

/// Whether there should be a consumer: at once, and whenever it changes. A look that fails is passed over: the next one tells.
fn watch(service: Service, trigger: Trigger) -> impl Stream<Item = Result<IsActiveResponse, Status>> {
    let looked = IntervalStream::new(tokio::time::interval(LOOK_EVERY))
        .then(move |_| {
            let (service, queue) = (service.clone(), trigger.queue.clone());
            let trigger = Trigger { queue, ..trigger };
            async move { service.is_wanted(&trigger).await }
        })
        .filter_map(|looked| std::future::ready(looked.ok()));
    looked
        .scan(None, |last, is_wanted| {
            let is_news = last.replace(is_wanted) != Some(is_wanted);
            std::future::ready(Some(is_news.then_some(Ok(IsActiveResponse { result: is_wanted }))))
        })
        .flat_map(stream::iter)
}

#[expect(clippy::cast_precision_loss, reason = "nobody scales by the last of 2^53 messages")]
fn float(count: u64) -> f64 {
    count as f64
}

/// For those who do not read the other field.
#[expect(clippy::cast_possible_truncation, reason = "it saturates")]
fn whole(number: f64) -> i64 {
    number.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(metadata: &[(&str, &str)]) -> Result<Trigger, Failure> {
        Trigger::parse(&metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn trigger_has_defaults() {
        let expected =
            Trigger { queue: "orders".to_owned(), per_replica: 10.0, activation: 0.0, is_own_only: false };
        assert_eq!(trigger(&[("queue", "orders"), ("scalerAddress", "x:1")]), Ok(expected));
    }

    /// Promise: whoever wrote the ScaledObject is told what is wrong with it.
    #[test]
    fn wrong_triggers_are_refused_with_the_field() {
        for (metadata, names) in [
            (&[][..], "queue"),
            (&[("queue", "orders"), ("messagesPerReplica", "many")], "messagesPerReplica"),
            (&[("queue", "orders"), ("messagesPerReplica", "0")], "messagesPerReplica"),
            (&[("queue", "orders"), ("activationMessages", "-1")], "activationMessages"),
            (&[("queue", "orders"), ("messagesPerReplica", "inf")], "messagesPerReplica"),
        ] {
            let failure = trigger(metadata).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidArgument);
            assert!(failure.message.contains(names), "{failure}");
        }
    }
}
