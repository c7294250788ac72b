//! One thread that owns the engine. Everything that arrives during a commit becomes the next one.
//!
//! The handle [`Shard`] is what gRPC handlers hold; [`driver`] is the thread. Commands go through a bounded mailbox; an
//! answer comes when its commit is on disk.

mod answer;
mod demand;
mod disk;
mod driver;
mod extension;
mod levels;
mod measures;
mod room;
mod unread;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use ackwell_engine::command::Delivery;
use ackwell_engine::message::QueueId;
use ackwell_engine::store::Entropy;
use ackwell_engine::store::seal::Keys;
use ackwell_engine::{Command, Engine, Reply, Store, StoreError};
use ackwell_proto::Failure;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use answer::{Answer, Answered, Chain};
use demand::Demands;
pub(crate) use demand::{Poll, Subscription, SubscriptionId, Window};
use driver::{Driver, Told};
pub(crate) use levels::Level;
use levels::Levels;
pub(crate) use measures::{COMMIT_SECONDS, Measures};
use room::Room;
pub(crate) use unread::{Unread, bytes as unread_bytes};

use super::refusal;
use crate::clock;
use crate::stream_end::StreamEnd;

/// Jobs waiting for the engine. A few commits' worth: more would only be waiting elsewhere, and is told so (BUSY).
const MAILBOX: usize = 4096;

/// Something for the engine's thread to do.
pub(crate) enum Job {
    /// Apply the command, answer when it is on disk.
    Apply(Command, Answer),
    /// Hand messages out, or wait for them.
    Poll(Poll),
    /// Take back what was handed out and never reached its caller.
    Release(QueueId, Vec<Bytes>),
    /// Read without changing.
    Look(Box<dyn FnOnce(View<'_>) + Send>),
    /// A consumer's stream begins.
    Open(Subscription, Vec<Bytes>),
    /// It changes its limits. An empty window takes no more deliveries.
    Resize(SubscriptionId, Window),
    /// It passed on what it was told, and can be told more.
    Read,
    /// It ends.
    Close(Closed),
    /// No more deliveries: the process is about to stop.
    Drain,
    /// Close the store and end the thread.
    Stop,
}

/// The shard as it stands between two commits.
pub(crate) struct View<'a> {
    pub(crate) engine: &'a Engine,
    demands: &'a Demands,
}

/// What a consumer's stream is told.
#[derive(Debug)]
pub(crate) enum Event {
    Deliveries(Vec<Delivery>),
    Revoked(Vec<Bytes>),
    GoAway,
}

/// The end of a consumer's stream.
pub(crate) struct Closed {
    pub(crate) id: SubscriptionId,
    /// Deliveries that never reached the transport.
    pub(crate) untaken: Vec<Bytes>,
    /// What the stream was told and did not read. Here, since it may still be told something until its end is known.
    pub(crate) unread: mpsc::Receiver<Event>,
    /// Deliberate: what it holds is released. Broken: that waits a moment for its return.
    pub(crate) end: StreamEnd,
}

impl Closed {
    /// Deliveries that nobody can have seen.
    fn unseen(&mut self) -> HashSet<Bytes> {
        let mut unseen: HashSet<Bytes> = std::mem::take(&mut self.untaken).into_iter().collect();
        while let Ok(event) = self.unread.try_recv() {
            if let Event::Deliveries(deliveries) = event {
                unseen.extend(deliveries.into_iter().map(|delivery| delivery.receipt));
            }
        }
        unseen
    }
}

/// The gRPC handlers' end of the engine's thread.
#[derive(Clone)]
pub(crate) struct Shard {
    jobs: mpsc::Sender<Job>,
    is_ready: watch::Receiver<bool>,
    room: Room,
    levels: Levels,
    measures: Measures,
}

/// What waits for the engine.
pub(crate) struct Load {
    pub(crate) jobs: usize,
    pub(crate) bytes: u64,
}

/// The engine's thread.
pub(crate) struct Thread(std::thread::JoinHandle<()>);

/// Opens the store and starts the thread. This first opening must succeed; after an error the thread repeats it.
pub(crate) fn start(place: Place) -> anyhow::Result<(Shard, Thread)> {
    let engine = place.open()?;
    let (jobs, mailbox) = mpsc::channel(MAILBOX);
    let (ready, is_ready) = watch::channel(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (levels, measures) = (Levels::default(), Measures::default());
    let told = Told { ready, levels: levels.clone(), measures: measures.clone() };
    let driver = Driver::new(place, engine, jobs.downgrade(), told);
    let run = move || runtime.block_on(driver.run(mailbox));
    let thread = std::thread::Builder::new().name("engine".into()).spawn(run)?;
    Ok((Shard { jobs, is_ready, room: Room::new(), levels, measures }, Thread(thread)))
}

impl Shard {
    /// Applies a command; the answer comes when it is on disk.
    pub(crate) async fn apply(&self, command: Command) -> Result<Reply, Failure> {
        let room = self.room.take(&command).map_err(|_| refusal::busy())?;
        let (answer, answered) = Answer::new(room, None);
        self.submit(Job::Apply(command, answer))?;
        answered.reply().await
    }

    /// Hands a command over for a caller that can wait for its turn, and is not to be refused for want of it.
    pub(crate) async fn enqueue(&self, command: Command, chain: Option<Chain>) -> Answered {
        let room = self.room.wait(&command).await;
        let (answer, answered) = Answer::new(room, chain);
        self.tell(Job::Apply(command, answer)).await;
        answered
    }

    /// Reads without changing anything.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(View<'_>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Look(Box::new(move |view| _ = reply.send(look(view)))))?;
        answer.await.map_err(|_| refusal::storage_unavailable())
    }

    /// The same for who can wait for its turn; `None` while the store is not open.
    pub(crate) async fn look_in_turn<T: Send + 'static>(
        &self,
        look: impl FnOnce(View<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(Job::Look(Box::new(move |view| _ = reply.send(look(view))))).await;
        answer.await.ok()
    }

    /// Hands a job over, unless too many are waiting.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Failure> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => refusal::busy(),
            mpsc::error::TrySendError::Closed(_) => refusal::shutting_down(),
        })
    }

    /// Hands over what must not be refused, such as the end of a stream.
    pub(crate) async fn tell(&self, job: Job) {
        // The thread is gone only when the process ends; then there is nobody left to tell.
        _ = self.jobs.send(job).await;
    }

    /// How full the queue is, from now on.
    pub(crate) async fn level(&self, queue: QueueId) -> Result<Arc<Level>, Failure> {
        let (levels, level) = (self.levels.clone(), self.levels.of(queue));
        self.look(move |view| levels.publish(view.engine)).await?;
        Ok(level)
    }

    /// What the thread measures.
    pub(crate) fn measures(&self) -> &Measures {
        &self.measures
    }

    /// How full the mailbox is: jobs, and bytes of the messages that wait for their answer.
    pub(crate) fn load(&self) -> Load {
        Load { jobs: self.jobs.max_capacity() - self.jobs.capacity(), bytes: self.room.bytes() }
    }

    /// Resolves when the engine's thread is gone, which it never is by itself.
    pub(crate) async fn ended(&self) {
        let mut is_ready = self.is_ready.clone();
        while is_ready.changed().await.is_ok() {}
    }

    /// Whether the store is open.
    pub(crate) fn is_ready(&self) -> bool {
        *self.is_ready.borrow()
    }
}

impl Thread {
    /// Waits for its end.
    pub(crate) async fn join(self) {
        _ = tokio::task::spawn_blocking(|| self.0.join()).await;
    }
}

impl View<'_> {
    /// Open streams and waiting calls of a queue.
    pub(crate) fn consumers(&self, queue: QueueId) -> usize {
        self.demands.count(queue)
    }

    /// Whether any of them can take a message.
    pub(crate) fn has_room(&self, queue: QueueId) -> bool {
        self.demands.has_room(queue)
    }
}

/// Where a store is, and how it is opened.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) max_rows: usize,
    /// What it is sealed with.
    pub(crate) keys: Option<Keys>,
}

impl Place {
    /// Opens the store, or makes it with fresh secrets.
    fn open(&self) -> anyhow::Result<Engine> {
        let mut random = [0; 20];
        getrandom::fill(&mut random)?;
        let (receipt_key, salt) = random.split_first_chunk().expect("20 is more than 16");
        let salt = u32::from_le_bytes(salt.try_into()?);
        let entropy = Entropy { receipt_key: *receipt_key, salt };
        let store = Store::open_with(&self.folder, entropy, self.max_rows, self.keys.clone())?;
        let engine = Engine::open(store, clock::now())?;
        tell_damage(&engine)?;
        Ok(engine)
    }
}

/// What was confirmed and cannot be read is named where people look first.
fn tell_damage(engine: &Engine) -> Result<(), StoreError> {
    for damage in engine.damage()? {
        tracing::error!(%damage, "the store is damaged; the rest of it goes on");
    }
    for damage in engine.log_damage().iter().filter(|damage| !damage.is_certain()) {
        tracing::warn!(damage = %damage.told(), "the log ends in a record that is not whole");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use ackwell_engine::Timestamp;
    use ackwell_engine::message::{Epoch, Message, MessageId, Payload, Priority, Seq, State};

    use super::*;

    /// A delivery with a body of that size.
    pub(crate) fn delivery(body_bytes: usize) -> Delivery {
        let message = Message {
            id: MessageId::new(Timestamp(1), 1, Seq(1)),
            stored_at: Timestamp(1),
            state: State::InFlight,
            attempts: 0,
            deliveries: 1,
            history: Vec::new(),
            dead_reason: None,
            delayed_until: None,
            expires_at: None,
            max_attempts: None,
            priority: Priority::default(),
            payload: Payload { body: vec![0; body_bytes].into(), ..Payload::default() },
        };
        let receipt = Bytes::from_static(&[7; 37]);
        Delivery { receipt, message, deadline: Timestamp(1), epoch: Epoch(1) }
    }
}
