//! Health and metrics over plain HTTP, on a port of their own so that probes never queue behind messages.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

/// The Prometheus text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints answer.
#[derive(Clone)]
pub(crate) struct Probes {
    /// `/readyz`: whether calls are served.
    pub(crate) is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// `/metrics`, in the Prometheus text format.
    pub(crate) metrics: Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
}

/// Serves `/livez`, `/readyz` and `/metrics` until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, probes: Probes) -> std::io::Result<()> {
    let Probes { is_ready, metrics } = probes;
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || ready(is_ready())))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, TEXT)], metrics().await)));
    axum::serve(listener, router).await
}

fn ready(is_ready: bool) -> (StatusCode, &'static str) {
    if is_ready { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}
