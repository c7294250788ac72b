//! Who waits for messages: Receive calls that found none, and consumers with room in their window.
//!
//! Each queue serves its demands in turn. This module knows no engine: it says what to ask for and takes what was given.

use std::collections::{BTreeSet, HashMap, VecDeque};

use ackwell_engine::Timestamp;
use ackwell_engine::command::{Delivery, Handover, Oversized, Receive};
use ackwell_engine::message::QueueId;
use ackwell_proto::Failure;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Event, Job, Unread};
use crate::broker::convert;

/// Names a consumer's stream within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SubscriptionId(pub(crate) u64);

/// A Receive call.
pub(crate) struct Poll {
    pub(crate) receive: Receive,
    /// Answered empty then.
    pub(crate) give_up_at: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<Handed, Failure>>,
}

/// Deliveries on their way to a Receive call. A call that is cancelled drops them wherever they are at that moment; then
/// they go back at once, free of charge.
pub(crate) struct Handed {
    queue: QueueId,
    deliveries: Vec<Delivery>,
    give_back: mpsc::WeakSender<Job>,
}

impl Handed {
    pub(super) fn new(queue: QueueId, deliveries: Vec<Delivery>, give_back: mpsc::WeakSender<Job>) -> Self {
        Self { queue, deliveries, give_back }
    }

    /// For nothing that was found in time.
    pub(super) fn nothing(queue: QueueId, give_back: mpsc::WeakSender<Job>) -> Self {
        Self::new(queue, Vec::new(), give_back)
    }

    /// The first deliveries, of at most `max_bytes` on the wire, have reached the caller's answer; one at least. The others
    /// go back.
    pub(crate) fn into_fitting(mut self, max_bytes: u64) -> Vec<Delivery> {
        let mut bytes = 0;
        let fits = |delivery: &&Delivery| {
            bytes += convert::len_in_list(&convert::delivery((*delivery).clone())) as u64;
            bytes <= max_bytes
        };
        let fitting = self.deliveries.iter().take_while(fits).count().max(1);
        self.deliveries.drain(..fitting.min(self.deliveries.len())).collect()
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        let receipts = self.deliveries.drain(..).map(|delivery| delivery.receipt).collect();
        if let Some(jobs) = self.give_back.upgrade() {
            give_back(jobs, Job::Release(self.queue, receipts));
        }
    }
}

/// At once, or as soon as the mailbox has room.
fn give_back(jobs: mpsc::Sender<Job>, release: Job) {
    if let Err(mpsc::error::TrySendError::Full(release)) = jobs.try_send(release)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        runtime.spawn(async move { _ = jobs.send(release).await });
    }
}

/// How much a consumer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) max_messages: u32,
    pub(crate) max_bytes: u64,
}

/// A consumer's stream.
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) queue: QueueId,
    pub(crate) consumer: String,
    pub(crate) window: Window,
    /// Has room for an event per message of the largest window, so that it never blocks.
    pub(crate) events: mpsc::Sender<Event>,
    /// What was put into `events` and not passed on.
    pub(crate) unread: Unread,
}

/// Each message goes through two of these twice. A receipt is half a MAC, so that nobody chooses where it lands, but for those
/// that a stream claims when it comes back; these are limited.
type ByReceipt<T> = HashMap<Bytes, T, foldhash::fast::RandomState>;

/// A subscription with what it holds.
pub(super) struct Consumer {
    pub(super) subscription: Subscription,
    /// Receipts with the bytes of their bodies.
    pub(super) held: ByReceipt<u64>,
    held_bytes: u64,
    /// When its deliveries are extended next.
    pub(super) extend_at: Option<Timestamp>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Poll(u64),
    Consumer(SubscriptionId),
}

/// Who asked for the messages of a [`Receive`].
pub(super) enum Asker {
    Poll(Poll),
    Consumer(SubscriptionId, QueueId),
}

/// So few waiting calls are not worth looking through for cancelled ones.
const MIN_CLEANING: usize = 64;

#[derive(Default)]
pub(super) struct Demands {
    polls: HashMap<u64, Poll>,
    ends: BTreeSet<(Timestamp, u64)>,
    next_poll: u64,
    /// So many waiting calls are looked through for cancelled ones.
    next_cleaning: usize,
    pub(super) consumers: HashMap<SubscriptionId, Consumer>,
    turns: HashMap<QueueId, VecDeque<Turn>>,
    /// Who holds which receipt.
    holders: ByReceipt<SubscriptionId>,
}

impl Demands {
    pub(super) fn park(&mut self, poll: Poll) {
        if self.polls.len() >= self.next_cleaning {
            self.forget_cancelled();
        }
        self.next_poll += 1;
        self.turns.entry(poll.receive.queue).or_default().push_back(Turn::Poll(self.next_poll));
        self.ends.insert((poll.give_up_at, self.next_poll));
        self.polls.insert(self.next_poll, poll);
    }

    /// A cancelled call is not heard of. Looking for them when there are twice as many calls costs little per call.
    fn forget_cancelled(&mut self) {
        self.polls.retain(|_, poll| !poll.reply.is_closed());
        let Self { polls, ends, .. } = self;
        ends.retain(|(_, number)| polls.contains_key(number));
        self.next_cleaning = MIN_CLEANING.max(self.polls.len() * 2);
        self.forget_turns();
    }

    fn unpark(&mut self, number: u64) -> Option<Poll> {
        let poll = self.polls.remove(&number)?;
        self.ends.remove(&(poll.give_up_at, number));
        Some(poll)
    }

    pub(super) fn open(&mut self, subscription: Subscription) {
        self.turns.entry(subscription.queue).or_default().push_back(Turn::Consumer(subscription.id));
        let consumer = Consumer { subscription, held: ByReceipt::default(), held_bytes: 0, extend_at: None };
        self.consumers.insert(consumer.subscription.id, consumer);
    }

    pub(super) fn resize(&mut self, id: SubscriptionId, window: Window) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.subscription.window = window;
        }
    }

    /// Ends a subscription; the receipts that it held.
    pub(super) fn close(&mut self, id: SubscriptionId) -> Option<(QueueId, Vec<Bytes>)> {
        let consumer = self.consumers.remove(&id)?;
        let held: Vec<Bytes> = consumer.held.into_keys().collect();
        for receipt in &held {
            self.holders.remove(receipt);
        }
        Some((consumer.subscription.queue, held))
    }

    /// Gives the receipt to a consumer, whoever held it before.
    pub(super) fn hold(&mut self, id: SubscriptionId, receipt: Bytes, bytes: u64) {
        if !self.consumers.contains_key(&id) {
            self.let_go(&receipt);
            return;
        }
        if let Some(former) = self.holders.insert(receipt.clone(), id) {
            self.free(former, &receipt);
        }
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.held_bytes += bytes;
            consumer.held.insert(receipt, bytes);
        }
    }

    /// Gives the receipt to a consumer that says it holds it, unless one of another queue does.
    pub(super) fn adopt(&mut self, id: SubscriptionId, receipt: &Bytes) {
        let queue_of =
            |id: &SubscriptionId| self.consumers.get(id).map(|consumer| consumer.subscription.queue);
        if self.holders.get(receipt).is_none_or(|holder| queue_of(holder) == queue_of(&id)) {
            self.hold(id, receipt.clone(), 0);
        }
    }

    /// Frees the receipt's share, if it is this consumer that holds it; whether it does.
    pub(super) fn disown(&mut self, id: SubscriptionId, receipt: &Bytes) -> bool {
        let is_holder = self.holders.get(receipt) == Some(&id);
        if is_holder {
            self.let_go(receipt);
        }
        is_holder
    }

    /// What is to be extended now, by consumer.
    pub(super) fn take_due_extensions(
        &mut self,
        now: Timestamp,
    ) -> Vec<(SubscriptionId, QueueId, Vec<Bytes>)> {
        let due =
            self.consumers.values_mut().filter(|consumer| consumer.extend_at.is_some_and(|at| at <= now));
        due.map(|consumer| {
            consumer.extend_at = None;
            let Subscription { id, queue, .. } = consumer.subscription;
            (id, queue, consumer.held.keys().cloned().collect())
        })
        .collect()
    }

    /// Frees the receipt's share of its holder's window.
    pub(super) fn let_go(&mut self, receipt: &Bytes) -> Option<&Consumer> {
        let holder = self.holders.remove(receipt)?;
        self.free(holder, receipt)
    }

    fn free(&mut self, holder: SubscriptionId, receipt: &Bytes) -> Option<&Consumer> {
        let consumer = self.consumers.get_mut(&holder)?;
        consumer.held_bytes -= consumer.held.remove(receipt).unwrap_or(0);
        Some(consumer)
    }

    /// The queues that somebody waits for.
    pub(super) fn queues(&self) -> Vec<QueueId> {
        self.turns.iter().filter(|(_, turns)| !turns.is_empty()).map(|(queue, _)| *queue).collect()
    }

    /// Whether anybody who waits for the queue can take a message.
    pub(super) fn has_room(&self, queue: QueueId) -> bool {
        self.turns.get(&queue).into_iter().flatten().any(|turn| match turn {
            Turn::Poll(_) => true,
            Turn::Consumer(id) => self.consumers.get(id).is_some_and(Consumer::has_room),
        })
    }

    /// Open streams and waiting calls of a queue.
    pub(super) fn count(&self, queue: QueueId) -> usize {
        let is_alive = |turn: &&Turn| match turn {
            Turn::Poll(number) => self.polls.get(number).is_some_and(|poll| !poll.reply.is_closed()),
            Turn::Consumer(id) => self.consumers.contains_key(id),
        };
        self.turns.get(&queue).into_iter().flatten().filter(is_alive).count()
    }

    /// What to ask the queue for when about `available` messages are there, each demand getting its share; those asked
    /// for go behind the others.
    pub(super) fn ask(&mut self, queue: QueueId, available: u64) -> Vec<(Receive, Asker)> {
        let mut turns = self.turns.remove(&queue).unwrap_or_default();
        let mut left = available;
        let mut asks = Vec::new();
        let share = available.div_ceil(turns.len().max(1) as u64);
        for _ in 0..turns.len() {
            if left == 0 {
                break;
            }
            let Some(turn) = turns.pop_front() else { break };
            if let Some((receive, asker)) = self.ask_one(queue, turn, share) {
                left = left.saturating_sub(receive.max_messages.into());
                asks.push((receive, asker));
            }
            if matches!(turn, Turn::Consumer(id) if self.consumers.contains_key(&id)) {
                turns.push_back(turn);
            }
        }
        if !turns.is_empty() {
            self.turns.insert(queue, turns);
        }
        asks
    }

    fn ask_one(&mut self, queue: QueueId, turn: Turn, share: u64) -> Option<(Receive, Asker)> {
        match turn {
            Turn::Poll(number) => {
                let poll = self.unpark(number)?;
                (!poll.reply.is_closed()).then(|| (poll.receive.clone(), Asker::Poll(poll)))
            }
            Turn::Consumer(id) => Some((self.consumers.get(&id)?.ask(share)?, Asker::Consumer(id, queue))),
        }
    }

    /// Calls that waited long enough.
    pub(super) fn give_up(&mut self, now: Timestamp) -> Vec<Poll> {
        let mut over = Vec::new();
        while let Some((_, number)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            over.extend(self.unpark(number));
        }
        if !over.is_empty() {
            self.forget_turns();
        }
        over
    }

    pub(super) fn next_give_up(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _)| *end)
    }

    pub(super) fn take_polls(&mut self) -> Vec<Poll> {
        self.ends.clear();
        let polls = std::mem::take(&mut self.polls).into_values().collect();
        self.forget_turns();
        polls
    }

    /// Drops the turns of calls and streams that are gone.
    pub(super) fn forget_turns(&mut self) {
        let Self { polls, consumers, turns, .. } = self;
        for turns in turns.values_mut() {
            turns.retain(|turn| match turn {
                Turn::Poll(number) => polls.contains_key(number),
                Turn::Consumer(id) => consumers.contains_key(id),
            });
        }
        turns.retain(|_, turns| !turns.is_empty());
    }
}

impl Consumer {
    /// At most `share` messages, within what is free of the window; `None` when it is full.
    fn ask(&self, share: u64) -> Option<Receive> {
        let Window { max_messages, max_bytes } = self.subscription.window;
        let free = u64::from(max_messages).saturating_sub(self.held.len() as u64);
        let free_bytes = self.subscription.unread.limit(max_bytes.saturating_sub(self.held_bytes));
        if free == 0 || free_bytes == 0 {
            return None;
        }
        Some(Receive {
            queue: self.subscription.queue,
            max_messages: u32::try_from(free.min(share)).unwrap_or(u32::MAX),
            max_bytes: free_bytes,
            oversized: if self.held.is_empty() { Oversized::Comes } else { Oversized::Waits },
            ack_timeout_ms: None,
            consumer: self.subscription.consumer.clone(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        })
    }

    fn has_room(&self) -> bool {
        self.ask(1).is_some()
    }
}

#[cfg(test)]
mod tests;
