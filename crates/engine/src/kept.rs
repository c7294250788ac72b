//! Messages as they are kept outside of any store, and what a store says of itself when some of its messages are.
//!
//! They come back as [`Traveller`]s: to a store they are messages of another shard.

use crate::command::NewMessage;
use crate::message::{Attempt, DeadReason, Payload, Priority, Seq, Stage};
use crate::moving::{Placement, RememberedId, Source, Traveller};
use crate::time::Timestamp;

/// What a shard has at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// While it is another one, messages may come and go.
    pub placement: Placement,
    /// The places of its messages. What is stored later comes behind the end.
    pub source: Source,
    /// How many there are.
    pub messages: u64,
}

/// A stretch of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// By place. Who held one is not said: to whom it comes back, it is ready.
    pub messages: Vec<Kept>,
    /// Where the next stretch begins.
    pub next: Option<Seq>,
}

/// Dedup ids of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptIds {
    /// By name.
    pub ids: Vec<RememberedId>,
    /// Behind this one there are more.
    pub next: Option<String>,
}

/// A message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place where it was stored.
    pub place: Seq,
    /// When that was.
    pub stored_at: Timestamp,
    /// Where it stands.
    pub standing: Standing,
    /// Failed ones.
    pub attempts: u32,
    /// How often it was handed out.
    pub deliveries: u32,
    /// The newest first.
    pub history: Vec<Attempt>,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Lowers the queue's limit.
    pub max_attempts: Option<u32>,
    /// How urgent it is.
    pub priority: Priority,
    /// What the sender gave.
    pub payload: Payload,
}

/// Where a message stands that nobody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for a consumer.
    Ready,
    /// It waits for a time.
    Delayed {
        /// That time.
        until: Timestamp,
    },
    /// It was given up on.
    Dead {
        /// Why.
        reason: DeadReason,
        /// When.
        since: Timestamp,
        /// End of its retention.
        until: Timestamp,
    },
}

impl From<Traveller> for Kept {
    fn from(traveller: Traveller) -> Self {
        let Traveller { place, stored_at, stage, attempts, deliveries, history, expires_at, message } =
            traveller;
        let NewMessage { payload, max_attempts, priority, .. } = message;
        Self {
            place,
            stored_at,
            standing: Standing::of(&stage),
            attempts,
            deliveries,
            history,
            expires_at,
            max_attempts,
            priority,
            payload,
        }
    }
}

impl From<Kept> for Traveller {
    fn from(kept: Kept) -> Self {
        let Kept { place, stored_at, standing, attempts, deliveries, history, expires_at, .. } = kept;
        let Kept { max_attempts, priority, payload, .. } = kept;
        Self {
            place,
            stored_at,
            stage: standing.stage(),
            attempts,
            deliveries,
            history,
            expires_at,
            message: NewMessage { payload, max_attempts, priority, ..NewMessage::default() },
        }
    }
}

impl Standing {
    /// Whoever holds it is not there any more when it comes back.
    fn of(stage: &Stage) -> Self {
        match *stage {
            Stage::Ready | Stage::InFlight(_) => Self::Ready,
            Stage::Delayed { until } => Self::Delayed { until },
            Stage::Dead { reason, since, until } => Self::Dead { reason, since, until },
        }
    }

    fn stage(self) -> Stage {
        match self {
            Self::Ready => Stage::Ready,
            Self::Delayed { until } => Stage::Delayed { until },
            Self::Dead { reason, since, until } => Stage::Dead { reason, since, until },
        }
    }
}
