//! How messages come back: released, failed, timed out, expired, dead.

use super::Engine;
use crate::command::Settled;
use crate::message::{Attempt, AttemptOutcome, DeadReason, MAX_REASON_BYTES, Row, Seq, Stage, State};
use crate::settings::{Expired, Settings};
use crate::time::Timestamp;

/// An attempt that failed.
#[derive(Clone, Copy)]
pub(super) struct Failed<'a> {
    pub(super) outcome: AttemptOutcome,
    pub(super) reason: &'a str,
    pub(super) then: Then,
}

/// What follows a failed attempt that was not the last.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// The queue's backoff.
    Backoff,
    /// What the consumer asked for.
    Delay(u64),
    /// Its place, at once.
    Return,
    /// Dead, whatever attempts are left.
    Bury,
}

impl Engine {
    pub(super) fn time_out(&mut self, now: Timestamp, seq: Seq) {
        let row = self.row(seq);
        if let Some(hold) = row.hold() {
            let receipt = self.seal(seq, row.queue, hold.epoch);
            self.expired.push(receipt);
        }
        if !self.is_handed(seq) {
            self.release(now, seq);
            return;
        }
        let outcome = AttemptOutcome::AckTimeout;
        self.fail(now, seq, Failed { outcome, reason: "ack timeout", then: Then::Backoff });
    }

    /// Whether the application that holds the message has it.
    pub(super) fn is_handed(&self, seq: Seq) -> bool {
        self.row(seq).hold().is_some_and(|hold| hold.is_handed)
    }

    /// Counts a failed attempt; the last one is the message's death.
    pub(super) fn fail(&mut self, now: Timestamp, seq: Seq, failed: Failed<'_>) -> Settled {
        let row = self.row(seq);
        let (queue, attempt) = (row.queue, attempt(row, now, failed));
        let stage = self.stage_after(now, seq, failed.then);
        self.count(queue, |totals| totals.add_failure(failed.outcome));
        self.put(now, seq, stage, Some(attempt))
    }

    /// Where a failed attempt leaves the message.
    fn stage_after(&self, now: Timestamp, seq: Seq, then: Then) -> Stage {
        let row = self.row(seq);
        let settings = self.settings_of(row);
        let attempts = row.attempts.saturating_add(1);
        let limit = row.max_attempts.map_or(settings.max_attempts, |own| own.min(settings.max_attempts));
        let delay_ms = match then {
            Then::Bury => return dead(settings, now, DeadReason::Rejected),
            _ if attempts >= limit => return dead(settings, now, DeadReason::MaxAttempts),
            Then::Return => 0,
            Then::Delay(delay_ms) => delay_ms,
            Then::Backoff => settings.backoff.delay_ms(attempts, jitter(seq, attempts)),
        };
        let until = now.plus_ms(delay_ms);
        if until > now { Stage::Delayed { until } } else { Stage::Ready }
    }

    /// Back to its place: given back, or its delay is over.
    pub(super) fn release(&mut self, now: Timestamp, seq: Seq) -> Settled {
        self.put(now, seq, Stage::Ready, None)
    }

    /// Its ttl has passed.
    pub(super) fn expire(&mut self, now: Timestamp, seq: Seq) {
        self.put(now, seq, Stage::Ready, None);
    }

    pub(super) fn bury(&mut self, now: Timestamp, seq: Seq, reason: DeadReason) {
        let dead = dead(self.settings_of(self.row(seq)), now, reason);
        self.put(now, seq, dead, None);
    }

    /// Puts a message that nobody holds any more where it belongs, which is elsewhere when its ttl has passed.
    fn put(&mut self, now: Timestamp, seq: Seq, stage: Stage, attempt: Option<Attempt>) -> Settled {
        let row = self.row(seq);
        let (queue, settings) = (row.queue, self.settings_of(row));
        let is_dead = matches!(stage, Stage::Dead { .. });
        let stage = match settings.expired {
            _ if is_dead || !row.is_expired(now) => stage,
            Expired::DeadLetter => dead(settings, now, DeadReason::Expired),
            Expired::Drop => {
                self.remove(seq);
                self.count(queue, |totals| totals.dropped += 1);
                return Settled { state: None, delayed_until: None };
            }
        };
        if let Stage::Dead { reason, .. } = stage {
            self.count(queue, |totals| totals.add_death(reason));
        }
        self.messages.change(seq, |row| {
            attempt.into_iter().for_each(|attempt| row.record(attempt));
            row.stage = stage;
            place(row)
        })
    }

    fn settings_of(&self, row: &Row) -> &Settings {
        self.settings(row.queue).expect("queues are never removed while they have messages")
    }
}

fn attempt(row: &Row, now: Timestamp, failed: Failed<'_>) -> Attempt {
    let hold = row.hold().expect("only a held message can fail");
    Attempt {
        started: hold.started,
        ended: now,
        outcome: failed.outcome,
        reason: cut(failed.reason, MAX_REASON_BYTES).to_owned(),
        consumer: hold.consumer.to_string(),
    }
}

fn dead(settings: &Settings, now: Timestamp, reason: DeadReason) -> Stage {
    Stage::Dead { reason, since: now, until: settings.dead_until(now) }
}

fn place(row: &Row) -> Settled {
    let delayed_until = match row.stage {
        Stage::Delayed { until } => Some(until),
        _ => None,
    };
    debug_assert_ne!(row.state(), State::InFlight);
    Settled { state: Some(row.state()), delayed_until }
}

/// The longest beginning of at most `max_bytes` that does not split a character.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// A number that looks random and is the same on every replay (`SplitMix64`).
pub(super) fn jitter(seq: Seq, attempts: u32) -> u64 {
    let mut z = seq.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(attempts));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
