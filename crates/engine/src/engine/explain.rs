//! Explain: why is this message not being delivered?

use super::Engine;
use crate::command::{Blocked, Explanation, MAX_COUNTED};
use crate::message::{MessageId, QueueId, Row, Seq, Stage, State};
use crate::store::{StoreError, catching};

impl Engine {
    /// What keeps the message from being handed out, in the order in which it has to go away; `None`: no such message.
    pub fn explain(&self, queue: QueueId, id: MessageId) -> Result<Option<Explanation>, StoreError> {
        catching(|| Ok(self.explain_found(queue, id)))
    }

    fn explain_found(&self, queue: QueueId, id: MessageId) -> Option<Explanation> {
        let seq = self.find(queue, id)?;
        let row = self.row(seq);
        let mut reasons: Vec<Blocked> = stage_of(row).into_iter().chain(self.queue_of(row)).collect();
        if row.hold().is_none() && self.is_held_back(seq, row) {
            reasons.push(Blocked::Moving);
        }
        if matches!(row.state(), State::Ready | State::Delayed) {
            reasons.extend(self.behind_key(seq, row));
        }
        if row.state() == State::Ready {
            reasons.extend(self.in_line(seq, row));
        }
        Some(Explanation { state: row.state(), reasons })
    }

    fn queue_of(&self, row: &Row) -> Vec<Blocked> {
        let Some(queue) = self.queues.get(&row.queue) else { return Vec::new() };
        let in_flight = self.messages.counts(row.queue).in_flight;
        let max = queue.record.settings.max_in_flight;
        let reasons = [
            queue.record.is_closed.then_some(Blocked::Deleting),
            queue.record.is_paused.then_some(Blocked::Paused),
            (in_flight >= max).then_some(Blocked::InFlightLimit { in_flight, max }),
        ];
        reasons.into_iter().flatten().collect()
    }

    fn behind_key(&self, seq: Seq, row: &Row) -> Option<Blocked> {
        let (first, in_flight) = self.messages.index(row.queue)?.keys.head(row.ordering?);
        let head = in_flight.or(first).filter(|head| *head != seq)?;
        let head_row = self.row(head);
        Some(Blocked::BehindKey { head: self.id(head, head_row), head_state: head_row.state() })
    }

    /// Others that come first, if anything does.
    fn in_line(&self, seq: Seq, row: &Row) -> Option<Blocked> {
        let ageing = self.ageing(row.queue);
        if self.messages.is_next(seq, ageing) {
            return None;
        }
        let keys = self.messages.index(row.queue)?.lanes.keys();
        let ahead = self.messages.ahead(seq, ageing, MAX_COUNTED);
        (ahead > 0 || keys > 1).then_some(Blocked::InLine { ahead, keys })
    }
}

fn stage_of(row: &Row) -> Option<Blocked> {
    match &row.stage {
        Stage::Ready => None,
        Stage::Delayed { until } => Some(Blocked::Delayed { until: *until, attempts: row.attempts }),
        Stage::InFlight(hold) => {
            let consumer = hold.consumer.to_string();
            Some(Blocked::Held { consumer, since: hold.started, until: hold.deadline })
        }
        Stage::Dead { reason, until, .. } => Some(Blocked::Dead { reason: *reason, until: *until }),
    }
}
