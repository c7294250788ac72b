//! Applications that send: single messages, batches, with dedup ids that are used again.

use std::sync::Arc;
use std::time::Duration;

use ackwell_client::{Client, Error, Message, Sent};
use ackwell_proto::Reason;
use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::Shared;
use crate::broker::{Broker, QUEUE};
use crate::dice::Dice;

/// One message a call, with a request id that is repeated until there is an answer.
const SINGLES: u64 = 6;
/// Calls of many.
const BATCHES: u64 = 2;
const BATCH: u64 = 50;
/// Messages with dedup ids.
const DEDUPS: u64 = 2;
/// Callers that give up soon after a kill, so that they never know.
const IMPATIENT: Duration = Duration::from_millis(30);
/// One message in so many is delayed, for so long.
const DELAYED_ONCE_IN: u64 = 20;
const DELAY: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 200_000_000 };
/// While consumers are behind.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Sender {
    client: Client,
    shared: Arc<Shared>,
    batch: u64,
    has_dedup_ids: bool,
    dice: Dice,
}

pub(super) fn spawn(
    callers: &mut JoinSet<anyhow::Result<()>>,
    broker: &Broker,
    shared: &Arc<Shared>,
) -> anyhow::Result<()> {
    for number in 0..SINGLES + BATCHES + DEDUPS {
        let client = broker.client()?;
        let sender = Sender {
            client: if number % 3 == 2 { client.with_retry_limit(IMPATIENT) } else { client },
            shared: Arc::clone(shared),
            batch: if (SINGLES..SINGLES + BATCHES).contains(&number) { BATCH } else { 1 },
            has_dedup_ids: number >= SINGLES + BATCHES,
            dice: Dice::new(number),
        };
        callers.spawn(sender.run());
    }
    Ok(())
}

/// Whether nobody knows what became of the call; any other refusal is a fault.
pub(super) fn is_unknown(error: &Error) -> bool {
    match error.reason() {
        Some(reason) => matches!(reason, Reason::StorageUnavailable | Reason::ShuttingDown | Reason::Busy),
        None => matches!(error, Error::Call { .. } | Error::TimedOut { .. } | Error::Unreachable { .. }),
    }
}

impl Sender {
    /// As long as the others; it then waits to be ended with them.
    async fn run(mut self) -> anyhow::Result<()> {
        while self.shared.goes_on() {
            if self.shared.is_behind() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let _at_work = shared.at_work.read().await;
            self.send().await?;
        }
        std::future::pending().await
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let numbers = self.shared.ledger.begin(self.batch);
        let messages: Vec<Message> = numbers.clone().map(|number| self.message(number)).collect();
        for _ in 0..=u64::from(self.has_dedup_ids) * self.dice.below(3) {
            match self.client.send_batch(QUEUE, messages.clone()).await {
                Ok(results) => self.learn(numbers.clone(), results)?,
                Err(error) if is_unknown(&error) => {}
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(())
    }

    fn learn(&self, numbers: std::ops::Range<u64>, results: Vec<Result<Sent, Error>>) -> anyhow::Result<()> {
        for (number, result) in numbers.zip(results) {
            let sent = result.with_context(|| format!("send message {number}"))?;
            ensure!(self.has_dedup_ids || !sent.duplicate, "message {number} has no dedup id to be known by");
            self.shared.ledger.confirm(number, &sent)?;
        }
        Ok(())
    }

    fn message(&mut self, number: u64) -> Message {
        let is_delayed = self.dice.one_in(DELAYED_ONCE_IN);
        Message {
            body: self.shared.ledger.body(number),
            dedup_id: if self.has_dedup_ids { format!("order-{number}") } else { String::new() },
            ordering_key: if number.is_multiple_of(7) {
                format!("key-{}", number % 70)
            } else {
                String::new()
            },
            available: is_delayed.then_some(ackwell_proto::v1::message::Available::Delay(DELAY)),
            ..Message::default()
        }
    }
}
