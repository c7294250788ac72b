//! What callers were told, message by message; and what may therefore never happen.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ackwell_client::{Delivery, Message, Sent};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::body::number_of;

/// Of one queue. Messages are numbered from 0; their bodies say their numbers.
pub(crate) struct Ledger {
    body: fn(u64) -> Bytes,
    messages: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    sending: Sending,
    id: String,
    /// Acks that were not answered.
    acks_open: u32,
    /// The delivery whose ack was confirmed.
    acked: Option<u64>,
    was_delivered: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sending {
    /// No answer, or not yet.
    #[default]
    Unknown,
    Confirmed,
    /// It was said that it is not stored.
    Refused,
}

/// Counts of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Sends that were tried, with all that follow from them.
    pub(crate) tried: u64,
    /// Confirmed.
    pub(crate) confirmed: u64,
    /// Acks that were tried: confirmed or without an answer.
    pub(crate) acks_tried: u64,
    /// Confirmed.
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
}

/// What became of an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    Confirmed,
    /// It was said that it did nothing.
    Refused,
    Unknown,
}

impl Ledger {
    pub(crate) fn new(body: fn(u64) -> Bytes) -> Self {
        Self { body, messages: Mutex::default() }
    }

    /// Numbers of messages that are about to be sent.
    pub(crate) fn begin(&self, count: u64) -> std::ops::Range<u64> {
        let mut messages = self.locked();
        let first = messages.len();
        messages.resize_with(first + usize::try_from(count).expect("a few"), Entry::default);
        first as u64..messages.len() as u64
    }

    pub(crate) fn body(&self, number: u64) -> Bytes {
        (self.body)(number)
    }

    /// The send was answered OK.
    pub(crate) fn confirm(&self, number: u64, sent: &Sent) -> anyhow::Result<()> {
        let mut messages = self.locked();
        let entry = entry(&mut messages, number)?;
        let is_known = entry.sending == Sending::Confirmed;
        ensure!(entry.sending != Sending::Refused, "message {number} was refused, and now is stored");
        ensure!(
            !is_known || entry.id == sent.id,
            "message {number} has the ids {} and {}",
            entry.id,
            sent.id
        );
        ensure!(!is_known || sent.duplicate, "message {number} was stored twice");
        (entry.sending, entry.id) = (Sending::Confirmed, sent.id.clone());
        Ok(())
    }

    /// It was answered that it is not stored.
    pub(crate) fn refuse(&self, number: u64) -> anyhow::Result<()> {
        entry(&mut self.locked(), number)?.sending = Sending::Refused;
        Ok(())
    }

    /// It was delivered: whole, and not after its ack was confirmed. Its number.
    pub(crate) fn deliver(&self, delivery: &Delivery) -> anyhow::Result<u64> {
        let message = delivery.message.as_ref().context("a delivery has a message")?;
        let number = self.verify(message)?;
        let mut messages = self.locked();
        let entry = entry(&mut messages, number)?;
        // An answer may be read long after it was made: only a later delivery than the acked one tells anything.
        let is_back = entry.acked.is_some_and(|acked| delivery.fencing_token > acked);
        ensure!(!is_back, "message {number} ({}) was acked and is delivered again", message.id);
        entry.was_delivered = true;
        Ok(number)
    }

    /// That a message is one that was sent, to the last byte. Its number.
    fn verify(&self, message: &Message) -> anyhow::Result<u64> {
        let number =
            number_of(&message.body).with_context(|| format!("message {} has no number", message.id))?;
        let mut messages = self.locked();
        let entry = entry(&mut messages, number)?;
        ensure!(message.body == (self.body)(number), "message {number} ({}) has another body", message.id);
        ensure!(
            entry.sending != Sending::Refused,
            "message {number} ({}) was refused, and is there",
            message.id
        );
        let is_other = entry.sending == Sending::Confirmed && entry.id != message.id;
        ensure!(!is_other, "message {number} is there as {} and was stored as {}", message.id, entry.id);
        Ok(number)
    }

    /// An ack is about to be sent.
    pub(crate) fn try_ack(&self, number: u64) -> anyhow::Result<()> {
        entry(&mut self.locked(), number)?.acks_open += 1;
        Ok(())
    }

    /// What was answered to it.
    pub(crate) fn ack(&self, number: u64, fencing_token: u64, acked: Acked) -> anyhow::Result<()> {
        let mut messages = self.locked();
        let entry = entry(&mut messages, number)?;
        if acked != Acked::Unknown {
            entry.acks_open -= 1;
        }
        if acked == Acked::Confirmed {
            let earlier = entry.acked.replace(fencing_token);
            ensure!(
                earlier.is_none_or(|earlier| earlier == fencing_token),
                "message {number} was acked twice"
            );
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        let messages = self.locked();
        let count = |counts: fn(&Entry) -> bool| messages.iter().filter(|entry| counts(entry)).count() as u64;
        Counts {
            tried: count(|entry| entry.sending != Sending::Refused),
            confirmed: count(|entry| entry.sending == Sending::Confirmed),
            acks_tried: count(|entry| entry.acked.is_some() || entry.acks_open > 0),
            acked: count(|entry| entry.acked.is_some()),
            delivered: count(|entry| entry.was_delivered),
        }
    }

    /// That exactly the right messages are there, while nobody sends or settles.
    pub(crate) fn audit(&self, stored: &[Message]) -> anyhow::Result<()> {
        let mut there = BTreeSet::new();
        for message in stored {
            let number = self.verify(message)?;
            ensure!(there.insert(number), "message {number} is there twice");
        }
        for (number, entry) in (0..).zip(&*self.locked()) {
            let is_there = there.contains(&number);
            if is_there && entry.acked.is_some() {
                bail!("message {number} ({}) was acked and is there", entry.id);
            }
            let must_be =
                entry.sending == Sending::Confirmed && entry.acked.is_none() && entry.acks_open == 0;
            if must_be && !is_there {
                bail!("message {number} ({}) was confirmed and is not there", entry.id);
            }
        }
        Ok(())
    }

    /// That every confirmed message was delivered; when the queue is empty.
    pub(crate) fn check_delivered(&self) -> anyhow::Result<()> {
        let messages = self.locked();
        let mut missing = (0..)
            .zip(&*messages)
            .filter(|(_, entry)| entry.sending == Sending::Confirmed && !entry.was_delivered);
        match missing.next() {
            None => Ok(()),
            Some((number, entry)) => {
                bail!(
                    "message {number} ({}) was confirmed and never delivered, with {} more",
                    entry.id,
                    missing.count()
                )
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Entries are whole at any time.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(messages: &mut [Entry], number: u64) -> anyhow::Result<&mut Entry> {
    let index = usize::try_from(number).ok();
    index
        .and_then(|index| messages.get_mut(index))
        .with_context(|| format!("message {number} was never sent"))
}
