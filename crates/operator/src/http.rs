//! `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What the text of the metrics is: counters have their suffix only in the samples.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the HTTP server ended.
#[derive(Debug, thiserror::Error)]
#[error("serve health and metrics on {address}")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves until `shutdown`. Ready is a replica that can serve the webhook, whether it leads or not.
pub(crate) async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let failed = |source| Error { address, source };
    let text = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            let text = metrics.text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok::<_, StatusCode>(([(CONTENT_TYPE, OPEN_METRICS)], text))
        }
    };
    let readiness = move || {
        let answer = if *ready.borrow() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the webhook has no certificate yet")
        };
        async move { answer }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(text));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await.map_err(failed)
}
