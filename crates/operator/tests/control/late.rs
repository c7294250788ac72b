//! Watches that tell what was some time ago, as those of a busy or partitioned API server do.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body as _, Frame};
use kube::Client;
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tower::{BoxError, service_fn};

/// Longer than a visit and everything that follows from it takes here.
const BY: Duration = Duration::from_secs(3);
/// More events than a Queue has in that time.
const EVENTS: usize = 10_000;

type Data = <Body as hyper::body::Body>::Data;
type Event = Result<Frame<Data>, BoxError>;

/// `client`, whose watches of these objects (`pods`) are late. Lists are not: a watch begins where a list ended.
pub(crate) fn late(client: Client, plural: &'static str) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let by = if is_watch_of(&request, plural) { BY } else { Duration::ZERO };
        let client = client.clone();
        async move { Ok::<_, kube::Error>(client.send(request).await?.map(|body| Late::of(body, by))) }
    });
    Client::new(service, namespace)
}

fn is_watch_of(request: &Request<Body>, plural: &str) -> bool {
    let uri = request.uri();
    let objects = uri.path().rsplit('/').next() == Some(plural);
    objects && uri.query().is_some_and(|query| query.contains("watch=true"))
}

/// The body of an answer.
struct Late {
    events: mpsc::Receiver<(Instant, Event)>,
    due: Option<Pin<Box<dyn Future<Output = Event> + Send>>>,
    _reader: AbortOnDropHandle<()>,
}

impl Late {
    fn of(body: Body, by: Duration) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let reader = async move {
            let mut body = pin!(body);
            while let Some(event) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
                if sender.send((Instant::now() + by, event.map_err(Into::into))).await.is_err() {
                    return;
                }
            }
        };
        Self { events, due: None, _reader: AbortOnDropHandle::new(tokio::spawn(reader)) }
    }
}

impl hyper::body::Body for Late {
    type Data = Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(due) = &mut self.due {
                let event = std::task::ready!(due.as_mut().poll(context));
                self.due = None;
                return Poll::Ready(Some(event));
            }
            let Some((at, event)) = std::task::ready!(self.events.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            self.due = Some(Box::pin(async move {
                sleep_until(at).await;
                event
            }));
        }
    }
}
