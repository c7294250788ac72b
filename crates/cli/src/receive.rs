//! `ackwell receive`: print messages and settle them.

use std::time::Duration;

use ackwell_client::{
    Client, Delivery, Error, Receive as Wanted, SettleResult, Settlement, ack, nack, reject, release,
};
use bytes::{BufMut, BytesMut};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};

use crate::args::{Cli, Output, Target};
use crate::clock::Stopwatch;
use crate::shown::{Bodies, Shown};
use crate::{Outcome, duration, output};

/// Messages of one call: printed and settled together, well within an ack timeout.
const BATCH_MESSAGES: u32 = 100;
/// Longest wait of one call, below the 60 s of the API; longer waits are several calls.
const POLL: Duration = Duration::from_secs(20);
/// How this consumer is called in histories.
const CONSUMER: &str = "ackwell receive";

/// Print messages, then ack them.
///
/// Each body is printed as it is, followed by a line feed. A message is acked once it is written to stdout; when stdout
/// is closed, what was not written goes back to its place.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell receive orders
  ackwell receive orders --max 0 --wait 1s > orders.txt
  ackwell receive orders --settle nack --reason 'no stock'

Exit code 3 means that no message came in time.")]
pub(crate) struct Receive {
    #[command(flatten)]
    target: Target,

    /// At most so many; 0: until none comes within --wait.
    #[arg(long, value_name = "N", default_value_t = 1)]
    max: u64,

    /// How long to wait for the first message, and for each one after.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    wait: Duration,

    /// What to do with a message once it is printed: ack: done; nack: failed, try again later; release: put it back;
    /// reject: never again.
    #[arg(long, value_enum, default_value_t = Settle::Ack)]
    settle: Settle,

    /// Why it is nacked or rejected; kept in the message's history.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Settle {
    Ack,
    Nack,
    Release,
    Reject,
}

impl Receive {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        self.check()?;
        let client = self.target.connect().await?;
        let mut left = if self.max == 0 { u64::MAX } else { self.max };
        let mut unsettled = 0;
        while left > 0 {
            let deliveries = self.next(&client, left).await?;
            if deliveries.is_empty() {
                break;
            }
            left = left.saturating_sub(deliveries.len() as u64);
            unsettled += self.handle(&client, &deliveries, output).await?;
        }
        Ok(self.outcome(left, unsettled))
    }

    fn check(&self) -> Result<(), clap::Error> {
        let is_failure = matches!(self.settle, Settle::Nack | Settle::Reject);
        let conflict = |message| Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        if self.max == 0 && self.settle == Settle::Release {
            return conflict("--settle release with --max 0 would receive the same messages for ever");
        }
        if !is_failure && !self.reason.is_empty() {
            return conflict("--reason is kept for failures only: add --settle nack or --settle reject");
        }
        Ok(())
    }

    /// Up to `left` messages; none when `wait` is over.
    async fn next(&self, client: &Client, left: u64) -> Result<Vec<Delivery>, Error> {
        let stopwatch = Stopwatch::start();
        loop {
            let wait = stopwatch.left(self.wait).min(POLL);
            let max_messages = BATCH_MESSAGES.min(u32::try_from(left).unwrap_or(BATCH_MESSAGES));
            let wanted = Wanted { max_messages, wait, consumer: CONSUMER.to_owned(), ..Wanted::default() };
            let deliveries = client.receive(&self.target.queue, wanted).await?;
            if !deliveries.is_empty() || stopwatch.left(self.wait).is_zero() {
                return Ok(deliveries);
            }
        }
    }

    /// Prints and settles; the number of those that could not be settled.
    async fn handle(
        &self,
        client: &Client,
        deliveries: &[Delivery],
        output: Output,
    ) -> anyhow::Result<usize> {
        if let Err(error) = output::print(&printed(deliveries, output)?) {
            let released = deliveries.iter().map(release).collect();
            client.settle(&self.target.queue, released).await?;
            return Err(error);
        }
        let settlements = deliveries.iter().map(|delivery| self.settlement(delivery)).collect();
        let results = client.settle(&self.target.queue, settlements).await?;
        Ok(deliveries.iter().zip(results).filter(|(delivery, result)| is_unsettled(delivery, result)).count())
    }

    fn settlement(&self, delivery: &Delivery) -> Settlement {
        match self.settle {
            Settle::Ack => ack(delivery),
            Settle::Nack => nack(delivery, &self.reason, None),
            Settle::Release => release(delivery),
            Settle::Reject => reject(delivery, &self.reason),
        }
    }

    fn outcome(&self, left: u64, unsettled: usize) -> Outcome {
        let received = if self.max == 0 { u64::MAX - left } else { self.max - left };
        if unsettled > 0 {
            return Outcome::Incomplete;
        }
        if received > 0 {
            return Outcome::Done;
        }
        output::note(format_args!("no message came within {}", duration::show(self.wait)));
        Outcome::Nothing
    }
}

fn printed(deliveries: &[Delivery], output: Output) -> anyhow::Result<BytesMut> {
    let mut text = BytesMut::new();
    for message in deliveries.iter().filter_map(|delivery| delivery.message.as_ref()) {
        match output {
            Output::Text => {
                text.put_slice(&message.body);
                text.put_u8(b'\n');
            }
            _ => text.put_slice(output::encoded(output, &Shown::new(message, Bodies::Shown))?.as_bytes()),
        }
    }
    Ok(text)
}

/// Says so, too.
fn is_unsettled(delivery: &Delivery, result: &Result<SettleResult, Error>) -> bool {
    let Err(error) = result else { return false };
    let id = delivery.message.as_ref().map_or("?", |message| &message.id);
    output::note(format_args!("message {id} was printed and not settled, it can come again: {error}"));
    true
}
