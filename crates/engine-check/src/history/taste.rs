//! Which steps, in which mixture.

use ackwell_engine::Settings;
use ackwell_engine::command::{Available, Batch, Handover, Mode, Outcome, Oversized};
use ackwell_engine::message::{Priority, State};
use ackwell_engine::settings::{Backoff, BackoffPolicy, Expired};
use ackwell_engine::task::Work;

use super::{Ask, Chore, Fate, Item, Pick, Sieve, Slot, Step, Wish};
use crate::dice::Dice;

const SEND: usize = 3;
const RECEIVE: usize = 4;
const SETTLE: usize = 6;
const CANCEL: usize = 9;
const PURGE: usize = 10;
const TASK: usize = 12;

/// What a history likes. Each leaves out some kinds of commands and features altogether, so that the others meet each
/// other more often than they would in an even mixture.
pub(super) struct Taste {
    /// Of the kinds of commands, in the order of [`Taste::ask`].
    weights: [u64; 13],
    ordering_keys: &'static [&'static str],
    fairness_keys: &'static [&'static str],
    dedup_ids: &'static [&'static str],
    priorities: &'static [u32],
    /// How many request ids there are, one of which is none.
    requests: u64,
    slots: u64,
    longest_ms: u64,
    /// Messages have delays and ttls.
    is_timed: bool,
    /// Some bodies cost more than a turn.
    is_large: bool,
    /// Crashes, and clocks that are set back.
    is_troubled: bool,
}

impl Taste {
    pub(super) fn of(dice: &mut Dice) -> Self {
        let usual = [1, 1, 1, 10, 10, 2, 10, 3, 3, 2, 2, 2, 4];
        Self {
            weights: usual
                .map(|weight| weight * dice.pick(&[0, 1, 1, 3]))
                .map(|weight| weight.max(u64::from(dice.one_in(9)))),
            ordering_keys: dice.pick(&[&[""], &["", "a", "a", "b"]]),
            fairness_keys: dice.pick(&[&[""], &["", "f", "g", "h", "h"]]),
            dedup_ids: dice.pick(&[&[""], &[""], &["", "x", "y", "z"]]),
            priorities: dice.pick(&[&[4], &[0, 4, 5, 9]]),
            requests: dice.pick(&[1, 6]),
            slots: dice.pick(&[1, 1, 2, 3]),
            longest_ms: dice.pick(&[2_000, 20_000, 400_000]),
            is_timed: !dice.one_in(4),
            is_large: dice.one_in(8),
            is_troubled: dice.one_in(2),
        }
        .with_traffic()
        .with_debts()
    }

    /// Without messages that come and go there is nothing to look at.
    fn with_traffic(mut self) -> Self {
        for kind in [SEND, RECEIVE, SETTLE] {
            self.weights[kind] = self.weights[kind].max(4);
        }
        self
    }

    /// Debts show where few keys take turns, again and again, and the heads of ordering keys change meanwhile.
    fn with_debts(mut self) -> Self {
        if self.is_large {
            self.slots = 1;
            self.fairness_keys = &["f", "g"];
            self.ordering_keys = if self.ordering_keys.len() > 1 { &["", "a"] } else { &[""] };
        }
        for kind in [CANCEL, PURGE] {
            self.weights[kind] = self.weights[kind].max(if self.is_large { 6 } else { 0 });
        }
        self
    }

    pub(super) fn step(&self, dice: &mut Dice) -> Step {
        let back_ms = if self.is_troubled && dice.one_in(10) { dice.below(200_000) } else { 0 };
        match dice.below(20) {
            0..=2 => Step::Wake { early_ms: dice.below(2) },
            3 => Step::Restart { after_ms: self.pause_ms(dice), back_ms },
            _ => Step::Batch {
                after_ms: self.pause_ms(dice),
                back_ms,
                asks: self.asks(dice),
                fate: self.fate(dice),
            },
        }
    }

    fn fate(&self, dice: &mut Dice) -> Fate {
        match dice.below(if self.is_troubled { 16 } else { 1 }) {
            14 => Fate::Unanswered,
            15 => Fate::Lost,
            _ => Fate::Answered,
        }
    }

    fn pause_ms(&self, dice: &mut Dice) -> u64 {
        let longest_ms = self.longest_ms;
        let any = dice.below(longest_ms);
        dice.pick(&[0, 0, 1, any, any])
    }

    fn asks(&self, dice: &mut Dice) -> Vec<Ask> {
        (0..dice.count(0, 4)).map(|_| self.ask(dice)).collect()
    }

    fn ask(&self, dice: &mut Dice) -> Ask {
        let slot = self.slot(dice);
        match dice.weighted(&self.weights) {
            0 => Ask::Configure {
                slot,
                settings: Box::new(settings(dice, self.is_large)),
                outdated: dice.one_in(5),
            },
            1 => Ask::Pause { slot, paused: dice.one_in(2) },
            2 => Ask::Delete { slot, max: dice.pick(&[0, 1, 2, 1000]) },
            SEND => Ask::Send {
                slot,
                items: self.items(dice),
                batch: dice.pick(&[Batch::Each, Batch::Atomic]),
                request: self.request(dice),
            },
            RECEIVE => Ask::Receive { slot, receive: self.wish(dice) },
            5 => Ask::HandOver { slot, picks: picks(dice) },
            SETTLE => Ask::Settle { slot, ends: ends(dice) },
            7 => Ask::Extend { slot, picks: picks(dice), ack_ms: ack_ms(dice) },
            8 => self.commit(dice),
            CANCEL => Ask::Cancel { slot, picks: picks(dice) },
            PURGE => Ask::Purge(sieve(dice, slot)),
            TASK => Ask::Task(chore(dice, slot)),
            _ => Ask::Redrive(sieve(dice, slot)),
        }
    }

    fn slot(&self, dice: &mut Dice) -> Slot {
        usize::try_from(dice.below(self.slots)).expect("there are few")
    }

    fn commit(&self, dice: &mut Dice) -> Ask {
        let settle = (0..dice.count(0, 2)).map(|_| (self.slot(dice), ends(dice))).collect();
        let send = (0..dice.count(0, 2)).map(|_| (self.slot(dice), self.items(dice))).collect();
        Ask::Commit { settle, send, request: self.request(dice) }
    }

    fn request(&self, dice: &mut Dice) -> u64 {
        dice.below(self.requests).saturating_sub(2)
    }

    fn items(&self, dice: &mut Dice) -> Vec<Item> {
        (0..dice.count(1, 4)).map(|_| self.item(dice)).collect()
    }

    fn item(&self, dice: &mut Dice) -> Item {
        let small = dice.count(0, 24);
        Item {
            bytes: if self.is_large {
                dice.pick(&[small, small, small, 70_000, 140_000, 200_000])
            } else {
                small
            },
            available: if self.is_timed { available(dice) } else { Available::Now },
            ttl_ms: (self.is_timed && dice.one_in(4)).then(|| dice.below(40_000)),
            max_attempts: dice.one_in(4).then(|| u32::try_from(dice.below(4)).expect("it is small")),
            priority: Priority::new(dice.pick(self.priorities)).expect("these are below ten"),
            dedup_id: dice.pick(self.dedup_ids),
            ordering_key: dice.pick(self.ordering_keys),
            fairness_key: dice.pick(self.fairness_keys),
        }
    }

    fn wish(&self, dice: &mut Dice) -> Wish {
        Wish {
            max_messages: u32::try_from(dice.below(if self.is_large { 3 } else { 6 })).expect("it is small"),
            max_bytes: dice.pick(&[0, 1, 30, 1000, 100_000, 1_000_000]),
            oversized: dice.pick(&[Oversized::Comes, Oversized::Comes, Oversized::Waits]),
            ack_ms: ack_ms(dice),
            handover: dice.pick(&[Handover::AtOnce, Handover::Reported]),
            request: self.request(dice),
        }
    }
}

fn sieve(dice: &mut Dice, slot: Slot) -> Sieve {
    let some = |dice: &mut Dice| dice.one_in(4);
    Sieve {
        slot,
        states: dice.pick(&[
            vec![],
            vec![],
            vec![State::Dead],
            vec![State::InFlight],
            vec![State::Ready, State::Delayed],
        ]),
        ordering_key: if some(dice) { dice.pick(&["a", "b", "c"]) } else { "" },
        fairness_key: if some(dice) { dice.pick(&["f", "h"]) } else { "" },
        reason: if some(dice) { dice.pick(&["bad", "EXPIRED", "time"]) } else { "" },
        is_odd: some(dice),
        min_attempts: u32::from(some(dice)),
        after: some(dice).then(|| dice.roll()),
        stored: some(dice).then(|| (dice.roll(), dice.one_in(2))),
        ids: if some(dice) { picks(dice) } else { Vec::new() },
        max: dice.pick(&[0, 1, 2, 1000, 1000]),
        mode: dice.pick(&[Mode::DryRun, Mode::Apply, Mode::Apply, Mode::Apply]),
    }
}

fn chore(dice: &mut Dice, slot: Slot) -> Chore {
    let states = [vec![State::Ready], vec![State::Dead], vec![State::Ready, State::Delayed, State::Dead]];
    Chore {
        slot,
        number: dice.below(3),
        work: if dice.one_in(2) { Work::Redrive } else { Work::Purge(dice.pick(&states)) },
        stored_before: dice.one_in(4).then(|| dice.roll()),
        max: dice.pick(&[0, 0, 1, 3]),
        rate: dice.pick(&[0, 1, 1, 2]),
        has_begun: !dice.one_in(3),
        cancel: dice.one_in(12),
    }
}

fn available(dice: &mut Dice) -> Available {
    match dice.below(12) {
        0..=1 => Available::After(dice.below(30_000)),
        2 => Available::At(ackwell_engine::Timestamp(dice.below(1_000_000))),
        3 if dice.one_in(10) => Available::After(u64::MAX),
        _ => Available::Now,
    }
}

fn picks(dice: &mut Dice) -> Vec<Pick> {
    (0..dice.count(1, 4)).map(|_| dice.roll()).collect()
}

fn ends(dice: &mut Dice) -> Vec<(Pick, Outcome)> {
    (0..dice.count(1, 4)).map(|_| (dice.roll(), outcome(dice))).collect()
}

fn outcome(dice: &mut Dice) -> Outcome {
    let reason = dice.pick(&["", "bad", "bad luck"]).to_owned();
    match dice.below(12) {
        0..=3 => Outcome::Ack,
        4..=6 => Outcome::Nack { delay_ms: dice.one_in(2).then(|| dice.pick(&[0, 1, 9000])), reason },
        7..=8 => Outcome::Release,
        9 => Outcome::Reject { reason },
        _ => Outcome::Lost { reason },
    }
}

fn ack_ms(dice: &mut Dice) -> Option<u64> {
    dice.one_in(3).then(|| dice.pick(&[1000, 20_000, 600_000]))
}

/// Small limits, so that they are met.
fn settings(dice: &mut Dice, large: bool) -> Settings {
    let policy = dice.pick(&[BackoffPolicy::Constant, BackoffPolicy::Linear, BackoffPolicy::Exponential]);
    Settings {
        ack_timeout_ms: dice.pick(&[1000, 5000, 30_000]),
        max_processing_ms: dice.pick(&[0, 20_000, 60_000]),
        max_attempts: dice.pick(&[1, 2, 3, 40]),
        backoff: Backoff { policy, min_ms: dice.pick(&[0, 1, 1000]), max_ms: 5000 },
        max_messages: dice.pick(&[0, 0, 3, 20]),
        max_bytes: if large { 0 } else { dice.pick(&[0, 60]) },
        max_message_bytes: if large { 150_000 } else { 16 + dice.below(16) },
        max_in_flight: dice.pick(&[1, 3, 100]),
        dead_ms: dice.pick(&[0, 1, 50_000]),
        dedup_window_ms: dice.pick(&[0, 20_000, 400_000]),
        expired: dice.pick(&[Expired::DeadLetter, Expired::Drop]),
        priority_step_ms: dice.pick(&[0, 1000, 600_000]),
    }
}
