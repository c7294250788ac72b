//! Redrive, Purge, Cancel: what people do.

use ackwell_engine::command::{Cancel, Filter, Mode, Selected, Selection};
use ackwell_engine::message::{MessageId, QueueId, Seq, State};
use ackwell_engine::{Refusal, Reply};

use super::{Model, Stored};

impl Model {
    pub(super) fn redrive(&mut self, selection: &Selection) -> Result<Reply, Refusal> {
        let selected = self.select(selection, |message| message.shown.state == State::Dead)?;
        if selection.mode == Mode::Apply {
            selected.iter().for_each(|seq| self.revive(*seq));
        }
        Ok(Reply::Redriven(done(selection, &selected)))
    }

    pub(super) fn purge(&mut self, selection: &Selection) -> Result<Reply, Refusal> {
        let selected = self.select(selection, |message| message.hold.is_none())?;
        if selection.mode == Mode::Apply {
            selected.iter().for_each(|seq| self.remove(*seq));
        }
        Ok(Reply::Purged(done(selection, &selected)))
    }

    pub(super) fn cancel(&mut self, cancel: &Cancel) -> Result<Reply, Refusal> {
        self.check_known(cancel.queue)?;
        Ok(Reply::Cancelled(cancel.ids.iter().map(|id| self.cancel_one(cancel.queue, *id)).collect()))
    }

    fn cancel_one(&mut self, queue: QueueId, id: MessageId) -> Result<(), Refusal> {
        let message = self.of(queue).find(|message| message.shown.id == id).ok_or(Refusal::UnknownMessage)?;
        if message.hold.is_some() {
            return Err(Refusal::MessageInFlight);
        }
        self.remove(id.seq());
        Ok(())
    }

    fn select(&self, selection: &Selection, may: fn(&Stored) -> bool) -> Result<Vec<Seq>, Refusal> {
        self.check_known(selection.queue)?;
        let behind = self
            .of(selection.queue)
            .filter(|message| selection.after.is_none_or(|after| message.seq().0 > after));
        let wanted = behind.filter(|message| may(message) && is_wanted(message, &selection.filter));
        let max = usize::try_from(selection.max_messages).unwrap_or(usize::MAX);
        Ok(wanted.take(max).map(Stored::seq).collect())
    }

    /// A new life in the old place.
    pub(super) fn revive(&mut self, seq: Seq) {
        let shown = &mut self.find_mut(seq).shown;
        (shown.state, shown.dead_reason) = (State::Ready, None);
        (shown.attempts, shown.expires_at) = (0, None);
        self.forget_idle_debts();
    }
}

fn done(selection: &Selection, selected: &[Seq]) -> Selected {
    let matched = selected.len() as u64;
    Selected { matched, changed: if selection.mode == Mode::Apply { matched } else { 0 }, next: None }
}

fn is_wanted(message: &Stored, filter: &Filter) -> bool {
    let Filter { states, ordering_key, fairness_key, headers, reason_contains, min_attempts, .. } = filter;
    let (shown, payload) = (&message.shown, &message.shown.payload);
    let is_any_or = |text: &str, own: &str| text.is_empty() || text == own;
    let dead_reason = shown.dead_reason.map_or("", |reason| reason.as_str());
    let last_reason = shown.history.first().map_or("", |attempt| &attempt.reason);
    (states.is_empty() || states.contains(&shown.state))
        && is_any_or(ordering_key, &payload.ordering_key)
        && is_any_or(fairness_key, &payload.fairness_key)
        && headers.iter().all(|header| payload.headers.contains(header))
        && (dead_reason.contains(reason_contains) || last_reason.contains(reason_contains))
        && shown.attempts >= *min_attempts
        && filter.stored_after.is_none_or(|after| shown.stored_at > after)
        && filter.stored_before.is_none_or(|before| shown.stored_at < before)
        && (filter.ids.is_empty() || filter.ids.contains(&shown.id))
}
