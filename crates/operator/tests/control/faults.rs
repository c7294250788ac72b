//! Spoils one write of an operator, or what it hears.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::{Method, Request};
use kube::client::Body;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not reach the API server.
    Fail,
    /// It is done, and the operator does not hear of it.
    DropReply,
    /// The operator dies before it.
    StopBefore,
    /// The operator dies after it.
    StopAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Fail, Self::DropReply, Self::StopBefore, Self::StopAfter];
}

/// Sits in an operator's client, sees its writes, and spoils one of them.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    plan: Option<(usize, Fault)>,
    late: Option<&'static str>,
    armed: std::sync::atomic::AtomicBool,
    writes: AtomicUsize,
    seen: Mutex<Vec<String>>,
    stop: CancellationToken,
}

impl Faults {
    /// Does `fault` to the write with this number, counted from 1 when it is armed.
    pub(crate) fn at(number: usize, fault: Fault) -> Self {
        Self(Arc::new(Inner { plan: Some((number, fault)), ..Inner::default() }))
    }

    /// Spoils no write; but what changes of these objects (`pods`) is heard late.
    pub(crate) fn late(plural: &'static str) -> Self {
        Self(Arc::new(Inner { late: Some(plural), ..Inner::default() }))
    }

    /// The objects whose changes are heard late.
    pub(crate) fn hears_late(&self) -> Option<&'static str> {
        self.0.late
    }

    /// From now on writes count.
    pub(crate) fn arm(&self) {
        self.0.armed.store(true, Ordering::SeqCst);
    }

    /// Writes since it was armed.
    pub(crate) fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// The same, in words.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.0.seen.lock().unwrap().clone()
    }

    /// Returns when the operator dies.
    pub(crate) async fn stopped(&self) {
        self.0.stop.cancelled().await;
    }

    fn fault(&self, request: &Request<Body>) -> Option<Fault> {
        // Events are a courtesy, and nobody acts on one.
        let counts = *request.method() != Method::GET && !request.uri().path().ends_with("/events");
        if !counts || !self.0.armed.load(Ordering::SeqCst) {
            return None;
        }
        let number = self.0.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        self.0.plan.and_then(|(at, fault)| (at == number).then_some(fault))
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }
}

/// A client's connection with [`Faults`] in it.
pub(crate) struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stop = self.faults.0.stop.clone();
        match self.faults.fault(&request) {
            None => Box::pin(self.inner.call(request)),
            Some(Fault::Fail) => Box::pin(async { Err("spoiled: not sent".into()) }),
            Some(Fault::StopBefore) => {
                stop.cancel();
                Box::pin(std::future::pending())
            }
            Some(fault) => {
                let reply = self.inner.call(request);
                Box::pin(async move {
                    drop(reply.await?);
                    if fault == Fault::StopAfter {
                        stop.cancel();
                        std::future::pending::<()>().await;
                    }
                    Err("spoiled: no reply".into())
                })
            }
        }
    }
}
