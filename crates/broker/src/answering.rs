//! A bound on what waits to be read: answers with bodies that their callers have not taken.
//!
//! Whoever opens a window of no bytes lets answers wait for ever, a thousand on each connection. An answer that finds no
//! room is refused; what messages a Receive was handed is answered in any case, since it can no longer be refused without
//! a loss of time for the messages.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ackwell_proto::{Failure, Reason};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Response, Status};
use tower::Layer;

/// Dozens of the largest answers, or thousands of usual ones, that are being read at the same time.
const TOTAL_BYTES: u64 = 64 << 20;
/// What waits elsewhere is read, or given up, soon.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Bytes of answers that were made and are not read.
#[derive(Clone, Default)]
pub(crate) struct Answering(Arc<AtomicU64>);

/// What one answer takes of them, until its body is read or dropped.
#[derive(Clone)]
struct Taken {
    _share: Arc<Share>,
}

struct Share {
    bytes: u64,
    of: Answering,
}

impl Answering {
    /// Refuses a call whose answer would only wait.
    pub(crate) fn has_room(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) < TOTAL_BYTES { Ok(()) } else { Err(full()) }
    }

    /// An answer that can be refused: nothing changed for it.
    pub(crate) fn peeked<T: prost::Message>(&self, answer: T) -> Result<Response<T>, Failure> {
        self.has_room()?;
        Ok(self.handed(answer))
    }

    /// An answer that cannot.
    pub(crate) fn handed<T: prost::Message>(&self, answer: T) -> Response<T> {
        let bytes = answer.encoded_len() as u64;
        self.0.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { bytes, of: self.clone() };
        let mut response = Response::new(answer);
        response.extensions_mut().insert(Taken { _share: Arc::new(share) });
        response
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn full() -> Failure {
    let message = format!("{} MiB of answers wait to be read; try again", TOTAL_BYTES >> 20);
    Failure::new(Reason::Busy, message).retry_after(RETRY_AFTER)
}

impl<S> Layer<S> for Answering {
    type Service = Held<S>;

    fn layer(&self, inner: S) -> Held<S> {
        Held(inner)
    }
}

/// A service whose answers hold their share as long as their bodies.
#[derive(Clone)]
pub(crate) struct Held<S>(S);

impl<S> Service<http::Request<Body>> for Held<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<http::Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        async move {
            let mut answer = answer.await?;
            let Some(taken) = answer.extensions_mut().remove::<Taken>() else { return Ok(answer) };
            Ok(answer.map(|body| Body::new(Unread { body, _taken: taken })))
        }
        .boxed()
    }
}

/// A body that is not read yet.
struct Unread {
    body: Body,
    _taken: Taken,
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
