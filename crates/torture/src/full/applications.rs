//! Applications that send until they are refused, and receive and settle.

use std::time::Duration;

use ackwell_client::{Client, Delivery, Error, Message, Receive, ack, nack};
use ackwell_proto::Reason;
use anyhow::{Context, ensure};

use crate::audit;
use crate::broker::QUEUE;
use crate::clock::Stopwatch;
use crate::ledger::{Acked, Ledger};

/// Messages of one call.
const BATCH: u64 = 16;
const MOST: u32 = 200;
/// Deliveries that nobody settled are back within this.
const WAIT: Duration = Duration::from_secs(2);
/// Everything is drained within this.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

pub(super) struct Applications {
    pub(super) client: Client,
    pub(super) ledger: Ledger,
}

impl Applications {
    /// Sends until nothing more is taken.
    pub(super) async fn fill(&self) -> anyhow::Result<()> {
        while self.send(BATCH).await? {}
        Ok(())
    }

    /// Sends so many. `false`: they were refused, as a full volume refuses.
    pub(super) async fn send(&self, count: u64) -> anyhow::Result<bool> {
        let numbers = self.ledger.begin(count);
        let message = |number| Message { body: self.ledger.body(number), ..Message::default() };
        match self.client.send_batch(QUEUE, numbers.clone().map(message).collect()).await {
            Ok(results) => {
                for (number, result) in numbers.zip(results) {
                    self.ledger.confirm(number, &result.context("send")?)?;
                }
                Ok(true)
            }
            Err(error) => {
                ensure!(error.reason() == Some(Reason::DiskFull), "refused otherwise: {error}");
                ensure!(error.retry_after().is_some(), "a refusal says when to try again: {error}");
                numbers.into_iter().try_for_each(|number| self.ledger.refuse(number))?;
                Ok(false)
            }
        }
    }

    /// The same where the store itself may find no room, so that nobody knows what became of the messages.
    pub(super) async fn send_any(&self) -> anyhow::Result<()> {
        let numbers = self.ledger.begin(BATCH);
        let message = |number| Message { body: self.ledger.body(number), ..Message::default() };
        match self.client.send_batch(QUEUE, numbers.clone().map(message).collect()).await {
            Ok(results) => numbers
                .zip(results)
                .try_for_each(|(number, result)| self.ledger.confirm(number, &result.context("send")?)),
            Err(error) => {
                let is_expected =
                    matches!(error.reason(), Some(Reason::DiskFull | Reason::StorageUnavailable));
                ensure!(is_expected && error.retry_after().is_some(), "refused otherwise: {error}");
                Ok(())
            }
        }
    }

    /// Receives and acks at least so many.
    pub(super) async fn consume(&self, count: u64) -> anyhow::Result<()> {
        let mut consumed = 0;
        while consumed < count {
            let acked = self.consume_some().await?;
            ensure!(acked > 0, "only {consumed} messages of {count} came");
            consumed += acked;
        }
        Ok(())
    }

    async fn consume_some(&self) -> anyhow::Result<u64> {
        let deliveries = self.receive().await?;
        let mut numbers = Vec::new();
        for delivery in &deliveries {
            let number = self.ledger.deliver(delivery)?;
            self.ledger.try_ack(number)?;
            numbers.push(number);
        }
        if numbers.is_empty() {
            return Ok(0);
        }
        let results = self.client.settle(QUEUE, deliveries.iter().map(ack).collect()).await.context("ack")?;
        let mut confirmed = 0;
        for ((delivery, number), result) in deliveries.iter().zip(&numbers).zip(results) {
            let acked = match result {
                Ok(_) => Acked::Confirmed,
                Err(Error::Refused(failure)) if failure.reason == Reason::ReceiptExpired => Acked::Refused,
                Err(error) => return Err(error).context("ack"),
            };
            confirmed += u64::from(acked == Acked::Confirmed);
            self.ledger.ack(*number, delivery.fencing_token, acked)?;
        }
        Ok(confirmed.max(1))
    }

    /// Extends and nacks.
    pub(super) async fn return_some(&self) -> anyhow::Result<()> {
        let deliveries = self.receive().await?;
        ensure!(!deliveries.is_empty(), "messages are left");
        deliveries.iter().try_for_each(|delivery| self.ledger.deliver(delivery).map(|_| ()))?;
        for extended in self.client.extend(QUEUE, &deliveries, None).await.context("extend")? {
            extended.context("extend")?;
        }
        let nacks = deliveries.iter().map(|delivery| nack(delivery, "bad", Some(Duration::ZERO))).collect();
        for nacked in self.client.settle(QUEUE, nacks).await.context("nack")? {
            nacked.context("nack")?;
        }
        Ok(())
    }

    /// Until nothing is left.
    pub(super) async fn drain(&self) -> anyhow::Result<()> {
        let since = Stopwatch::start();
        loop {
            self.consume_some().await?;
            let left = audit::stored(&self.client).await?;
            if left == 0 {
                audit::exactly(&self.client, &self.ledger).await?;
                return Ok(());
            }
            ensure!(since.elapsed() < DRAIN_LIMIT, "{left} messages are left after {DRAIN_LIMIT:?}");
        }
    }

    async fn receive(&self) -> anyhow::Result<Vec<Delivery>> {
        let ack_timeout = Some(Duration::from_mins(1));
        let receive = Receive { max_messages: MOST, wait: WAIT, ack_timeout, ..Receive::default() };
        self.client.receive(QUEUE, receive).await.context("receive")
    }
}
