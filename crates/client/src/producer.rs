//! Messages on a Produce stream, without waiting for each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{Message, ProduceRequest, ProduceResponse, produce_response};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::is_permanent;
use crate::outbox::{Entry, Outbox};
use crate::pauses::Pauses;
use crate::token::Connection;
use crate::{Error, Sent, trace};

/// Frames on their way to the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// Messages on their way to the producer's task; what may be outstanding is bounded otherwise.
const ORDERS: usize = 1024;

/// How much a producer takes before something is confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Produce {
    /// Messages; at least 1.
    pub max_outstanding: u32,
    /// Their encoded bytes; a larger message is taken alone.
    pub max_outstanding_bytes: u32,
}

impl Default for Produce {
    /// 1000 messages, 16 MiB.
    fn default() -> Self {
        Self { max_outstanding: 1000, max_outstanding_bytes: 16 << 20 }
    }
}

/// Sends many messages without waiting for each.
///
/// Messages are stored in the order of [`Producer::send`], but for those that were refused for the moment and stored later.
/// Broken connections are opened again; nothing is stored twice. Dropping it sends what was taken in the background.
#[derive(Debug)]
pub struct Producer {
    orders: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    options: Produce,
    task: JoinHandle<()>,
}

/// Resolves when the message is on disk, or was refused.
#[derive(Debug)]
pub struct Confirm(oneshot::Receiver<Result<Sent, Error>>);

impl Future for Confirm {
    type Output = Result<Sent, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|told| told.unwrap_or(Err(Error::Closed)))
    }
}

enum Order {
    Send(Box<Entry>),
    Flush(oneshot::Sender<()>),
}

impl Producer {
    pub(crate) fn start(
        queues: QueuesClient<Connection>,
        queue: &str,
        options: Produce,
        limit: Duration,
    ) -> Self {
        let (orders, incoming) = mpsc::channel(ORDERS);
        let options = Produce { max_outstanding: options.max_outstanding.max(1), ..options };
        let streams = Streams {
            queues,
            outbox: Outbox::new(queue.to_owned(), limit),
            orders: incoming,
            flushes: Vec::new(),
            again_at: None,
            pauses: Pauses::new(),
            is_closed: false,
        };
        Self {
            orders,
            room: Arc::new(Semaphore::new(options.max_outstanding as usize)),
            bytes: Arc::new(Semaphore::new(options.max_outstanding_bytes as usize)),
            options,
            task: tokio::spawn(streams.run()),
        }
    }

    /// Takes a message as soon as there is room for it; the [`Confirm`] tells when it is stored.
    pub async fn send(&self, mut message: Message) -> Result<Confirm, Error> {
        trace::inject(&mut message);
        let bytes = message.encoded_len();
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.options.max_outstanding_bytes);
        let closed = |_| Error::Closed;
        let one = Arc::clone(&self.room).acquire_owned().await.map_err(closed)?;
        let some = Arc::clone(&self.bytes).acquire_many_owned(share).await.map_err(closed)?;
        let (confirm, confirmed) = oneshot::channel();
        let entry = Entry { message, bytes, taken_at: Instant::now(), confirm, room: [one, some] };
        self.orders.send(Order::Send(Box::new(entry))).await.map_err(|_| Error::Closed)?;
        Ok(Confirm(confirmed))
    }

    /// Waits until everything that was taken is confirmed or refused.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.orders.send(Order::Flush(done)).await.is_ok() {
            // A task that has ended has nothing left to confirm.
            let _ = flushed.await;
        }
    }

    /// Waits until everything that was taken is confirmed or refused, and closes the stream.
    pub async fn close(self) {
        drop(self.orders);
        // It only fails when the runtime is shut down.
        let _ = self.task.await;
    }
}

/// The task of a producer.
struct Streams {
    queues: QueuesClient<Connection>,
    outbox: Outbox,
    orders: mpsc::Receiver<Order>,
    flushes: Vec<oneshot::Sender<()>>,
    again_at: Option<Instant>,
    pauses: Pauses,
    is_closed: bool,
}

struct Stream {
    frames: mpsc::Sender<ProduceRequest>,
    told: Streaming<ProduceResponse>,
}

impl Streams {
    async fn run(mut self) {
        while self.wait_for_work().await {
            if let Err(status) = self.stream().await {
                self.on_broken(status);
            }
            self.pause().await;
        }
    }

    /// `false`: closed, and everything is confirmed.
    async fn wait_for_work(&mut self) -> bool {
        while self.outbox.is_idle() {
            if self.is_closed {
                return false;
            }
            let order = self.orders.recv().await;
            self.take_order(order);
        }
        true
    }

    /// Lives as long as one stream.
    async fn stream(&mut self) -> Result<(), Status> {
        let (frames, requests) = mpsc::channel(OUTGOING_FRAMES);
        frames.try_send(self.outbox.open()).expect("the channel is empty");
        let told = self.queues.clone().produce(ReceiverStream::new(requests)).await?.into_inner();
        let mut stream = Stream { frames, told };
        loop {
            self.say(&stream).await;
            if self.outbox.is_left() || (self.is_closed && self.outbox.is_idle()) {
                return Ok(());
            }
            tokio::select! {
                told = stream.told.message() => match told? {
                    Some(response) => self.take(response),
                    None => return Ok(()),
                },
                order = self.orders.recv(), if !self.is_closed => self.take_order(order),
                () = at(self.again_at) => self.say_again(),
            }
        }
    }

    /// Says all that there is room for.
    async fn say(&mut self, stream: &Stream) {
        // What waits in the channel goes into the same batch.
        while let Ok(order) = self.orders.try_recv() {
            self.take_order(Some(order));
        }
        while let Some(frame) = self.outbox.next_frame() {
            if stream.frames.send(frame).await.is_err() {
                // A stream that is gone says so where it is read.
                return;
            }
        }
    }

    fn take_order(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Send(entry)) => self.outbox.push(*entry),
            Some(Order::Flush(done)) => self.flushes.push(done),
            None => self.is_closed = true,
        }
        self.tell_flushed();
    }

    fn take(&mut self, response: ProduceResponse) {
        let Some(frame) = response.frame else { return };
        if matches!(frame, produce_response::Frame::Opened(_)) {
            self.pauses.reset();
        }
        if let Some(after) = self.outbox.take(frame) {
            self.again_at = Some(Instant::now() + after);
        }
        self.tell_flushed();
    }

    fn say_again(&mut self) {
        self.again_at = None;
        self.outbox.say_again();
    }

    fn on_broken(&mut self, status: Status) {
        if is_permanent(&status) || self.outbox.has_late() {
            self.outbox.fail(&status.into());
        }
        self.tell_flushed();
    }

    fn tell_flushed(&mut self) {
        if self.outbox.is_idle() {
            for done in self.flushes.drain(..) {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }

    /// Between two streams. Messages are still taken.
    async fn pause(&mut self) {
        self.outbox.say_again();
        self.again_at = None;
        let until = Instant::now() + self.pauses.next();
        while !(self.is_closed && self.outbox.is_idle()) {
            tokio::select! {
                () = sleep_until(until) => return,
                order = self.orders.recv(), if !self.is_closed => self.take_order(order),
            }
        }
    }
}

/// Waits until then; for ever, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
