//! KEDA's external scaler: how many messages wait for consumers or are with them, in all shards of the queue.
//!
//! KEDA can show no ServiceAccount token, so whoever reaches the broker is answered, as on its port for metrics: with that
//! number, and nothing else. docs/adr/0010-keda-is-told-counts.md has the reasons.

mod counts;
mod trigger;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ackwell_engine::message::QueueId;
use ackwell_proto::externalscaler::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use ackwell_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use ackwell_proto::{Failure, Reason};
use futures::{Stream, StreamExt, future, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::interval;
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status};

use super::{Service, admin};
pub(crate) use counts::Counts;
use counts::Of;
use trigger::Trigger;

/// What KEDA calls the number.
const METRIC: &str = "messages";
/// How soon KEDA hears by push that there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The metadata of a trigger, with room.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// As it is served.
pub(super) fn server(service: &Service) -> ExternalScalerServer<Service> {
    ExternalScalerServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
}

#[tonic::async_trait]
impl ExternalScaler for Service {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let trigger = Trigger::parse(&request.into_inner().scaler_metadata)?;
        Ok(Response::new(IsActiveResponse { result: self.is_wanted(&trigger).await? }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::parse(&request.into_inner().scaler_metadata)?;
        self.queues.find(&trigger.queue)?;
        let place = self.counts.watcher().ok_or_else(too_many)?;
        let stopping = self.stopping.clone().cancelled_owned();
        let news = news(self.clone(), trigger, place).take_until(stopping);
        Ok(Response::new(Box::pin(news)))
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

    /// A shard that does not answer is an error, on which KEDA leaves everything as it is.
    async fn messages(&self, trigger: &Trigger) -> Result<f64, Failure> {
        let served = self.queues.find(&trigger.queue)?;
        if trigger.is_own_only || served.config.shard_addresses.len() <= 1 {
            return self.counts.fresh((served.id, Of::ThisShard), self.own_messages(served.id)).await;
        }
        self.counts.fresh((served.id, Of::AllShards), self.counts.ask_all(&served)).await
    }

    /// Ready and in flight: a consumer that is at work must not be scaled away for having emptied the queue.
    async fn own_messages(&self, queue: QueueId) -> Result<f64, Failure> {
        let stats = admin::stats(&self.shard, queue).await?;
        Ok(float(stats.ready) + float(stats.in_flight))
    }
}

/// Whether there should be a consumer: at once, and whenever it changes. A look that fails is passed over: the next one
/// tells. It takes a place as long as it lasts.
fn news(
    service: Service,
    trigger: Trigger,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<IsActiveResponse, Status>> {
    let watcher = Arc::new((service, trigger, place));
    let looked = IntervalStream::new(interval(LOOK_EVERY)).then(move |_| {
        let watcher = Arc::clone(&watcher);
        async move {
            let (service, trigger, _) = &*watcher;
            service.is_wanted(trigger).await
        }
    });
    looked
        .filter_map(|looked| future::ready(looked.ok()))
        .scan(None, |last, is_wanted| {
            let is_news = last.replace(is_wanted) != Some(is_wanted);
            future::ready(Some(is_news.then_some(Ok(IsActiveResponse { result: is_wanted }))))
        })
        .flat_map(stream::iter)
}

fn too_many() -> Failure {
    let message = format!("{} streams of StreamIsActive are open here already", counts::MAX_WATCHERS);
    Failure::new(Reason::Busy, message).retry_after(LOOK_EVERY)
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
