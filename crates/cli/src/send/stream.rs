//! Sends bodies while they are read: the next batch is read while the one before is being stored.
//!
//! One batch is under way at a time, so that messages are stored in the order of the lines and it is known which of
//! them are stored when something fails.

use ackwell_client::{Batch, Client, Error, Message, Sent};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::Output;
use crate::send::progress::{INTERVAL, Progress};
use crate::send::source::{Item, Place, Source};
use crate::{Outcome, output};

/// Refusals that are told one by one; the rest is only counted.
const MAX_REFUSALS_TOLD: u64 = 10;

/// Results of a call, one for each message.
type Answer = Result<Vec<Result<Sent, Error>>, Error>;

/// A send under way.
pub(super) struct Stream {
    client: Client,
    queue: String,
    template: Message,
    output: Output,
    progress: Progress,
    /// Read, and not sent.
    next: Pending,
    /// Read, and too much for `next`.
    overflow: Option<Item>,
    call: Option<Call>,
    refused: u64,
    /// Nothing more is read or sent.
    stopped: bool,
}

/// The messages of a batch, and where they come from.
#[derive(Default)]
struct Pending {
    batch: Batch,
    origins: Vec<(Place, u64)>,
}

struct Call {
    answer: JoinHandle<Answer>,
    origins: Vec<(Place, u64)>,
}

impl Stream {
    pub(super) fn new(client: Client, queue: String, template: Message, output: Output) -> Self {
        Self {
            client,
            queue,
            template,
            output,
            progress: Progress::new(output),
            next: Pending::default(),
            overflow: None,
            call: None,
            refused: 0,
            stopped: false,
        }
    }

    /// Until the source ends or something fails; then says how much is stored.
    pub(super) async fn run(mut self, source: Source) -> anyhow::Result<Outcome> {
        let result = self.pump(source).await;
        self.progress.clear();
        self.summarize();
        result?;
        Ok(if self.refused > 0 { Outcome::Incomplete } else { Outcome::Done })
    }

    async fn pump(&mut self, mut source: Source) -> anyhow::Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unread = Ok(());
        let mut ended = false;
        loop {
            self.start_call();
            if self.call.is_none() && (ended || self.stopped) {
                return unread;
            }
            tokio::select! {
                biased;
                item = source.next(), if !ended && !self.stopped && self.overflow.is_none() => match item {
                    Ok(Some(item)) => self.add(item),
                    Ok(None) => ended = true,
                    // What was read before is still sent.
                    Err(error) => (ended, unread) = (true, Err(error)),
                },
                answer = answered(&mut self.call) => self.settle(answer?)?,
                _ = ticks.tick() => self.progress.show(),
            }
        }
    }

    fn add(&mut self, item: Item) {
        let origin = (item.place.clone(), item.body.len() as u64);
        let message = Message { body: item.body.clone(), ..self.template.clone() };
        match self.next.batch.push(message) {
            None => self.next.origins.push(origin),
            Some(_) => self.overflow = Some(item),
        }
    }

    fn start_call(&mut self) {
        if self.call.is_some() || self.stopped || self.next.batch.is_empty() {
            return;
        }
        let Pending { mut batch, origins } = std::mem::take(&mut self.next);
        let (client, queue) = (self.client.clone(), self.queue.clone());
        let answer = tokio::spawn(async move { client.send_batch(&queue, batch.take()).await });
        self.call = Some(Call { answer, origins });
        if let Some(item) = self.overflow.take() {
            self.add(item);
        }
    }

    fn settle(&mut self, (answer, origins): (Answer, Vec<(Place, u64)>)) -> anyhow::Result<()> {
        let first = origins.first().map(|(place, _)| place.to_string()).unwrap_or_default();
        let results = answer.map_err(|error| stopped(error, &first))?;
        for ((place, bytes), result) in origins.iter().zip(results) {
            match result {
                Ok(sent) => self.stored(&sent, *bytes)?,
                Err(error) => self.refused(place, &error)?,
            }
        }
        self.stopped |= self.refused > 0;
        Ok(())
    }

    fn stored(&mut self, sent: &Sent, bytes: u64) -> anyhow::Result<()> {
        self.progress.add(bytes);
        match self.output {
            Output::Text => Ok(()),
            Output::Json | Output::Yaml => {
                output::data(self.output, &json!({"id": sent.id, "duplicate": sent.duplicate}))
            }
        }
    }

    fn refused(&mut self, place: &Place, error: &Error) -> anyhow::Result<()> {
        self.refused += 1;
        if self.refused <= MAX_REFUSALS_TOLD {
            self.progress.clear();
            output::note(format_args!("error: {place} was refused: {error}"));
        }
        match self.output {
            Output::Text => Ok(()),
            Output::Json | Output::Yaml => output::data(
                self.output,
                &json!({
                    "place": place.to_string(), "error": {"reason": word(error), "message": error.to_string()},
                }),
            ),
        }
    }

    fn summarize(&self) {
        let queue = &self.queue;
        if self.refused > MAX_REFUSALS_TOLD {
            output::note(format_args!("{} more were refused", self.refused - MAX_REFUSALS_TOLD));
        }
        if self.output == Output::Text && self.progress.messages() > 0 {
            output::note(format_args!("sent to {queue}: {}", self.progress));
        }
    }
}

/// A refused call stored nothing; of one that found no answer nobody knows.
fn stopped(error: Error, first: &str) -> anyhow::Error {
    let doubt = if error.reason().is_some() { "" } else { ", which may be stored or not" };
    anyhow::Error::new(error).context(format!("stopped at {first}{doubt}"))
}

/// Pending while no call is under way.
async fn answered(call: &mut Option<Call>) -> anyhow::Result<(Answer, Vec<(Place, u64)>)> {
    let Some(under_way) = call else { return std::future::pending().await };
    let answer = (&mut under_way.answer).await?;
    let origins = std::mem::take(&mut under_way.origins);
    *call = None;
    Ok((answer, origins))
}

fn word(error: &Error) -> Option<&str> {
    match error {
        Error::RefusedOtherwise { reason, .. } => Some(reason),
        other => other.reason().map(ackwell_client::Reason::as_str),
    }
}
