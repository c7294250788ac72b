//! What callers asked for and how it ended, counted for `/metrics` and told to [`traces`]. Of the process, which is one broker or one sidecar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use ackwell_proto::v1::ItemError;
use ackwell_proto::{Failure, Reason};
use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tower::Layer;

use crate::traces;

/// Of the API; whatever else is called is `other`, so that nobody makes up labels.
const METHODS: [&str; 19] = [
    "Queues/Send",
    "Queues/Produce",
    "Queues/Receive",
    "Queues/Consume",
    "Queues/Settle",
    "Queues/Extend",
    "Queues/Commit",
    "QueueAdmin/Peek",
    "QueueAdmin/Get",
    "QueueAdmin/Explain",
    "QueueAdmin/Stats",
    "QueueAdmin/WatchStats",
    "QueueAdmin/Redrive",
    "QueueAdmin/Purge",
    "QueueAdmin/Cancel",
    "QueueAdmin/Pause",
    "Shard/Configure",
    "Shard/Route",
    "Shard/RunTask",
];
const PACKAGE: &str = "/ackwell.v1.";
/// The JSON of curl.
const HTTP: &str = "/v1/queues/";

const OTHER_METHOD: usize = METHODS.len() + 1;
const OTHER_RESULT: usize = Reason::ALL.len() + 1;

/// By method, then by result.
static CALLS: [[AtomicU64; OTHER_RESULT + 1]; OTHER_METHOD + 1] =
    [const { [const { AtomicU64::new(0) }; OTHER_RESULT + 1] }; OTHER_METHOD + 1];

/// Items of batches and frames, and streams that we ended, by reason.
static REFUSED: [AtomicU64; Reason::ALL.len()] = [const { AtomicU64::new(0) }; Reason::ALL.len()];

/// A refused item as its caller is told, counted.
pub(crate) fn refused_item(failure: Failure) -> ItemError {
    count_refused(&failure);
    failure.into()
}

/// The same for what ends a stream that was open.
pub(crate) fn refused_stream(failure: Failure) -> Status {
    count_refused(&failure);
    failure.into()
}

fn count_refused(failure: &Failure) {
    REFUSED[index_of(failure.reason)].fetch_add(1, Ordering::Relaxed);
}

/// Calls so far: method, result and how many. What never happened is left out.
pub(crate) fn calls() -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    CALLS.iter().enumerate().flat_map(|(method, results)| {
        let counted = results.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        counted
            .filter(|(_, count)| *count > 0)
            .map(move |(result, count)| (method_name(method), result_name(result), count))
    })
}

/// Refused items so far, by each reason.
pub(crate) fn refused() -> impl Iterator<Item = (&'static str, u64)> {
    Reason::ALL.iter().zip(&REFUSED).map(|(reason, count)| (reason.as_str(), count.load(Ordering::Relaxed)))
}

fn method_name(index: usize) -> &'static str {
    match METHODS.get(index) {
        Some(method) => method,
        None if index == METHODS.len() => "http",
        None => "other",
    }
}

fn result_name(index: usize) -> &'static str {
    match index.checked_sub(1) {
        None => "OK",
        Some(index) => Reason::ALL.get(index).map_or("OTHER", |reason| reason.as_str()),
    }
}

fn method_of(path: &str) -> usize {
    let named = |path: &str| METHODS.iter().position(|method| *method == path);
    match path.strip_prefix(PACKAGE) {
        Some(path) => named(path).unwrap_or(OTHER_METHOD),
        None if path.starts_with(HTTP) => METHODS.len(),
        None => OTHER_METHOD,
    }
}

/// As far as it is known when the answer begins: a stream that began well is OK.
fn result_of(response: &http::Response<Body>) -> usize {
    match response.extensions().get::<Status>() {
        Some(status) => {
            Failure::from_status(status).map_or(OTHER_RESULT, |failure| index_of(failure.reason) + 1)
        }
        None if response.status().is_success() && !response.headers().contains_key(Status::GRPC_STATUS) => 0,
        None => OTHER_RESULT,
    }
}

fn index_of(reason: Reason) -> usize {
    Reason::ALL.iter().position(|known| *known == reason).expect("ALL has every reason")
}

/// Counts the calls of a server, and lets them be traced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountCalls;

impl<S> Layer<S> for CountCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted(inner)
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S>(S);

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = method_of(request.uri().path());
        let traced = traces::begin(method_name(method), request.headers());
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = traces::carried(traced.clone(), answer).await?;
            let result = result_of(&response);
            CALLS[method][result].fetch_add(1, Ordering::Relaxed);
            if let Some(traced) = traced {
                traced.end(result_name(result));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use ackwell_proto::v1::DESCRIPTORS;

    use super::*;

    /// Promise: a method that is added to the API is counted by its name.
    #[test]
    fn every_method_of_the_api_is_known() {
        let descriptors = String::from_utf8_lossy(DESCRIPTORS);
        for method in METHODS {
            assert!(descriptors.contains(method.split_once('/').unwrap().1), "{method} is not in the API");
            assert_eq!(method_name(method_of(&format!("{PACKAGE}{method}"))), method);
        }
        for (path, name) in
            [("/v1/queues/orders/messages", "http"), ("/x/y", "other"), ("/ackwell.v1.X/Y", "other")]
        {
            assert_eq!(method_name(method_of(path)), name);
        }
    }

    #[test]
    fn result_is_the_reason_that_the_caller_is_told() {
        let refused = Status::from(Failure::new(Reason::QueueFull, "full")).into_http();
        assert_eq!(result_name(result_of(&refused)), "QUEUE_FULL");
        assert_eq!(result_name(result_of(&Status::cancelled("gone").into_http())), "OTHER");
        assert_eq!(result_name(result_of(&http::Response::default())), "OK");
        assert_eq!(result_name(OTHER_RESULT - 1), Reason::ALL.last().unwrap().as_str());
    }
}
