//! What follows from the replies of a commit: answers, deliveries, and what streams are told.

use ackwell_engine::command::{Delivery, Settled};
use ackwell_engine::message::QueueId;
use ackwell_engine::{Applied, Refusal, Reply, Timestamp};
use bytes::Bytes;

use super::{Asker, Driver, Event, Handed, Poll, SubscriptionId, Then, extension};
use crate::broker::refusal;

impl Driver {
    pub(super) fn conclude(&mut self, now: Timestamp, applied: Applied, thens: Vec<Then>) {
        self.revoke(applied.expired);
        for (reply, then) in applied.replies.into_iter().zip(thens) {
            match then {
                Then::Nothing => {}
                Then::Answer(answer) => answer.give(Ok(reply)),
                Then::AnswerSettled(answer, receipts) => {
                    self.let_go_settled(&receipts, &reply);
                    answer.give(Ok(reply));
                }
                Then::Hand(asker) => self.hand(now, asker, reply),
                Then::Extended(id, receipts) => self.extended(now, id, receipts, reply),
            }
        }
        self.judge_asks();
    }

    /// Whatever else was wrong with a settlement, its receipt is no longer valid; but of another queue it says nothing, and
    /// a Commit that was refused for another item changed nothing.
    fn let_go_settled(&mut self, receipts: &[Bytes], reply: &Reply) {
        let results: Vec<_> = match reply {
            Reply::Settled(results) => results.iter().collect(),
            Reply::Committed(committed) => committed.settled.iter().flatten().collect(),
            _ => return,
        };
        let is_over = |result: &Result<Settled, Refusal>| {
            !matches!(result, Err(Refusal::InvalidReceipt | Refusal::CommitRefused))
        };
        let over = receipts.iter().zip(results).filter(|(_, result)| is_over(result));
        over.for_each(|(receipt, _)| _ = self.demands.let_go(receipt));
    }

    fn hand(&mut self, now: Timestamp, asker: Asker, reply: Reply) {
        let deliveries = match reply {
            Reply::Received(deliveries) => Ok(deliveries),
            Reply::Refused(refused) => Err(refused),
            other => unreachable!("a Receive is answered by deliveries, not {other:?}"),
        };
        match asker {
            Asker::Poll(poll) => self.hand_to_poll(now, poll, deliveries),
            Asker::Consumer(id, queue) => {
                self.hand_to_consumer(now, id, queue, deliveries.unwrap_or_default());
            }
        }
    }

    fn hand_to_poll(&mut self, now: Timestamp, poll: Poll, deliveries: Result<Vec<Delivery>, Refusal>) {
        match deliveries {
            Ok(deliveries) if deliveries.is_empty() && now < poll.give_up_at && self.is_granting => {
                self.demands.park(poll);
            }
            Ok(deliveries) => {
                let queue = poll.receive.queue;
                self.note_handed(queue, &deliveries);
                _ = poll.reply.send(Ok(Handed::new(queue, deliveries, self.jobs.clone())));
            }
            Err(refused) => _ = poll.reply.send(Err(refusal::failure(&refused))),
        }
    }

    fn hand_to_consumer(
        &mut self,
        now: Timestamp,
        id: SubscriptionId,
        queue: QueueId,
        deliveries: Vec<Delivery>,
    ) {
        if !self.demands.consumers.contains_key(&id) {
            // It left while it was being asked for.
            return self.release(queue, deliveries.into_iter().map(|delivery| delivery.receipt).collect());
        }
        let Some(first) = deliveries.first() else { return };
        self.note_handed(queue, &deliveries);
        self.schedule_extension(id, extension::extend_at(now, first.deadline));
        for delivery in &deliveries {
            self.demands.hold(id, delivery.receipt.clone(), delivery.message.payload.body.len() as u64);
        }
        if let Some(consumer) = self.demands.consumers.get(&id) {
            consumer.subscription.unread.tell(&deliveries);
        }
        self.tell(id, Event::Deliveries(deliveries));
    }

    /// A stream that is gone is told nothing; its end is on the way as [`Job::Close`] and releases what it held.
    fn tell(&self, id: SubscriptionId, event: Event) {
        if let Some(consumer) = self.demands.consumers.get(&id) {
            _ = consumer.subscription.events.try_send(event);
        }
    }

    /// Plans the next extension of those still valid and revokes the others.
    fn extended(&mut self, now: Timestamp, id: SubscriptionId, receipts: Vec<Bytes>, reply: Reply) {
        let Reply::Extended(results) = reply else { return };
        let mut revoked = Vec::new();
        for (receipt, result) in receipts.into_iter().zip(results) {
            match result {
                Ok(deadline) => self.schedule_extension(id, extension::extend_at(now, deadline)),
                // One that is no longer held was settled, or revoked, by a commit in between.
                Err(refused) => {
                    if self.demands.disown(id, &receipt) || refused == Refusal::InvalidReceipt {
                        revoked.push(receipt);
                    }
                }
            }
        }
        if !revoked.is_empty() {
            self.tell(id, Event::Revoked(revoked));
        }
    }

    pub(super) fn schedule_extension(&mut self, id: SubscriptionId, at: Timestamp) {
        if let Some(consumer) = self.demands.consumers.get_mut(&id) {
            consumer.extend_at = Some(consumer.extend_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Tells the holders of receipts that ran out of time.
    fn revoke(&mut self, receipts: Vec<Bytes>) {
        for receipt in receipts {
            if let Some(id) = self.demands.let_go(&receipt).map(|consumer| consumer.subscription.id) {
                self.tell(id, Event::Revoked(vec![receipt]));
            }
        }
    }
}
