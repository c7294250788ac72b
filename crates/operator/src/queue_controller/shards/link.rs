//! The link to one broker.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{
    ConfigureRequest, ConfigureResponse, QueueConfig, RunTaskRequest, RunTaskResponse, StatsRequest,
    StatsResponse,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::ShardView;
use crate::certificates::broker::Authority;
use crate::queue_controller::QueueRef;

/// Longest wait for a connection or an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a broker may report its counts.
const STATS_INTERVAL_SECONDS: i64 = 5;
/// Longest wait for a part of a task, which takes a second where nobody else is served.
const PART_DEADLINE: Duration = Duration::from_secs(15);
/// Detects a broker that vanished without closing its connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Wait before each new attempt.
const RECONNECT: Duration = Duration::from_secs(1);
/// How often a broker that moves messages is asked how it gets on.
const WATCH_MOVES: Duration = Duration::from_secs(1);
/// Failures in a row before people hear of it: a restart takes less.
const FAILURES_TOLERATED: u32 = 5;

/// Why a call to a broker failed, or a session with it ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no authority yet that could have signed its certificate")]
    NoAuthority,
    #[error("read the token of this operator: {0}")]
    Token(#[source] std::io::Error),
    #[error("the token of this operator is no text")]
    MalformedToken,
    #[error("connect: {}", cause(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{0}: {message}", message = message_of(.1))]
    Call(&'static str, Status),
    #[error("{0}: no answer within {seconds} s", seconds = .1.as_secs())]
    Timeout(&'static str, Duration),
    #[error("the broker ended the stream of counts")]
    Ended,
}

/// The innermost cause: tonic's own text is only "transport error".
fn cause(error: &dyn std::error::Error) -> &dyn std::error::Error {
    error.source().map_or(error, cause)
}

/// Never empty. What a broker does not know at all, it has no words for.
fn message_of(status: &Status) -> Cow<'_, str> {
    match (status.code(), status.message()) {
        (Code::Unimplemented, _) => {
            "its broker is of an older version, and does not know this call: it goes on when that is updated"
                .into()
        }
        (code, "") => code.description().into(),
        (_, message) => message.into(),
    }
}

/// The broker, and how it proves to be that.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// In its certificate.
    pub(super) name: String,
    pub(super) authority: Authority,
    /// File with the token that proves who we are.
    pub(super) token: PathBuf,
}

impl Peer {
    /// A call with the token of this moment.
    fn request<T>(&self, message: T) -> Result<Request<T>, Error> {
        let token = std::fs::read_to_string(&self.token).map_err(Error::Token)?;
        let value = format!("Bearer {}", token.trim()).parse().map_err(|_| Error::MalformedToken)?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// Where news of the broker go.
struct News {
    view: watch::Sender<ShardView>,
    visit: mpsc::Sender<QueueRef>,
    queue: QueueRef,
}

/// Keeps a session with the broker until the task is dropped.
pub(super) async fn run(
    peer: Arc<Peer>,
    mut configs: watch::Receiver<QueueConfig>,
    view: watch::Sender<ShardView>,
    visit: mpsc::Sender<QueueRef>,
    queue: QueueRef,
) {
    let news = News { view, visit, queue };
    let mut failures = 0_u32;
    loop {
        let Err(error) = session(&peer, &mut configs, &news, &mut failures).await;
        failures = failures.saturating_add(1);
        let address = peer.address;
        tracing::debug!(%address, %error, failures, "session with a broker ended");
        if failures == FAILURES_TOLERATED {
            news.tell(|view| view.unreachable = Some(format!("{address}: {error}"))).await;
        }
        sleep(RECONNECT).await;
    }
}

/// Tells the broker its settings, then passes on its counts and tells it new settings, until something fails.
async fn session(
    peer: &Peer,
    configs: &mut watch::Receiver<QueueConfig>,
    news: &News,
    failures: &mut u32,
) -> Result<Infallible, Error> {
    let channel = connect(peer).await?;
    let mut stats = None;
    loop {
        let config = configs.borrow_and_update().clone();
        let name = format!("{}/{}", config.namespace, config.name);
        let request = peer.request(ConfigureRequest { config: Some(config) })?;
        let is_moving = configure(&channel, request, news).await?;
        let stats = match &mut stats {
            Some(stats) => stats,
            None => stats.insert(watch_stats(&channel, peer.request(stats_request(name))?).await?),
        };
        *failures = 0;
        let ask_again = is_moving.then_some(WATCH_MOVES);
        pass_on(stats, configs, news, ask_again).await?;
    }
}

/// Passes counts on until there are new settings, or it is time to ask again.
async fn pass_on(
    stats: &mut Streaming<StatsResponse>,
    configs: &mut watch::Receiver<QueueConfig>,
    news: &News,
    ask_again: Option<Duration>,
) -> Result<(), Error> {
    let mut asked = pin!(async move {
        match ask_again {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            () = &mut asked => return Ok(()),
            changed = configs.changed() => return changed.map_err(|_| Error::Ended),
            message = stats.message() => {
                let counts = message.map_err(|status| Error::Call("WatchStats", status))?.ok_or(Error::Ended)?;
                news.tell(|view| (view.stats, view.unreachable) = (Some(counts), None)).await;
            }
        }
    }
}

/// By its address, which is known before its name is; with the authorities of this moment.
async fn connect(peer: &Peer) -> Result<Channel, Error> {
    let bundle = peer.authority.content().bundle().ok_or(Error::NoAuthority)?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle)).domain_name(&peer.name);
    let endpoint = Endpoint::from_shared(format!("https://{}", peer.address))?
        .tls_config(tls)?
        .connect_timeout(DEADLINE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(DEADLINE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect().await?)
}

/// Whether it has something to move.
async fn configure(
    channel: &Channel,
    request: Request<ConfigureRequest>,
    news: &News,
) -> Result<bool, Error> {
    let mut client = ShardClient::new(channel.clone());
    let ConfigureResponse { generation, moving } = answer("Configure", client.configure(request)).await?;
    let is_moving = moving.as_ref().is_some_and(|moving| !moving.done);
    news.tell(|view| (view.generation, view.moving) = (Some(generation), moving)).await;
    Ok(is_moving)
}

/// A part of a task, by a connection of its own: others are rare, and this takes a second.
pub(super) async fn run_task(peer: &Peer, task: RunTaskRequest) -> Result<RunTaskResponse, Error> {
    let request = peer.request(task)?;
    let mut client = ShardClient::new(connect(peer).await?);
    within(PART_DEADLINE, "RunTask", client.run_task(request)).await
}

fn stats_request(queue: String) -> StatsRequest {
    let interval = prost_types::Duration { seconds: STATS_INTERVAL_SECONDS, nanos: 0 };
    StatsRequest { queue, interval: Some(interval) }
}

async fn watch_stats(
    channel: &Channel,
    request: Request<StatsRequest>,
) -> Result<Streaming<StatsResponse>, Error> {
    answer("WatchStats", QueueAdminClient::new(channel.clone()).watch_stats(request)).await
}

async fn answer<T>(
    call: &'static str,
    response: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    within(DEADLINE, call, response).await
}

async fn within<T>(
    limit: Duration,
    call: &'static str,
    response: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let response = timeout(limit, response).await.map_err(|_| Error::Timeout(call, limit))?;
    response.map(Response::into_inner).map_err(|status| Error::Call(call, status))
}

impl News {
    /// Changes the view and, if anything is new, has the Queue visited.
    async fn tell(&self, change: impl FnOnce(&mut ShardView)) {
        let is_new = self.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
        if is_new {
            // A closed channel means that the operator stops, and with it this task.
            drop(self.visit.send(self.queue.clone()).await);
        }
    }
}

#[cfg(test)]
mod tests;
