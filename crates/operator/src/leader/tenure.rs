//! How long this replica can be sure that nobody else leads, and a client that writes no longer than that.
//!
//! A process that stood still while its lease ran out goes on in the middle of a visit, with a plan of before. The election
//! ends it, but not at once: until then its writes stay here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::{Method, Request};
use kube::Client;
use kube::client::Body;
use tower::service_fn;

use super::Error;
use crate::clock;

/// Until when the lease holds. None of it before it is won.
#[derive(Clone, Default)]
pub(crate) struct Tenure(Arc<Mutex<Option<Instant>>>);

impl Tenure {
    /// The lease holds until `end`; absent: it does not.
    pub(super) fn set(&self, end: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    fn holds(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|end| now < end)
    }

    /// `client`, but for writes that come too late.
    pub(crate) fn fence(&self, client: Client) -> Client {
        let (tenure, namespace) = (self.clone(), client.default_namespace().to_owned());
        let fenced = service_fn(move |request: Request<Body>| {
            let (tenure, client) = (tenure.clone(), client.clone());
            async move {
                if *request.method() == Method::GET || tenure.holds(clock::monotonic()) {
                    client.send(request).await
                } else {
                    Err(kube::Error::Service(Box::new(Error::Expired)))
                }
            }
        });
        Client::new(fenced, namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use hyper::Response;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::DeleteParams;

    use super::*;

    /// Pods of an API server that knows none.
    fn pods(tenure: &Tenure) -> Api<Pod> {
        let answer =
            r#"{"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""}"#;
        let server = service_fn(async move |_: Request<Body>| {
            let response = Response::builder().status(404).body(Body::from(answer.as_bytes().to_vec()));
            Ok::<_, Infallible>(response.unwrap())
        });
        Api::namespaced(tenure.fence(Client::new(server, "shop")), "shop")
    }

    async fn reaches_the_server(tenure: &Tenure) -> bool {
        let error = pods(tenure).delete("broker", &DeleteParams::default()).await.unwrap_err();
        matches!(error, kube::Error::Api(_))
    }

    /// A process that was paused can be anywhere in a visit when it goes on.
    #[tokio::test]
    async fn writes_reach_the_server_only_while_the_lease_holds() {
        let (tenure, now) = (Tenure::default(), clock::monotonic());
        assert!(!reaches_the_server(&tenure).await, "before it is won");
        tenure.set(Some(now + Duration::from_mins(1)));
        assert!(reaches_the_server(&tenure).await);
        tenure.set(Some(now));
        assert!(!reaches_the_server(&tenure).await, "after it ran out");
        assert!(pods(&tenure).get_opt("broker").await.unwrap().is_none(), "reading harms nobody");
    }
}
