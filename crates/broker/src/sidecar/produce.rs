//! Produce: one stream of the application over one stream per shard.
//!
//! - [`session`]: takes each batch apart by shard and confirms in the application's order. [`leg`]: the stream to one
//!   shard, opened again after it broke, with what it has not confirmed. [`pending`]: what the application waits for.
//!   [`placing`]: the shard of messages that may lie on any.
//!
//! A batch keeps its `seq` and its producer's name on every leg, so brokers know a repetition whoever repeats it: a leg,
//! or the application on another stream, through another sidecar too.

mod leg;
mod pending;
mod placing;
mod session;

use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::Failure;
use ackwell_proto::v1::{ProduceOpen, ProduceRequest, ProduceResponse, produce_request};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::leg::Line;
pub(crate) use self::placing::Producers;
use self::session::Session;
use super::service::{Sidecar, shutting_down};
use crate::producer::Producer;

/// Frames in the hands of the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// Events of shards: confirms, and the beginnings and ends of streams.
const MAX_EVENTS: usize = 16;
/// A stream that says nothing holds a task and buffers for nobody.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a stream in a task of its own; `permit` counts it.
pub(super) fn start(
    sidecar: &Arc<Sidecar>,
    requests: Streaming<ProduceRequest>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<ProduceResponse, Status>> + Send + use<> {
    let (out, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let task = run(Arc::clone(sidecar), requests, out);
    sidecar.tasks.spawn(async move {
        task.await;
        drop(permit);
    });
    ReceiverStream::new(outgoing)
}

async fn run(
    sidecar: Arc<Sidecar>,
    mut requests: Streaming<ProduceRequest>,
    out: mpsc::Sender<Result<ProduceResponse, Status>>,
) {
    let (events, mut told) = mpsc::channel(MAX_EVENTS);
    let opened = tokio::select! {
        open = first_frame(&mut requests) => open.and_then(|open| session(&sidecar, open, events, out.clone())),
        () = out.closed() => return,
        () = sidecar.stopping.cancelled() => Err(shutting_down().into()),
    };
    let ended = match opened {
        Ok(mut session) => session.serve(&mut requests, &mut told).await,
        Err(status) => Err(status),
    };
    if let Err(status) = ended {
        _ = out.send(Err(status)).await;
    }
}

fn session(
    sidecar: &Arc<Sidecar>,
    open: ProduceOpen,
    events: mpsc::Sender<leg::Event>,
    out: mpsc::Sender<Result<ProduceResponse, Status>>,
) -> Result<Session, Status> {
    let ProduceOpen { queue, producer, want_ids } = open;
    let queue = sidecar.router.queue(&queue)?;
    let is_new = producer.is_empty();
    let producer = Producer::named(producer)?;
    let placed = queue.producers.enter(producer.name(), is_new);
    let line =
        Line { queue, producer: producer.name().to_owned(), want_ids, tasks: sidecar.tasks.clone(), events };
    Ok(Session::new(Arc::clone(sidecar), line, producer, placed, out))
}

async fn first_frame(requests: &mut Streaming<ProduceRequest>) -> Result<ProduceOpen, Status> {
    let Ok(first) = tokio::time::timeout(OPEN_TIMEOUT, requests.message()).await else {
        let message = format!("no `open` frame within {} s", OPEN_TIMEOUT.as_secs());
        return Err(Failure::invalid(message).into());
    };
    match first?.and_then(|request| request.frame) {
        Some(produce_request::Frame::Open(open)) => Ok(open),
        _ => Err(Failure::invalid("the first frame of Produce must be `open`").into()),
    }
}
