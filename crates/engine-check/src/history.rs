//! Random histories: what a shard could be asked, step by step, as data that can be cut down.

mod taste;

use ackwell_engine::Settings;
use ackwell_engine::command::{Available, Batch, Handover, Mode, Outcome, Oversized};
use ackwell_engine::message::{Priority, State};
use ackwell_engine::task::Work;

use crate::dice::Dice;
use taste::Taste;

/// Queues that a history speaks of; each may be missing, or be made again after it was deleted.
pub(crate) const SLOTS: usize = 3;

/// One thing that happens to a shard.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Time passes, or the clock is set back, and a batch is applied.
    Batch {
        /// The clock goes on by this,
        after_ms: u64,
        /// and back by this.
        back_ms: u64,
        /// What is asked.
        asks: Vec<Ask>,
        /// What becomes of it.
        fate: Fate,
    },
    /// An empty batch exactly at the next wakeup, or a little before it.
    Wake {
        /// How much before.
        early_ms: u64,
    },
    /// The process ends and is started again.
    Restart {
        /// The clock goes on by this,
        after_ms: u64,
        /// and back by this.
        back_ms: u64,
    },
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is stored and answered.
    Answered,
    /// It is stored, then the process ends: nobody hears an answer.
    Unanswered,
    /// The process ends before it is stored.
    Lost,
}

/// A receipt or an id, by how new it is.
pub(crate) type Pick = u64;
/// One of [`SLOTS`].
pub(crate) type Slot = usize;

/// A command before it has ids and receipts.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// With the next generation, or an old one.
    Configure { slot: Slot, settings: Box<Settings>, outdated: bool },
    /// Or resume.
    Pause { slot: Slot, paused: bool },
    /// A stretch of it.
    Delete { slot: Slot, max: u64 },
    /// New messages.
    Send { slot: Slot, items: Vec<Item>, batch: Batch, request: u64 },
    /// Some messages.
    Receive { slot: Slot, receive: Wish },
    /// Of some receipts.
    HandOver { slot: Slot, picks: Vec<Pick> },
    /// Some receipts.
    Settle { slot: Slot, ends: Vec<(Pick, Outcome)> },
    /// Some receipts.
    Extend { slot: Slot, picks: Vec<Pick>, ack_ms: Option<u64> },
    /// Some receipts and new messages.
    Commit { settle: Vec<(Slot, Vec<(Pick, Outcome)>)>, send: Vec<(Slot, Vec<Item>)>, request: u64 },
    /// Some ids.
    Cancel { slot: Slot, picks: Vec<Pick> },
    /// The dead of some.
    Redrive(Sieve),
    /// Some.
    Purge(Sieve),
    /// A part of a task, or its end.
    Task(Chore),
}

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Of the body.
    pub(crate) bytes: usize,
    /// When it may be handed out; [`Available::At`] counts from the start of the history.
    pub(crate) available: Available,
    /// For how long.
    pub(crate) ttl_ms: Option<u64>,
    /// Its own limit.
    pub(crate) max_attempts: Option<u32>,
    /// 0 to 9.
    pub(crate) priority: Priority,
    /// Empty: none.
    pub(crate) dedup_id: &'static str,
    /// Empty: none.
    pub(crate) ordering_key: &'static str,
    /// Empty: none.
    pub(crate) fairness_key: &'static str,
}

/// What a Receive asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Messages.
    pub(crate) max_messages: u32,
    /// Bytes.
    pub(crate) max_bytes: u64,
    /// If the first has more.
    pub(crate) oversized: Oversized,
    /// Or the queue's.
    pub(crate) ack_ms: Option<u64>,
    /// When the application has it.
    pub(crate) handover: Handover,
    /// 0: none.
    pub(crate) request: u64,
}

/// What a Redrive or a Purge asks for.
#[derive(Clone, Debug)]
pub(crate) struct Sieve {
    /// Where.
    pub(crate) slot: Slot,
    /// In one of these.
    pub(crate) states: Vec<State>,
    /// With this key.
    pub(crate) ordering_key: &'static str,
    /// With this key.
    pub(crate) fairness_key: &'static str,
    /// With this text in its last reason.
    pub(crate) reason: &'static str,
    /// Whether the header that every other message has must be there.
    pub(crate) is_odd: bool,
    /// At least.
    pub(crate) min_attempts: u32,
    /// Behind this one.
    pub(crate) after: Option<Pick>,
    /// Stored after, or before, that one.
    pub(crate) stored: Option<(Pick, bool)>,
    /// One of these.
    pub(crate) ids: Vec<Pick>,
    /// At most.
    pub(crate) max: u64,
    /// Or count only.
    pub(crate) mode: Mode,
}

/// What a task is to do. Several may have one name: the first that is heard of is it.
#[derive(Clone, Debug)]
pub(crate) struct Chore {
    /// Where.
    pub(crate) slot: Slot,
    /// Which, by age.
    pub(crate) number: u64,
    /// What.
    pub(crate) work: Work,
    /// With those stored before that one.
    pub(crate) stored_before: Option<Pick>,
    /// At most; 0: all.
    pub(crate) max: u64,
    /// At most in a second; 0: all.
    pub(crate) rate: u64,
    /// Who asks heard that it began.
    pub(crate) has_begun: bool,
    /// It ends.
    pub(crate) cancel: bool,
}

/// The history of a seed.
pub(crate) fn history(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let taste = Taste::of(&mut dice);
    let steps = dice.count(4, 60);
    (0..steps).map(|_| taste.step(&mut dice)).collect()
}
