//! What a look at all messages shows.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_engine::Settings;
use ackwell_engine::message::{Message, MessageId, QueueId, State};
use ackwell_engine::settings::Expired;

use super::{Look, Observer};
use crate::violation::{Violation, ensure};

impl Observer {
    pub(super) fn looked(&mut self, look: &Look) -> Result<(), Violation> {
        let is_still = self.batch.has_effect || self.last_look == look;
        ensure(is_still, "3, 4: what has no effect changes nothing", || {
            format!("before: {:?}\nafter: {look:?}", self.last_look)
        })?;
        for (queue, messages) in look {
            messages.iter().try_for_each(|message| self.looked_at(*queue, message))?;
            self.check_keys(*queue, messages)?;
            self.check_in_flight(*queue, messages)?;
        }
        self.check_missing(look)?;
        self.last_look = look.to_vec();
        Ok(())
    }

    fn looked_at(&mut self, queue: QueueId, message: &Message) -> Result<(), Violation> {
        let (now, id) = (self.now, message.id);
        let was_redriven = self.batch.redriven.contains_key(&queue);
        let fact = self.fact(id)?;
        if fact.may_be_redriven && message.state != State::Dead && message.attempts == 0 {
            fact.attempts = 0;
            fact.expires_at = message.expires_at;
        }
        let told = |fact: &_| format!("at {now:?}: {fact:?}\n{message:?}");
        ensure(!fact.is_gone && fact.queue == queue, "2: what is gone is gone", || told(fact))?;
        let is_held = message.state == State::InFlight;
        ensure(fact.current.is_some() == is_held, "3: in flight is what somebody holds", || told(fact))?;
        ensure(fact.attempts == message.attempts, "5, 6: attempts are failures", || told(fact))?;
        let is_early =
            message.state != State::Dead && message.state != State::Delayed && fact.available > now;
        ensure(!is_early || fact.may_be_redriven, "8: never before its time", || told(fact))?;
        let waits = matches!(message.state, State::Ready | State::Delayed);
        let is_over = waits && message.expires_at.is_some_and(|at| at <= now);
        ensure(!is_over, "8: never after its end", || told(fact))?;
        let is_due = message.delayed_until.is_some_and(|at| at <= now);
        ensure(!is_due, "15: no delay is overdue", || told(fact))?;
        // Once its first life is over, it is a message without a delay and an end.
        fact.may_be_redriven &= was_redriven || message.expires_at.is_none();
        Ok(())
    }

    fn check_keys(&self, queue: QueueId, messages: &[Message]) -> Result<(), Violation> {
        let mut held: BTreeMap<&str, MessageId> = BTreeMap::new();
        let keyed = messages.iter().filter(|message| !message.payload.ordering_key.is_empty());
        for message in keyed.clone().filter(|message| message.state == State::InFlight) {
            let other = held.insert(&message.payload.ordering_key, message.id);
            ensure(other.is_none(), "7: a key has one message in flight", || {
                format!("{other:?} {message:?}")
            })?;
        }
        // What was redriven in the same batch may have come before, unseen.
        let delivered: BTreeSet<MessageId> = self.batch.delivered.iter().map(|(id, ..)| *id).collect();
        for message in keyed.filter(|_| !self.batch.redriven.contains_key(&queue)) {
            let held = held.get(message.payload.ordering_key.as_str());
            let is_skipped =
                held.is_some_and(|held| delivered.contains(held) && message.id.seq() < held.seq());
            let is_in_order = !is_skipped || message.state == State::Dead;
            ensure(is_in_order, "7: a key's messages come in order", || {
                format!("{held:?} before {message:?}")
            })?;
        }
        Ok(())
    }

    fn check_in_flight(&self, queue: QueueId, messages: &[Message]) -> Result<(), Violation> {
        let count = |messages: &[Message]| {
            messages.iter().filter(|message| message.state == State::InFlight).count() as u64
        };
        let before =
            self.last_look.iter().find(|(of, _)| *of == queue).map_or(0, |(_, before)| count(before));
        let max = self.settings.get(&queue).map_or(0, |settings| settings.max_in_flight);
        // A limit that was lowered takes nothing away.
        let is_within = count(messages) <= max.max(before) || self.batch.has_new_settings(queue);
        ensure(is_within, "10: no more in flight than allowed", || {
            format!("{queue:?}: {} of {max}", count(messages))
        })
    }

    /// Every message that is gone has gone in a way that somebody was told of, or that its queue's rules provide.
    fn check_missing(&mut self, look: &Look) -> Result<(), Violation> {
        let here: BTreeSet<MessageId> =
            look.iter().flat_map(|(_, all)| all).map(|message| message.id).collect();
        let dead =
            self.last_look.iter().flat_map(|(_, all)| all).filter(|message| message.state == State::Dead);
        let dead: BTreeSet<MessageId> = dead.map(|message| message.id).collect();
        let mut unexplained: BTreeMap<QueueId, u64> = BTreeMap::new();
        let mut missing: BTreeMap<QueueId, u64> = BTreeMap::new();
        for (id, fact) in self.facts.iter_mut().filter(|(id, fact)| !fact.is_gone && !here.contains(id)) {
            fact.is_gone = true;
            let settings = self.settings.get(&fact.queue);
            let is_over = fact.expires_at.is_some_and(|at| at <= self.now) && settings.is_some_and(drops);
            let is_old = dead.contains(id) && settings.is_some_and(|settings| settings.dead_ms > 0);
            *missing.entry(fact.queue).or_default() += 1;
            *unexplained.entry(fact.queue).or_default() += u64::from(!is_over && !is_old);
            let may = fact.current.is_none() || self.batch.deleting.contains(&fact.queue);
            fact.current = None;
            ensure(may, "3: nobody takes what a consumer holds", || format!("{id} {fact:?}"))?;
        }
        let removed = |queue: &QueueId| self.batch.removed.get(queue).copied().unwrap_or(0);
        for (queue, count) in &unexplained {
            let is_told = self.batch.has_new_settings(*queue) || *count <= removed(queue);
            ensure(is_told, "2: nothing is gone unheard", || format!("{count} of {queue:?}"))?;
        }
        let all = self.batch.removed.iter();
        let untrue = all.filter(|(queue, count)| missing.get(queue).copied().unwrap_or(0) < **count).count();
        ensure(untrue == 0, "2: what was removed is gone", || {
            format!("{:?}, gone: {missing:?}", self.batch.removed)
        })
    }
}

impl super::Batch {
    /// What happened earlier in the batch went by other rules.
    fn has_new_settings(&self, queue: QueueId) -> bool {
        self.configured.contains(&queue)
    }
}

fn drops(settings: &Settings) -> bool {
    settings.expired == Expired::Drop
}
