//! HTTPS, bounded in everything that a caller decides: connections, requests at once, bytes, time.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::review::{Error, Reviewer};

/// An API server takes requests of up to 3 MiB; a review says little more than the pod in it.
const MAX_REVIEW_BYTES: usize = 4 << 20;
/// Reviews in memory at once: at most 64 MiB. One takes microseconds, plus a lookup of at most a second.
const MAX_REQUESTS: usize = 16;
/// Connections at once; each API server needs a handful.
const MAX_CONNECTIONS: usize = 128;
/// The configuration gives us 5 seconds; an answer after that is not read.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// A caller that opens a connection and says nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than an API server keeps idle connections (90 s): it closes first and never sends into a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// For requests that are being answered when the process is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Accepting fails when descriptors run out; some may be closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn router(reviewer: Reviewer) -> Router {
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    Router::new()
        .route("/inject", post(answer))
        .layer(DefaultBodyLimit::max(MAX_REVIEW_BYTES))
        .layer(middleware::from_fn_with_state(requests, bound))
        .with_state(reviewer)
}

/// Serves until `shutdown`, then finishes what was begun.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((stream, permit)) = shutdown.run_until_cancelled(accept(&listener, &free)).await {
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        connections.spawn(async move {
            serve_connection(stream, tls, router, shutdown).await;
            drop(permit);
        });
    }
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!("webhook requests were not answered before the process stopped");
    }
}

async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(free).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to the webhook");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, tls: TlsAcceptor, router: Router, shutdown: CancellationToken) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await else {
        tracing::debug!("a TLS handshake failed");
        return;
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the webhook broke");
    }
}

async fn bound(
    State(requests): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let bounded = async {
        let _permit = requests.acquire().await.expect("the semaphore is never closed");
        next.run(request).await
    };
    Ok(timeout(REQUEST_TIMEOUT, bounded)
        .await
        .unwrap_or_else(|_| (StatusCode::SERVICE_UNAVAILABLE, "the review took too long").into_response()))
}

async fn answer(State(reviewer): State<Reviewer>, review: Bytes) -> Response {
    match reviewer.answer(&review).await {
        Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        Err(error @ (Error::Read(_) | Error::NoRequest)) => {
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        Err(error @ Error::Write(_)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
