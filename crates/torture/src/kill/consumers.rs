//! Applications that receive: they ack, some acks twice, nack, release, reject, forget, and forward in one step.

use std::sync::Arc;
use std::time::Duration;

use ackwell_client::{
    Client, CommitRequest, Delivery, Error, Message, Receive, SendRequest, Sent, SettleRequest, ack, nack,
    reject, release,
};
use ackwell_proto::Reason;
use anyhow::{Context, bail, ensure};
use tokio::task::JoinSet;

use super::Shared;
use super::senders::is_unknown;
use crate::broker::{Broker, QUEUE};
use crate::dice::Dice;
use crate::ledger::Acked;

const CONSUMERS: u64 = 4;
/// Messages of one call.
const MOST: u32 = 100;
/// How long a call waits for messages.
const WAIT: Duration = Duration::from_millis(200);
/// Callers that give up soon after a kill.
const IMPATIENT: Duration = Duration::from_millis(30);
/// In percent: what becomes of a batch that is not acked.
const NACKED: u64 = 6;
const RELEASED: u64 = 3;
const REJECTED: u64 = 1;
const FORGOTTEN: u64 = 2;
const FORWARDED: u64 = 10;
/// One ack in so many is repeated, which must be answered as the first time.
const REPEATED_ONCE_IN: u64 = 10;

struct Consumer {
    client: Client,
    shared: Arc<Shared>,
    dice: Dice,
}

pub(super) fn spawn(
    callers: &mut JoinSet<anyhow::Result<()>>,
    broker: &Broker,
    shared: &Arc<Shared>,
) -> anyhow::Result<()> {
    for number in 0..CONSUMERS {
        let client = broker.client()?;
        let client = if number % 2 == 1 { client.with_retry_limit(IMPATIENT) } else { client };
        let consumer = Consumer { client, shared: Arc::clone(shared), dice: Dice::new(1000 + number) };
        callers.spawn(consumer.run());
    }
    Ok(())
}

impl Consumer {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let shared = Arc::clone(&self.shared);
            let _at_work = shared.at_work.read().await;
            let receive = Receive { max_messages: MOST, wait: WAIT, ..Receive::default() };
            match self.client.receive(QUEUE, receive).await {
                Ok(deliveries) if deliveries.is_empty() => {}
                Ok(deliveries) => self.work(&deliveries).await?,
                Err(error) if is_unknown(&error) => {}
                Err(error) => return Err(error).context("receive"),
            }
        }
    }

    async fn work(&mut self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let mut numbers = Vec::new();
        for delivery in deliveries {
            numbers.push(self.shared.ledger.deliver(delivery)?);
        }
        let mut chance = self.dice.below(100);
        let mut is = |percent: u64| {
            let is = chance < percent;
            chance = if is { u64::MAX } else { chance - percent };
            is
        };
        let wait = Some(Duration::from_millis(50));
        let settlements = match () {
            () if is(NACKED) => deliveries.iter().map(|delivery| nack(delivery, "bad", wait)).collect(),
            () if is(RELEASED) => deliveries.iter().map(release).collect(),
            () if is(REJECTED) => deliveries.iter().map(|delivery| reject(delivery, "bad")).collect(),
            () if is(FORGOTTEN) => return Ok(()),
            () if is(FORWARDED) && self.shared.goes_on() => return self.forward(deliveries, &numbers).await,
            () => return self.ack(deliveries, &numbers).await,
        };
        match self.client.settle(QUEUE, settlements).await {
            Ok(results) => results.into_iter().try_for_each(|result| settled(result.map(|_| ())).map(|_| ())),
            Err(error) if is_unknown(&error) => Ok(()),
            Err(error) => Err(error).context("settle"),
        }
    }

    async fn ack(&mut self, deliveries: &[Delivery], numbers: &[u64]) -> anyhow::Result<()> {
        let ledger = &self.shared.ledger;
        numbers.iter().try_for_each(|number| ledger.try_ack(*number))?;
        let acks = || deliveries.iter().map(ack).collect();
        let results = match self.client.settle(QUEUE, acks()).await {
            Ok(results) => results,
            Err(error) if is_unknown(&error) => return Ok(()),
            Err(error) => return Err(error).context("ack"),
        };
        let mut confirmed = Vec::new();
        for ((delivery, number), result) in deliveries.iter().zip(numbers).zip(results) {
            let acked = settled(result.map(|_| ()))?;
            ledger.ack(*number, delivery.fencing_token, acked)?;
            confirmed.push(acked == Acked::Confirmed);
        }
        if !self.dice.one_in(REPEATED_ONCE_IN) {
            return Ok(());
        }
        match self.client.settle(QUEUE, acks()).await {
            Ok(results) => {
                let differs = results.iter().zip(confirmed).any(|(result, before)| result.is_ok() != before);
                ensure!(!differs, "an ack that is repeated is answered otherwise: {results:?}");
                Ok(())
            }
            Err(error) if is_unknown(&error) => Ok(()),
            Err(error) => Err(error).context("ack again"),
        }
    }

    /// Acks all and sends as many, in one step.
    async fn forward(&mut self, deliveries: &[Delivery], numbers: &[u64]) -> anyhow::Result<()> {
        let ledger = &self.shared.ledger;
        numbers.iter().try_for_each(|number| ledger.try_ack(*number))?;
        let next = ledger.begin(numbers.len() as u64);
        let messages = next.clone().map(|number| Message { body: ledger.body(number), ..Message::default() });
        let settlements = deliveries.iter().map(ack).collect();
        let request = CommitRequest {
            settle: vec![SettleRequest { queue: QUEUE.to_owned(), settlements }],
            send: vec![SendRequest {
                queue: QUEUE.to_owned(),
                messages: messages.collect(),
                ..SendRequest::default()
            }],
            ..CommitRequest::default()
        };
        let (acked, sent) = match self.client.commit(request).await {
            Ok(mut response) => (Acked::Confirmed, response.sent.pop().map(|sent| sent.results)),
            Err(error) if is_unknown(&error) => return Ok(()),
            // One of the receipts is over.
            Err(Error::Refused(failure)) if failure.reason == Reason::BatchRefused => (Acked::Refused, None),
            Err(error) => return Err(error).context("commit"),
        };
        for (delivery, number) in deliveries.iter().zip(numbers) {
            ledger.ack(*number, delivery.fencing_token, acked)?;
        }
        match sent {
            None => next.into_iter().try_for_each(|number| ledger.refuse(number)),
            Some(results) => next.zip(results).try_for_each(|(number, result)| {
                ledger.confirm(number, &Sent { id: result.id, duplicate: result.duplicate })
            }),
        }
    }
}

/// Receipts may be over: a kill takes longer than a delivery is held.
fn settled(result: Result<(), Error>) -> anyhow::Result<Acked> {
    match result {
        Ok(()) => Ok(Acked::Confirmed),
        Err(error) if error.reason() == Some(Reason::ReceiptExpired) => Ok(Acked::Refused),
        Err(error) => bail!("settling is refused: {error}"),
    }
}
