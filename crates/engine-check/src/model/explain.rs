//! Explain: why a message is not handed out.

use ackwell_engine::command::{Blocked, Explanation};
use ackwell_engine::message::{MessageId, QueueId, State};

use super::{Model, Queue, Stored};

impl Model {
    /// What keeps the message from being handed out; `None`: no such message.
    pub fn explain(&self, queue: QueueId, id: MessageId) -> Option<Explanation> {
        let message = self.of(queue).find(|message| message.shown.id == id)?;
        let queue = self.queue(queue)?;
        let reasons = self.own_reason(message).into_iter().chain(self.reasons_of(queue));
        let reasons = reasons.chain(self.behind_key(message)).chain(self.in_line(message)).collect();
        Some(Explanation { state: message.shown.state, reasons })
    }

    fn own_reason(&self, message: &Stored) -> Option<Blocked> {
        let shown = &message.shown;
        match (shown.state, &message.hold) {
            (State::Delayed, _) => {
                Some(Blocked::Delayed { until: shown.delayed_until?, attempts: shown.attempts })
            }
            (State::Dead, _) => {
                Some(Blocked::Dead { reason: shown.dead_reason?, until: self.kept_until(message) })
            }
            (_, Some(hold)) => Some(Blocked::Held {
                consumer: hold.consumer.clone(),
                since: hold.started,
                until: hold.deadline,
            }),
            (_, None) => None,
        }
    }

    fn reasons_of(&self, queue: &Queue) -> Vec<Blocked> {
        let (in_flight, max) = (self.in_flight(queue.id), queue.settings.max_in_flight);
        let closed = queue.is_closed.then_some(Blocked::Deleting);
        let paused = queue.is_paused.then_some(Blocked::Paused);
        let full = (in_flight >= max).then_some(Blocked::InFlightLimit { in_flight, max });
        [closed, paused, full].into_iter().flatten().collect()
    }

    fn behind_key(&self, message: &Stored) -> Option<Blocked> {
        let head =
            self.head(message).filter(|_| matches!(message.shown.state, State::Ready | State::Delayed))?;
        let (id, head_state) = (head.shown.id, head.shown.state);
        (id != message.shown.id).then_some(Blocked::BehindKey { head: id, head_state })
    }

    fn in_line(&self, message: &Stored) -> Option<Blocked> {
        let is_next = self.next(message.queue).is_some_and(|(seq, _)| seq == message.seq());
        if message.shown.state != State::Ready || is_next {
            return None;
        }
        let key = &message.shown.payload.fairness_key;
        let place = (self.rank(message), message.seq());
        let eligible = self.eligible(message.queue).into_iter();
        let same_key = eligible.filter(|other| other.shown.payload.fairness_key == *key);
        let ahead = same_key.filter(|other| (self.rank(other), other.seq()) < place).count() as u64;
        let keys = self.keys_with_work(message.queue).len() as u64;
        (ahead > 0 || keys > 1).then_some(Blocked::InLine { ahead, keys })
    }
}
