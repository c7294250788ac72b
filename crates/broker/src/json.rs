//! The API for curl: Send, Receive, Settle, Peek and Stats as JSON over HTTP, on the port of gRPC.
//!
//! Every call is made into its gRPC request, by the JSON mapping of protobuf, and given to the same handler; see
//! `docs/reference/http.md`. It has no streams: programs that want speed use gRPC.

mod failure;
mod transcode;

use std::convert::Infallible;
use std::sync::Arc;

use ackwell_proto::Failure;
use ackwell_proto::v1::queue_admin_server::QueueAdmin;
use ackwell_proto::v1::queues_server::Queues;
use ackwell_proto::v1::{PeekRequest, ReceiveRequest, SendRequest, SettleRequest, StatsRequest};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use prost::Message;
use serde_json::{Map, Value};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::receiving::is_grpc;
use crate::tls::Remote;

/// The largest gRPC request, whose bodies take a third more in base64.
const MAX_BODY_BYTES: usize = 27 << 20;
/// Of gRPC, and understood here too: how long the caller waits, and who it is.
const PASSED_ON: [&str; 2] = ["grpc-timeout", "authorization"];

/// What a call says beside its body, and who its peer is.
struct Said(MetadataMap, Option<Remote>);

impl<S: Sync> FromRequestParts<S> for Said {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut metadata = MetadataMap::new();
        for name in PASSED_ON {
            let value = parts.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
            value.map(|value| metadata.insert(name, value));
        }
        Ok(Self(metadata, parts.extensions.get().cloned()))
    }
}

impl Said {
    /// The same call as gRPC would make it.
    fn with<T>(self, request: T) -> Request<T> {
        let mut request = Request::new(request);
        *request.metadata_mut() = self.0;
        self.1.map(|peer| request.extensions_mut().insert(peer));
        request
    }
}

/// The calls of gRPC, and beside them those of JSON, before the same handlers.
pub(crate) fn beside<S: Queues + QueueAdmin>(grpc: Routes, service: S) -> Routes {
    let all = grpc.into_axum_router().merge(routes(service));
    Routes::from(all.fallback(unknown).method_not_allowed_fallback(unknown))
}

fn routes<S: Queues + QueueAdmin>(service: S) -> Router {
    Router::new()
        .route("/v1/queues/{queue}/messages", post(send::<S>).get(list::<S>))
        .route("/v1/queues/{queue}/receive", post(receive::<S>))
        .route("/v1/queues/{queue}/settle", post(settle::<S>))
        .route("/v1/queues/{queue}/peek", post(peek::<S>))
        .route("/v1/queues/{queue}/stats", get(stats::<S>))
        .with_state(Arc::new(service))
}

type Shared<S> = State<Arc<S>>;

async fn send<S: Queues>(
    State(service): Shared<S>,
    Path(queue): Path<String>,
    said: Said,
    body: Body,
) -> Response {
    answer("SendResponse", async {
        let request = SendRequest { queue, ..parse("SendRequest", body).await? };
        service.send(said.with(request)).await
    })
    .await
}

async fn receive<S: Queues>(
    State(service): Shared<S>,
    Path(queue): Path<String>,
    said: Said,
    body: Body,
) -> Response {
    answer("ReceiveResponse", async {
        let request = ReceiveRequest { queue, ..parse("ReceiveRequest", body).await? };
        service.receive(said.with(request)).await
    })
    .await
}

async fn settle<S: Queues>(
    State(service): Shared<S>,
    Path(queue): Path<String>,
    said: Said,
    body: Body,
) -> Response {
    answer("SettleResponse", async {
        let request = SettleRequest { queue, ..parse("SettleRequest", body).await? };
        service.settle(said.with(request)).await
    })
    .await
}

async fn peek<S: QueueAdmin>(
    State(service): Shared<S>,
    Path(queue): Path<String>,
    said: Said,
    body: Body,
) -> Response {
    answer("PeekResponse", async {
        let request = PeekRequest { queue, ..parse("PeekRequest", body).await? };
        service.peek(said.with(request)).await
    })
    .await
}

/// Peek, with what can be said in an address.
async fn list<S: QueueAdmin>(
    State(service): Shared<S>,
    Path(queue): Path<String>,
    said: Said,
    RawQuery(query): RawQuery,
) -> Response {
    answer("PeekResponse", async {
        let fields = fields(query.as_deref().unwrap_or_default());
        let request = PeekRequest { queue, ..transcode::request("PeekRequest", &fields)? };
        service.peek(said.with(request)).await
    })
    .await
}

async fn stats<S: QueueAdmin>(State(service): Shared<S>, Path(queue): Path<String>, said: Said) -> Response {
    answer("StatsResponse", async { service.stats(said.with(StatsRequest { queue, interval: None })).await })
        .await
}

/// What no call has as its method and path.
async fn unknown(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        return Status::unimplemented("").into_http();
    }
    let message = format!(
        "there is no {method} {}; the calls are POST /v1/queues/{{queue}}/messages, /receive, /settle and /peek, \
         and GET /v1/queues/{{queue}}/messages and /stats",
        uri.path()
    );
    failure::response(&Status::not_found(message))
}

/// The bound on what is being received counts `body` until it is dropped: here, when it is parsed.
async fn parse<T: Message + Default>(name: &str, mut body: Body) -> Result<T, Status> {
    let body = read(&mut body).await?;
    let json = if body.is_empty() { &b"{}"[..] } else { &body };
    Ok(transcode::request(name, json)?)
}

async fn read(body: &mut Body) -> Result<Bytes, Status> {
    let read = Limited::new(body, MAX_BODY_BYTES).collect().await;
    Ok(read.map_err(|error| unread(&*error))?.to_bytes())
}

/// Too large, or refused for want of memory, or cut.
fn unread(error: &(dyn std::error::Error + 'static)) -> Status {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(status) = error.downcast_ref::<Status>() {
            return status.clone();
        }
        source = error.source();
    }
    Failure::invalid(format!("the body cannot be read, it may have {MAX_BODY_BYTES} bytes: {error}")).into()
}

/// `limit=10&cursor=...` as JSON, whose mapping takes numbers as text too.
fn fields(query: &str) -> Vec<u8> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| text.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/");
    let fields: Map<String, Value> =
        pairs.map(|(name, value)| (name.to_owned(), Value::String(decoded(value)))).collect();
    Value::Object(fields).to_string().into_bytes()
}

async fn answer<T: Message>(
    name: &str,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Response {
    let answer = match call.await {
        Ok(answer) => transcode::response(name, answer.get_ref()),
        Err(status) => Err(status),
    };
    match answer {
        Ok(json) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(status) => failure::response(&status),
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::Service as _;
    use tower::{Layer as _, service_fn};

    use super::*;
    use crate::receiving::Receiving;

    /// Promise: what was read of a body counts against the bound on what is being received until it is parsed.
    #[tokio::test]
    async fn body_takes_room_until_it_is_dropped() {
        let room = Receiving::new();
        let handler = service_fn(async |request: axum::http::Request<tonic::body::Body>| {
            let mut body = Body::new(request.into_body());
            let json = read(&mut body).await.unwrap();
            assert_eq!((json.len(), room.bytes()), (5000, 5 << 10));
            drop(body);
            assert_eq!(room.bytes(), 0);
            Ok::<_, std::convert::Infallible>(())
        });
        let body = tonic::body::Body::new(axum::body::Body::from(vec![b' '; 5000]));
        room.layer(handler).call(axum::http::Request::new(body)).await.unwrap();
    }

    /// What a cursor needs to be put into an address is taken out of it again.
    #[test]
    fn query_is_the_fields_of_peek() {
        let request: PeekRequest =
            transcode::request("PeekRequest", &fields("limit=7&bodyBytes=100&cursor=AQI%3D")).unwrap();
        assert_eq!((request.limit, request.body_bytes, &request.cursor[..]), (7, 100, &[1, 2][..]));
        assert_eq!(
            transcode::request::<PeekRequest>("PeekRequest", &fields("")).unwrap(),
            PeekRequest::default()
        );
    }
}
