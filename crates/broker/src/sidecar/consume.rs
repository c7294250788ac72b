//! Consume: one stream of the application over one stream per shard.
//!
//! - [`session`]: frames both ways while the application's stream lives. A broken stream to a shard is opened again with
//!   what the application holds; the application sees a pause.
//! - [`ending`]: what becomes of unsettled deliveries when the application's stream ends.
//! - [`leg`]: the stream to one shard. [`ledger`]: what the application holds. [`answers`]: what it waits for.
//!   [`window`]: how its window is shared. [`orphans`]: what may be claimed by its next stream.
//!
//! Brokers extend deliveries while their stream lives, so nothing is extended here.

mod answers;
mod ending;
mod ledger;
mod leg;
mod orphans;
mod session;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackwell_proto::Failure;
use ackwell_proto::v1::{ConsumeRequest, ConsumeResponse, Open, consume_request};
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::leg::{Event, Line};
pub(crate) use self::orphans::Orphans;
use self::session::{Application, Session};
use super::retry::{DEFAULT_BUDGET, Deadline};
use super::service::{Sidecar, shutting_down};

/// Frames in the hands of the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// Events of shards: each is at most one frame of a broker, 4 MiB, and the windows bound their sum.
const MAX_EVENTS: usize = 16;
/// A stream that says nothing holds a task and buffers for nobody.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a stream in a task of its own; `permit` counts it.
pub(super) fn start(
    sidecar: &Arc<Sidecar>,
    requests: Streaming<ConsumeRequest>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<ConsumeResponse, Status>> + Send + use<> {
    let (out, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let taken = Arc::new(AtomicU64::new(0));
    let application = Application { requests, out, taken: Arc::clone(&taken) };
    let task = run(Arc::clone(sidecar), application);
    sidecar.tasks.spawn(async move {
        task.await;
        drop(permit);
    });
    ReceiverStream::new(outgoing).inspect(move |_| _ = taken.fetch_add(1, Ordering::Relaxed))
}

async fn run(sidecar: Arc<Sidecar>, mut app: Application) {
    let (events, mut told) = mpsc::channel(MAX_EVENTS);
    let opening = open(&sidecar, &mut app.requests, events);
    let opened = tokio::select! {
        opened = opening => opened,
        () = app.out.closed() => return,
        () = sidecar.stopping.cancelled() => Err(shutting_down().into()),
    };
    match opened {
        Ok(mut session) => {
            let end = session.serve(&mut app, &mut told, &sidecar).await;
            session.close(app, told, end, &sidecar).await;
        }
        Err(status) => _ = app.out.send(Err(status)).await,
    }
}

async fn open(
    sidecar: &Sidecar,
    requests: &mut Streaming<ConsumeRequest>,
    events: mpsc::Sender<Event>,
) -> Result<Session, Status> {
    let Open { queue, consumer, window, held } = first_frame(requests).await?;
    let queue = sidecar.router.queue(&queue)?;
    let shards = queue.route(Deadline::within(DEFAULT_BUDGET)).await?.shards.len();
    let line = Line { queue, consumer, tasks: sidecar.tasks.clone(), events };
    let open = Open { window, held, ..Open::default() };
    let mut session = Session::open(line, open, shards, &sidecar.orphans)?;
    if sidecar.draining.is_cancelled() {
        session.drain();
    }
    Ok(session)
}

async fn first_frame(requests: &mut Streaming<ConsumeRequest>) -> Result<Open, Status> {
    let Ok(first) = tokio::time::timeout(OPEN_TIMEOUT, requests.message()).await else {
        let message = format!("no `open` frame within {} s", OPEN_TIMEOUT.as_secs());
        return Err(Failure::invalid(message).into());
    };
    match first?.and_then(|request| request.frame) {
        Some(consume_request::Frame::Open(open)) => Ok(open),
        _ => Err(Failure::invalid("the first frame of Consume must be `open`").into()),
    }
}
