//! Producers and consumers, what they share, and what they see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_bench::body::Bodies;
use ackwell_bench::clock::Stopwatch;
use ackwell_bench::figures::{Figures, rate};
use ackwell_bench::latencies::Latencies;
use ackwell_bench::ledger::Ledger;
use ackwell_bench::server::Server;
use anyhow::{Context, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{BODY_BYTES, Case, Consumed, Consumers, Sent, producers, stream};

/// Messages on their way. Producers wait for the consumer beyond: a backlog that grows would be another benchmark.
pub(crate) const MAX_ON_THE_WAY: usize = 8192;

pub(crate) struct Load {
    shared: Arc<Shared>,
    producers: JoinSet<anyhow::Result<()>>,
    consumer: Channel,
    consumers: JoinSet<anyhow::Result<()>>,
    consumed: Consumed,
    by: Consumers,
}

/// What producers and consumer share.
pub(crate) struct Shared {
    pub(crate) bodies: Bodies,
    pub(crate) is_over: AtomicBool,
    /// Room for messages on their way.
    pub(crate) room: Semaphore,
    /// No more is sent than that.
    enough: u64,
    books: Mutex<Books>,
    confirmed: AtomicU64,
    /// Acks that the broker answered.
    acked: AtomicU64,
    since: Stopwatch,
}

#[derive(Default)]
struct Books {
    ledger: Ledger,
    /// When each message was sent that may still be on its way, by its number.
    sent_at: Vec<Duration>,
    confirmations: Latencies,
    deliveries: Latencies,
}

/// What was seen in a stretch of time.
pub(crate) struct Shown {
    took: Duration,
    messages: u64,
    confirmations: Latencies,
    deliveries: Latencies,
}

impl Load {
    pub(crate) async fn start(server: &Server, case: &Case) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::new(case.consumed));
        let (producer, consumer) = (server.connect().await?, server.connect().await?);
        let producers = Self::produce(&producer, &shared, case);
        let consumers = JoinSet::new();
        let mut load = Self { shared, producers, consumer, consumers, consumed: case.consumed, by: case.by };
        if case.consumed == Consumed::Meanwhile {
            load.consume();
        }
        Ok(load)
    }

    fn produce(producer: &Channel, shared: &Arc<Shared>, case: &Case) -> JoinSet<anyhow::Result<()>> {
        let mut producers = JoinSet::new();
        let (channel, shared) = (|| producer.clone(), || Arc::clone(shared));
        match case.sent {
            Sent::Stream => {
                producers.spawn(producers::produce(channel(), shared(), case.batch, case.outstanding));
            }
            Sent::Calls => (0..case.outstanding).for_each(|_| {
                producers.spawn(producers::send(channel(), shared(), case.batch));
            }),
            Sent::Steadily(per_second) => {
                producers.spawn(producers::send_steadily(channel(), shared(), case.batch, per_second));
            }
        }
        producers
    }

    fn consume(&mut self) {
        for _ in 0..self.by.count {
            let (channel, shared) = (self.consumer.clone(), Arc::clone(&self.shared));
            self.consumers.spawn(stream::consume(channel, shared, self.by));
        }
    }

    /// Until what is measured can begin: for that time, or until as many messages wait as shall.
    pub(crate) async fn warm_up(&mut self, time: Duration) -> anyhow::Result<()> {
        match self.consumed {
            Consumed::Meanwhile | Consumed::Later => tokio::time::sleep(time).await,
            Consumed::Waiting(_) => join(&mut self.producers).await.context("send")?,
        }
        Ok(())
    }

    /// What is seen from now on for that time, or until what waits is drained.
    pub(crate) async fn measure(&mut self, time: Duration) -> anyhow::Result<Shown> {
        self.shared.books().forget_latencies();
        let before = self.done();
        let since = Stopwatch::start();
        match self.consumed {
            Consumed::Meanwhile | Consumed::Later => tokio::time::sleep(time).await,
            Consumed::Waiting(_) => {
                self.consume();
                join(&mut self.consumers).await.context("consume")?;
            }
        }
        let (messages, took) = (self.done() - before, since.elapsed());
        let (confirmations, deliveries) = self.shared.books().forget_latencies();
        // How long messages waited that were to wait says nothing.
        let deliveries = if self.consumed == Consumed::Meanwhile { deliveries } else { Latencies::default() };
        Ok(Shown { took, messages, confirmations, deliveries })
    }

    /// Messages that are through.
    fn done(&self) -> u64 {
        match self.consumed {
            Consumed::Meanwhile | Consumed::Waiting(_) => self.shared.acked.load(Ordering::Relaxed),
            Consumed::Later => self.shared.confirmed.load(Ordering::Relaxed),
        }
    }

    /// Stops sending, receives what is left, and sees that everything that was sent came back, once.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        join(&mut self.producers).await.context("send")?;
        if self.consumed == Consumed::Later {
            self.consume();
        }
        join(&mut self.consumers).await.context("consume")?;
        let sent = self.shared.sent();
        let [confirmed, acked] =
            [&self.shared.confirmed, &self.shared.acked].map(|count| count.load(Ordering::Relaxed));
        ensure!(
            [confirmed, acked] == [sent; 2],
            "of {sent} messages {confirmed} were confirmed and {acked} acked"
        );
        self.shared.books().ledger.check_complete()
    }
}

async fn join(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

impl Shared {
    fn new(consumed: Consumed) -> Self {
        let room = if consumed == Consumed::Meanwhile { MAX_ON_THE_WAY } else { Semaphore::MAX_PERMITS };
        let enough = if let Consumed::Waiting(count) = consumed { count } else { u64::MAX };
        Self {
            bodies: Bodies::new(BODY_BYTES),
            is_over: AtomicBool::new(false),
            room: Semaphore::new(room),
            enough,
            books: Mutex::default(),
            confirmed: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            since: Stopwatch::start(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That many more messages are on their way; the caller has taken the room for them.
    pub(crate) fn send(&self, count: u32) -> std::ops::Range<u64> {
        let now = self.since.elapsed();
        let mut books = self.books();
        let numbers = books.ledger.send(count.into());
        if books.ledger.sent() >= self.enough {
            self.is_over.store(true, Ordering::Relaxed);
        }
        books.sent_at.resize(MAX_ON_THE_WAY, Duration::ZERO);
        numbers.clone().for_each(|number| books.sent_at[slot(number)] = now);
        numbers
    }

    /// They are stored, after that time.
    pub(crate) fn confirm(&self, count: u32, took: Duration) {
        self.confirmed.fetch_add(count.into(), Ordering::Relaxed);
        self.books().confirmations.record(took);
    }

    /// These bodies have come.
    pub(crate) fn receive<'a>(&self, bodies: impl IntoIterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        let now = self.since.elapsed();
        let mut books = self.books();
        for body in bodies {
            let number = self.bodies.number(body).context("a body is not the one that was sent")?;
            books.ledger.receive(number)?;
            let sent_at = books.sent_at[slot(number)];
            books.deliveries.record(now.saturating_sub(sent_at));
        }
        Ok(())
    }

    /// So many acks were answered.
    pub(crate) fn acked(&self, count: usize) {
        self.acked.fetch_add(count as u64, Ordering::Relaxed);
        self.room.add_permits(count);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.books().ledger.sent()
    }

    /// Nothing is sent any more, and all that was is acked.
    pub(crate) fn is_done(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) && self.acked.load(Ordering::Relaxed) == self.sent()
    }
}

/// Messages that are on their way at the same time have different ones.
fn slot(number: u64) -> usize {
    usize::try_from(number % MAX_ON_THE_WAY as u64).expect("a remainder is small")
}

impl Books {
    fn forget_latencies(&mut self) -> (Latencies, Latencies) {
        (std::mem::take(&mut self.confirmations), std::mem::take(&mut self.deliveries))
    }
}

impl Shown {
    pub(crate) fn figures(&self, name: &str) -> Figures {
        let figures =
            Figures::new(name).with_rate(self.messages, self.took).with_latencies("", &self.confirmations);
        if self.deliveries.count() == 0 {
            return figures;
        }
        figures.with_latencies("delivery_", &self.deliveries)
    }

    pub(crate) fn per_second(&self) -> f64 {
        rate(self.messages, self.took)
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 messages")]
    pub(crate) fn messages_f64(&self) -> f64 {
        self.messages as f64
    }
}
