//! Handlers for the messages of a queue, over one Consume stream after the other.

mod streams;

use std::time::Duration;

use ackwell_proto::v1::Delivery;
use ackwell_proto::v1::queues_client::QueuesClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Error;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::token::Connection;
use streams::Streams;

/// Commands to a consumer's task: a caller waits while there are more.
const COMMANDS: usize = 4;

/// How to consume.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Handlers at a time; at least 1.
    pub concurrency: u32,
    /// Messages held beside those that handlers work on.
    pub prefetch: u32,
    /// A name for this consumer in histories.
    pub name: String,
    /// How long a stop waits for running handlers.
    pub grace: Duration,
}

impl Default for Consume {
    /// One handler at a time, nothing prefetched, 25 s to stop.
    fn default() -> Self {
        Self { concurrency: 1, prefetch: 0, name: String::new(), grace: Duration::from_secs(25) }
    }
}

/// A consumer that runs. Dropping it drains in the background, without waiting.
#[derive(Debug)]
pub struct Consumer {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<Result<(), Error>>,
}

pub(crate) enum Command {
    /// Drain; with a grace other than the one at the start.
    Stop(Option<Duration>),
}

impl Consumer {
    pub(crate) fn start<H, F>(
        queues: QueuesClient<Connection>,
        queue: &str,
        options: Consume,
        handler: H,
    ) -> Self
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Outcome>> + Send + 'static,
    {
        let window = options.concurrency.max(1).saturating_add(options.prefetch);
        let session = Session::new(queue.to_owned(), options.name.clone(), window);
        let (commands, orders) = mpsc::channel(COMMANDS);
        let streams = Streams::new(queues, session, options, orders, handler);
        Self { commands, task: tokio::spawn(streams.run()) }
    }

    /// Takes no more messages, releases those that no handler has begun, and waits for the running ones up to the grace; then
    /// they are dropped, and what they hold is released. Fails with what ended the consumer before.
    pub async fn stop(self) -> Result<(), Error> {
        self.end(None).await
    }

    /// The same, with another grace.
    pub async fn stop_within(self, grace: Duration) -> Result<(), Error> {
        self.end(Some(grace)).await
    }

    async fn end(self, grace: Option<Duration>) -> Result<(), Error> {
        // One that has ended by itself takes no commands.
        let _ = self.commands.send(Command::Stop(grace)).await;
        ended(self.task.await)
    }

    /// Something that stops it while somebody else waits for its end.
    pub fn stopper(&self) -> Stopper {
        Stopper { commands: self.commands.clone() }
    }

    /// Waits until it has ended: by its [`Stopper`], or because the queue cannot be consumed, which is an error.
    pub async fn wait(self) -> Result<(), Error> {
        // Held until the end: without any sender the consumer drains.
        let _commands = self.commands;
        ended(self.task.await)
    }
}

/// Stops a [`Consumer`].
#[derive(Clone, Debug)]
pub struct Stopper {
    commands: mpsc::Sender<Command>,
}

impl Stopper {
    /// Begins to drain; `None`: with the grace that the consumer was started with.
    pub async fn stop(&self, grace: Option<Duration>) {
        // One that has ended needs no stop.
        let _ = self.commands.send(Command::Stop(grace)).await;
    }
}

fn ended(task: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match task {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closed),
        },
    }
}
