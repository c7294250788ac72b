//! From the queue of spans that ended to the collector.
//!
//! Nobody waits for it: a span that finds the queue full is dropped and counted, and so is a batch that the collector does
//! not take after some tries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tracing::{info, warn};

use super::otlp::{
    EXPORT, ExportRequest, ExportResponse, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span,
};
use super::settings::{self, Settings};
use crate::tls::Trust;

/// With a pause that doubles between them; meanwhile the queue fills.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What a process that ends still gives its spans. A sidecar has two seconds when the application took all others.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A collector that vanished is noticed between two exports.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

static EXPORTED: AtomicU64 = AtomicU64::new(0);
static DROPPED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const REASONS: [&str; 3] = ["queue_full", "export_failed", "rejected"];

/// Why a span is dropped; as in [`REASONS`].
#[derive(Clone, Copy)]
enum Drop {
    QueueFull,
    ExportFailed,
    Rejected,
}

impl Drop {
    fn count(self, spans: u64) {
        DROPPED[self as usize].fetch_add(spans, Ordering::Relaxed);
    }
}

/// Spans that a collector took.
pub(crate) fn exported() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// Spans that none did, by reason.
pub(crate) fn dropped() -> impl Iterator<Item = (&'static str, u64)> {
    REASONS.into_iter().zip(&DROPPED).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
}

/// Where spans go that ended.
#[derive(Debug)]
pub(super) struct Exports(mpsc::Sender<Span>);

impl Exports {
    pub(super) fn put(&self, span: Span) {
        if self.0.try_send(span).is_err() {
            Drop::QueueFull.count(1);
        }
    }

    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self(mpsc::channel(1).0)
    }
}

/// The task that exports, until it is told to end.
pub struct Exporter {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Exports what waits, as far as there is time.
    pub async fn flush(self) {
        self.stop.cancel();
        if timeout(FLUSH_TIMEOUT, self.task).await.is_err() {
            warn!("the last traces did not reach their collector within {FLUSH_TIMEOUT:?}");
        }
    }
}

/// Starts the task. It connects when there is something to say.
pub(super) fn start(settings: Settings) -> anyhow::Result<(Exports, Exporter)> {
    let (put, spans) = mpsc::channel(settings.queue_spans);
    let stop = CancellationToken::new();
    let Settings { headers, timeout, resource, delay, batch_spans, .. } = settings;
    let collector =
        Collector { channel: channel(&settings.endpoint)?, headers, timeout, resource, is_failing: false };
    let work = Work { spans, collector, delay, batch_spans, stop: stop.clone() };
    Ok((Exports(put), Exporter { stop, task: tokio::spawn(work.run()) }))
}

fn channel(settings::Endpoint { address, authorities }: &settings::Endpoint) -> anyhow::Result<Channel> {
    // The authorities decide about TLS, and the collector is told of it by the scheme.
    let scheme = if authorities.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .origin(Uri::try_from(format!("{scheme}://{address}"))?)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .user_agent(concat!("ackwelld/", env!("CARGO_PKG_VERSION")))?;
    Ok(Trust::load(authorities.clone(), None)?.channel(&endpoint))
}

struct Work {
    spans: mpsc::Receiver<Span>,
    collector: Collector,
    delay: Duration,
    batch_spans: usize,
    stop: CancellationToken,
}

impl Work {
    async fn run(mut self) {
        while let Some(batch) = self.next().await {
            self.collector.take(batch, &self.stop).await;
        }
    }

    /// A full batch, or what came within the delay; nothing more when the process ends and all is exported.
    async fn next(&mut self) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = self.spans.recv_many(&mut batch, self.batch_spans) => {}
            () = self.stop.cancelled() => {}
        }
        let due = Instant::now() + self.delay;
        while (1..self.batch_spans).contains(&batch.len()) {
            let room = self.batch_spans - batch.len();
            tokio::select! {
                biased;
                received = self.spans.recv_many(&mut batch, room) => if received == 0 { break },
                () = self.stop.cancelled() => break,
                () = sleep_until(due) => break,
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

struct Collector {
    channel: Channel,
    headers: MetadataMap,
    timeout: Duration,
    resource: Vec<KeyValue>,
    /// Said once, and not for each batch.
    is_failing: bool,
}

impl Collector {
    /// Tries until the collector takes them, or it is in vain. A process that ends tries once.
    async fn take(&mut self, spans: Vec<Span>, stop: &CancellationToken) {
        let count = spans.len() as u64;
        let request = self.request(spans);
        let mut pause = FIRST_PAUSE;
        for tries_left in (0..TRIES).rev() {
            match self.export(request.clone()).await {
                Ok(response) => return self.taken(count, &response),
                Err(status) => {
                    self.failed(&status);
                    if tries_left == 0 || !is_worth_another_try(&status) {
                        break;
                    }
                }
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            pause *= 2;
        }
        Drop::ExportFailed.count(count);
    }

    async fn export(&self, request: ExportRequest) -> Result<ExportResponse, Status> {
        let mut request = Request::new(request);
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(self.timeout);
        let mut client = Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(request, PathAndQuery::from_static(EXPORT), ProstCodec::default()).await
        };
        let answer = timeout(self.timeout, call).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the collector did not answer in time")));
        answer.map(tonic::Response::into_inner)
    }

    fn request(&self, spans: Vec<Span>) -> ExportRequest {
        let scope = Scope { name: "ackwell".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let resource = Some(Resource { attributes: self.resource.clone() });
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
    }

    fn taken(&mut self, count: u64, response: &ExportResponse) {
        if std::mem::take(&mut self.is_failing) {
            info!("the collector takes traces again");
        }
        let rejected = response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
        let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
        Drop::Rejected.count(rejected);
        EXPORTED.fetch_add(count - rejected, Ordering::Relaxed);
    }

    fn failed(&mut self, status: &Status) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(code = ?status.code(), error = status.message(), "the collector does not take traces; messages do not mind");
        }
    }
}

/// Whether trying again may help, as the specification of OTLP has it.
fn is_worth_another_try(status: &Status) -> bool {
    use Code::{
        Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable, Unknown,
    };
    // Unknown: the transport failed.
    matches!(
        status.code(),
        Aborted
            | Cancelled
            | DataLoss
            | DeadlineExceeded
            | OutOfRange
            | ResourceExhausted
            | Unavailable
            | Unknown
    )
}
