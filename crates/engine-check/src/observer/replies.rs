//! What replies say.

use ackwell_engine::command::{
    Available, Commit, Committed, Delivery, Handover, NewMessage, Outcome, Oversized, Receive, Sent, Settled,
};
use ackwell_engine::message::{Message, MessageId, QueueId, State};
use ackwell_engine::task::{Progress, Task, TaskState, Work};
use ackwell_engine::{Command, Refusal, Reply, Timestamp};
use bytes::Bytes;

use super::{Fact, Held, Observer, Request, stored};
use crate::violation::{Violation, ensure};

/// For so long a repetition is answered as the first time.
const WINDOW_MS: u64 = 120_000;

impl Observer {
    pub(super) fn saw_timeout(&mut self, receipt: &Bytes) -> Result<(), Violation> {
        let held = self.check_current(receipt)?;
        ensure(held.deadline <= self.now, "3: a delivery is held until its deadline", || {
            format!("{held:?}")
        })?;
        self.end(held.id, u32::from(held.is_handed))
    }

    pub(super) fn saw_reply(&mut self, command: &Command, reply: &Reply) -> Result<(), Violation> {
        match (command, reply) {
            (_, Reply::Refused(_)) => Ok(()),
            (Command::Send(send), Reply::Sent(results)) => {
                let key = (Some(send.queue), send.request_id.clone());
                self.check_repeated(&key, reply)?;
                self.saw_sent(command, reply)?;
                self.saw_duplicates(send.queue, results)?;
                if results.iter().any(Result::is_ok) {
                    self.remember(key, reply);
                }
                Ok(())
            }
            (Command::Receive(receive), Reply::Received(deliveries)) => {
                let key = (Some(receive.queue), receive.request_id.clone());
                self.check_repeated(&key, reply)?;
                self.saw_deliveries(receive, deliveries)?;
                // The window is from the first time on.
                if !deliveries.is_empty() && self.remembered(&key).is_none() {
                    self.remember(key, reply);
                }
                Ok(())
            }
            (Command::HandOver(handover), Reply::HandedOver(results)) => {
                let pairs = handover.receipts.iter().zip(results);
                pairs
                    .into_iter()
                    .try_for_each(|(receipt, result)| self.saw_handed(handover.queue, receipt, result))
            }
            (Command::Settle(settle), Reply::Settled(results)) => {
                let pairs = settle.settlements.iter().zip(results);
                pairs.into_iter().try_for_each(|((receipt, outcome), result)| {
                    self.saw_settled(settle.queue, receipt, outcome, result)
                })
            }
            (Command::Extend(extend), Reply::Extended(results)) => {
                let pairs = extend.receipts.iter().zip(results);
                pairs
                    .into_iter()
                    .try_for_each(|(receipt, result)| self.saw_extended(extend.queue, receipt, result))
            }
            (Command::Commit(commit), Reply::Committed(committed)) => {
                self.saw_commit(commit, committed, command, reply)
            }
            (Command::Cancel(cancel), Reply::Cancelled(results)) => {
                let pairs = cancel.ids.iter().zip(results);
                pairs.filter(|(_, result)| result.is_ok()).try_for_each(|(id, _)| self.saw_cancelled(*id))
            }
            (command, reply) => self.saw_admin(command, reply),
        }
    }

    /// Of what people do with queues as a whole.
    fn saw_admin(&mut self, command: &Command, reply: &Reply) -> Result<(), Violation> {
        match (command, reply) {
            (Command::Pause(_), Reply::Paused) => Ok(()),
            (Command::Configure(configure), Reply::Configured(queue, generation)) => {
                let is_new = !self.deleted.contains(queue);
                ensure(is_new, "2: a deleted queue never comes back", || {
                    format!("{configure:?} is {queue:?}")
                })?;
                self.batch.has_effect = true;
                self.batch.configured.insert(*queue);
                if *generation == configure.generation {
                    self.settings.insert(*queue, configure.settings.clone());
                }
                Ok(())
            }
            (Command::Redrive(selection), Reply::Redriven(selected)) => {
                self.saw_redriven(selection.queue, selected.changed);
                Ok(())
            }
            (Command::Purge(selection), Reply::Purged(selected)) => {
                self.saw_removed(selection.queue, selected.changed);
                Ok(())
            }
            (Command::Task(task), Reply::Task(progress)) => self.saw_task(task, *progress),
            (Command::Delete(delete), Reply::Deleted(deleted)) => {
                self.saw_removed(delete.queue, deleted.messages);
                self.batch.has_effect = true;
                self.batch.deleting.insert(delete.queue);
                self.deleted.extend(deleted.done.then_some(delete.queue));
                Ok(())
            }
            (command, reply) => {
                Err(Violation::new("the reply is of the command", format!("{command:?}: {reply:?}")))
            }
        }
    }

    fn saw_sent(&mut self, command: &Command, reply: &Reply) -> Result<(), Violation> {
        for (queue, message, sent) in stored(command, reply) {
            if !self.facts.contains_key(&sent.id) {
                self.batch.has_effect = true;
                self.facts.insert(sent.id, Fact::of(self.now, queue, message));
                self.check_first(queue, &message.payload.dedup_id)?;
            }
            let fact = self.fact(sent.id)?;
            ensure(fact.queue == queue, "2: a message is in its queue", || format!("{sent:?}"))?;
        }
        Ok(())
    }

    /// A message that was stored is the first of its dedup id within the window.
    fn check_first(&mut self, queue: QueueId, dedup_id: &str) -> Result<(), Violation> {
        let window_ms = self.settings.get(&queue).map_or(0, |settings| settings.dedup_window_ms);
        if dedup_id.is_empty() {
            return Ok(());
        }
        let until = self.dedups.insert((queue, dedup_id.to_owned()), self.now.plus_ms(window_ms));
        let is_first = until.is_none_or(|until| until <= self.now);
        ensure(is_first, "4: a duplicate is not stored", || format!("{dedup_id} until {until:?}"))
    }

    fn saw_duplicates(&mut self, queue: QueueId, results: &[Result<Sent, Refusal>]) -> Result<(), Violation> {
        for sent in results.iter().flatten().filter(|sent| sent.duplicate) {
            let is_ours = self.fact(sent.id)?.queue == queue;
            ensure(is_ours, "4: a duplicate has an original", || format!("{sent:?}"))?;
        }
        Ok(())
    }

    /// What was done once is answered the same, and not done again.
    fn check_repeated(&self, key: &Request, reply: &Reply) -> Result<(), Violation> {
        let earlier = self.remembered(key);
        let is_same = match (earlier, reply) {
            (Some(Reply::Sent(earlier)), Reply::Sent(now)) => {
                let is_refused = now.iter().all(Result::is_err);
                is_refused || earlier.iter().zip(now).all(|(earlier, now)| earlier.is_err() || earlier == now)
            }
            (Some(Reply::Received(earlier)), Reply::Received(now)) => {
                now.iter().all(|now| earlier.iter().any(|earlier| earlier.receipt == now.receipt))
            }
            (Some(earlier), reply) => earlier == reply,
            (None, _) => true,
        };
        ensure(is_same, "4: a repetition is answered as the first time", || format!("{earlier:?}\n{reply:?}"))
    }

    fn remembered(&self, key: &Request) -> Option<&Reply> {
        self.requests.get(key).filter(|(until, _)| *until > self.now).map(|(_, reply)| reply)
    }

    fn remember(&mut self, key: Request, reply: &Reply) {
        if !key.1.is_empty() {
            self.requests.insert(key, (self.now.plus_ms(WINDOW_MS), reply.clone()));
        }
    }

    fn saw_deliveries(&mut self, receive: &Receive, deliveries: &[Delivery]) -> Result<(), Violation> {
        let is_new = |delivery: &&Delivery| !self.held.contains_key(&delivery.receipt);
        let new: Vec<&Delivery> = deliveries.iter().filter(is_new).collect();
        let bytes: u64 = new.iter().map(|delivery| delivery.message.payload.body.len() as u64).sum();
        let is_lone = new.len() == 1 && receive.oversized == Oversized::Comes;
        let fits = new.len() <= receive.max_messages as usize && (bytes <= receive.max_bytes || is_lone);
        ensure(fits, "10: no more comes than was asked for", || {
            format!("{receive:?}: {bytes} bytes, {new:?}")
        })?;
        self.batch.has_effect |= !deliveries.is_empty();
        for delivery in deliveries {
            if self.held.contains_key(&delivery.receipt) {
                self.check_current(&delivery.receipt)?;
            } else {
                self.saw_new_delivery(receive, delivery)?;
            }
            let held = self.held.get_mut(&delivery.receipt).expect("it is known by now");
            held.deadline = delivery.deadline;
        }
        Ok(())
    }

    fn saw_new_delivery(&mut self, receive: &Receive, delivery: &Delivery) -> Result<(), Violation> {
        let (now, last_epoch) = (self.now, self.last_epoch);
        let Message { id, payload, .. } = &delivery.message;
        ensure(last_epoch < Some(delivery.epoch), "3: epochs grow", || {
            format!("{delivery:?} after {last_epoch:?}")
        })?;
        self.last_epoch = Some(delivery.epoch);
        let fact = self.fact(*id)?;
        let told = |fact: &Fact| format!("at {now:?}: {fact:?}, {delivery:?}");
        ensure(!fact.is_gone, "1: what is acked or gone is never delivered again", || told(fact))?;
        ensure(fact.queue == receive.queue, "2: a message is in its queue", || told(fact))?;
        ensure(fact.current.is_none(), "3: a message has one holder", || told(fact))?;
        let is_late = fact.expires_at.is_some_and(|at| at <= now);
        let is_in_time = fact.may_be_redriven || (fact.available <= now && !is_late);
        ensure(is_in_time, "8: never before its time, never after its end", || told(fact))?;
        fact.current = Some(delivery.receipt.clone());
        self.batch.delivered.push((*id, (receive.queue, payload.fairness_key.clone()), payload.body.len()));
        let is_handed = receive.handover == Handover::AtOnce;
        self.held.insert(delivery.receipt.clone(), Held { id: *id, deadline: delivery.deadline, is_handed });
        Ok(())
    }

    fn saw_handed(
        &mut self,
        queue: QueueId,
        receipt: &Bytes,
        result: &Result<(), Refusal>,
    ) -> Result<(), Violation> {
        if result.is_err() {
            return self.check_stale(queue, receipt);
        }
        self.check_current(receipt)?;
        self.batch.has_effect = true;
        self.held.get_mut(receipt).expect("it is current").is_handed = true;
        Ok(())
    }

    fn saw_extended(
        &mut self,
        queue: QueueId,
        receipt: &Bytes,
        result: &Result<Timestamp, Refusal>,
    ) -> Result<(), Violation> {
        let Ok(deadline) = result else { return self.check_stale(queue, receipt) };
        self.check_current(receipt)?;
        self.batch.has_effect = true;
        self.held.get_mut(receipt).expect("it is current").deadline = *deadline;
        Ok(())
    }

    fn saw_settled(
        &mut self,
        queue: QueueId,
        receipt: &Bytes,
        outcome: &Outcome,
        result: &Result<Settled, Refusal>,
    ) -> Result<(), Violation> {
        let kind = std::mem::discriminant(outcome);
        let earlier = self.settled.get(receipt).copied();
        let is_repeated = match (result, earlier) {
            (Ok(settled), None) => {
                let until = self.now.plus_ms(WINDOW_MS);
                self.settled.insert(receipt.clone(), (kind, *settled, until));
                return self.saw_end(receipt, outcome, *settled);
            }
            (Ok(settled), Some((how, before, _))) => (how, before) == (kind, *settled),
            (Err(_), Some((how, _, until))) if how == kind && until > self.now => !self.is_of(queue, receipt),
            (Err(_), _) => return self.check_stale(queue, receipt),
        };
        ensure(is_repeated, "4: a repetition is answered as the first time", || {
            format!("{earlier:?}\n{result:?}")
        })
    }

    fn saw_end(&mut self, receipt: &Bytes, outcome: &Outcome, settled: Settled) -> Result<(), Violation> {
        let held = self.check_current(receipt)?;
        let failed = match outcome {
            Outcome::Ack | Outcome::Release => 0,
            Outcome::Nack { .. } | Outcome::Reject { .. } => 1,
            Outcome::Lost { .. } => u32::from(held.is_handed),
        };
        let is_acked = *outcome == Outcome::Ack;
        let is_gone = settled.state.is_none();
        let fact = self.fact(held.id)?;
        let is_told = is_gone == is_acked || fact.expires_at.is_some();
        fact.is_gone = is_gone;
        ensure(is_told, "2: only an ack or its end takes a settled message", || {
            format!("{outcome:?} {settled:?}")
        })?;
        self.end(held.id, failed)
    }

    fn saw_commit(
        &mut self,
        commit: &Commit,
        committed: &Committed,
        command: &Command,
        reply: &Reply,
    ) -> Result<(), Violation> {
        let key = (None, commit.request_id.clone());
        self.check_repeated(&key, reply)?;
        if self.remembered(&key).is_some() {
            return Ok(());
        }
        let settled = committed.settled.iter().flatten().map(Result::is_ok);
        let done: Vec<bool> = settled.chain(committed.sent.iter().flatten().map(Result::is_ok)).collect();
        let is_whole = done.iter().all(|is_done| *is_done) || done.iter().all(|is_done| !*is_done);
        ensure(is_whole, "9: a Commit is done as a whole or not at all", || format!("{committed:?}"))?;
        if done.contains(&false) {
            return Ok(());
        }
        for (settle, results) in commit.settle.iter().zip(&committed.settled) {
            for ((receipt, outcome), result) in settle.settlements.iter().zip(results) {
                self.saw_settled(settle.queue, receipt, outcome, result)?;
            }
        }
        self.saw_sent(command, reply)?;
        self.remember(key, reply);
        Ok(())
    }

    fn saw_cancelled(&mut self, id: MessageId) -> Result<(), Violation> {
        self.batch.has_effect = true;
        let fact = self.fact(id)?;
        let may = fact.current.is_none() && !fact.is_gone;
        fact.is_gone = true;
        ensure(may, "3: nobody takes what a consumer holds", || format!("cancelled {id}"))
    }

    /// What a task did since it was heard of last, it did now; and it never does more than there was.
    fn saw_task(&mut self, task: &Task, progress: Progress) -> Result<(), Violation> {
        let Progress { state, total, processed, failed } = progress;
        let key = (task.queue, task.id.clone());
        if state == TaskState::Forgotten {
            let was_heard_of = self.orders.contains_key(&key);
            return ensure(task.has_begun && !was_heard_of, "19: a task that is known goes on", || {
                format!("{task:?} was forgotten")
            });
        }
        let order = self.orders.entry(key.clone()).or_insert_with(|| task.order.clone()).clone();
        let before = self.processed.insert(key, (state, processed));
        let (was, done) = before.unwrap_or((TaskState::Running, 0));
        let is_still = was == TaskState::Over || !task.has_begun;
        ensure(processed >= done && (!is_still || processed == done), "19: a task is done once", || {
            format!("{task:?}: {progress:?} after {before:?}")
        })?;
        let max = order.max_messages;
        let is_bounded = max == 0 || processed <= max && total <= max;
        ensure(is_bounded && failed == 0, "19: a task does no more than it may", || {
            format!("{order:?}: {progress:?}")
        })?;
        match order.work {
            Work::Redrive => self.saw_redriven(task.queue, processed - done),
            Work::Purge(_) => self.saw_removed(task.queue, processed - done),
        }
        Ok(())
    }

    fn saw_redriven(&mut self, queue: QueueId, changed: u64) {
        if changed == 0 {
            return;
        }
        self.batch.has_effect = true;
        *self.batch.redriven.entry(queue).or_default() += changed;
        let dead = self.last_look.iter().flat_map(|(_, messages)| messages);
        let dead = dead.filter(|message| message.state == State::Dead).map(|message| message.id);
        let may_be_dead: Vec<MessageId> = dead.chain(self.batch.ended.iter().copied()).collect();
        let now = self.now;
        for (id, fact) in self.facts.iter_mut().filter(|(_, fact)| fact.queue == queue) {
            fact.may_be_redriven |= may_be_dead.contains(id) || fact.expires_at.is_some_and(|at| at <= now);
        }
    }

    fn saw_removed(&mut self, queue: QueueId, count: u64) {
        self.batch.has_effect |= count > 0;
        *self.batch.removed.entry(queue).or_default() += count;
    }

    fn end(&mut self, id: MessageId, failed: u32) -> Result<(), Violation> {
        self.batch.has_effect = true;
        self.batch.ended.insert(id);
        let fact = self.fact(id)?;
        fact.current = None;
        fact.attempts += failed;
        Ok(())
    }

    /// Only who holds a message may do anything with it.
    fn check_current(&self, receipt: &Bytes) -> Result<Held, Violation> {
        let held = self.held.get(receipt);
        let fact = held.and_then(|held| self.facts.get(&held.id));
        let is_current = fact.is_some_and(|fact| fact.current.as_ref() == Some(receipt));
        ensure(is_current, "3: only the holder's receipt does anything", || format!("{held:?} {fact:?}"))?;
        Ok(held.expect("it is current").clone())
    }

    fn is_of(&self, queue: QueueId, receipt: &Bytes) -> bool {
        let fact = self.held.get(receipt).and_then(|held| self.facts.get(&held.id));
        fact.is_some_and(|fact| fact.queue == queue)
    }

    /// Who holds a message is not refused.
    fn check_stale(&self, queue: QueueId, receipt: &Bytes) -> Result<(), Violation> {
        let is_valid = self.check_current(receipt).is_ok() && self.is_of(queue, receipt);
        let is_deleted = self.batch.deleting.contains(&queue);
        ensure(!is_valid || is_deleted, "3: the holder's receipt is good", || {
            format!("{:?}", self.held.get(receipt))
        })
    }
}

impl Fact {
    fn of(now: Timestamp, queue: QueueId, message: &NewMessage) -> Self {
        let available = match message.available {
            Available::Now => now,
            Available::After(ms) => now.plus_ms(ms),
            Available::At(at) => at,
        };
        Self {
            queue,
            available,
            expires_at: message.ttl_ms.map(|ms| now.plus_ms(ms)),
            attempts: 0,
            current: None,
            is_gone: false,
            may_be_redriven: false,
        }
    }
}
