//! What is stored of a message, and the states it can be in.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use siphasher::sip128::SipHasher24;
use uuid::Uuid;

use crate::slots::{SLOTS, Slot};
use crate::time::Timestamp;

/// Newest attempts kept of each message.
pub const MAX_HISTORY: usize = 16;
/// Longest kept text of why an attempt failed.
pub const MAX_REASON_BYTES: usize = 1024;

/// Place of a message in its shard: the order in which messages were stored. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Names one delivery. Grows over all deliveries of a shard, across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A queue of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

impl QueueId {
    /// What no queue is called.
    pub(crate) const NONE: Self = Self(0);
}

/// A `UUIDv7`: the time stored, 24 bits that differ between shards, 50 bits of [`Seq`].
///
/// Sorts by time, and leads to the message without an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

/// An `ordering_key` or a `fairness_key` as decisions see it: a keyed hash of its text, so that rows have one size. Two keys
/// that collide are treated as one, which keeps every promise: their order holds, their share is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) u64);

impl KeyId {
    const SLOT_BITS: u32 = SLOTS.ilog2();

    /// Of a fairness key; `None` for the empty one. Hashed with the secret of the store, so that nobody can make the keys of
    /// others collide with theirs. Turns go by the order of these hashes.
    pub fn of(text: &str, receipt_key: &[u8; 16]) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut hasher = SipHasher24::new_with_key(receipt_key);
        hasher.write(text.as_bytes());
        Some(Self(hasher.finish()))
    }

    /// Of an ordering key, which moves between shards with all of its slot: the slot, then as much of the hash as there is
    /// room for.
    pub(crate) fn in_slot(text: &str, receipt_key: &[u8; 16]) -> Option<Self> {
        let Self(hash) = Self::of(text, receipt_key)?;
        Some(Self(Self::first_of(Slot::of(text)).0 | hash >> Self::SLOT_BITS))
    }

    /// Of an ordering key.
    pub(crate) fn slot(self) -> Slot {
        let number = u16::try_from(self.0 >> (u64::BITS - Self::SLOT_BITS)).expect("12 bits fit");
        Slot::new(number).expect("12 bits are a slot")
    }

    /// The lowest that an ordering key of this slot can have.
    pub(crate) fn first_of(slot: Slot) -> Self {
        Self(u64::from(slot.number()) << (u64::BITS - Self::SLOT_BITS))
    }

    /// The highest.
    pub(crate) fn last_of(slot: Slot) -> Self {
        Self(Self::first_of(slot).0 | u64::MAX >> Self::SLOT_BITS)
    }
}

/// How urgent a message is: 0 to [`Priority::MAX`], the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: u8 = 9;

    /// `None` above [`Priority::MAX`].
    pub fn new(level: u32) -> Option<Self> {
        u8::try_from(level).ok().filter(|level| *level <= Self::MAX).map(Self)
    }

    /// 0 to [`Priority::MAX`].
    pub fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    /// In the middle, so that there is room on both sides.
    fn default() -> Self {
        Self(4)
    }
}

const SEQ_BITS: u32 = 50;
const SALT_LOW_BITS: u32 = 12;

impl MessageId {
    /// Of the message that a store with this salt put there at that time.
    pub fn new(stored_at: Timestamp, salt: u32, seq: Seq) -> Self {
        let time = u128::from(stored_at.0 & 0xffff_ffff_ffff) << 80;
        let salt_high = u128::from((salt >> SALT_LOW_BITS) & 0xfff) << 64;
        let salt_low = u128::from(salt & 0xfff) << SEQ_BITS;
        let seq = u128::from(seq.0 & ((1 << SEQ_BITS) - 1));
        Self(time | 0x7 << 76 | salt_high | 0b10 << 62 | salt_low | seq)
    }

    pub(crate) fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    pub(crate) fn as_u128(self) -> u128 {
        self.0
    }

    /// The salt of the store that made it, as far as the id has it.
    pub(crate) fn salt(self) -> u32 {
        let high = u32::try_from(self.0 >> 64 & 0xfff).expect("12 bits fit");
        let low = u32::try_from(self.0 >> SEQ_BITS & 0xfff).expect("12 bits fit");
        high << SALT_LOW_BITS | low
    }

    /// The place it leads to, in the store that made it.
    pub fn seq(self) -> Seq {
        Seq(u64::try_from(self.0 & ((1 << SEQ_BITS) - 1)).expect("50 bits fit"))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

/// The text is not a message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message id {0:?} is not a UUID")]
pub struct InvalidMessageId(String);

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidMessageId(text.chars().take(64).collect()))?;
        Ok(Self(id.as_u128()))
    }
}

/// Where a stored message stands; `docs/delivery.md` has the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Waiting for a consumer.
    Ready,
    /// Waiting for a time.
    Delayed,
    /// Held under one valid receipt.
    InFlight,
    /// Given up on, kept whole.
    Dead,
}

/// [`State`] with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Ready,
    Delayed {
        until: Timestamp,
    },
    InFlight(Hold),
    /// `until`: end of the retention.
    Dead {
        reason: DeadReason,
        since: Timestamp,
        until: Timestamp,
    },
}

/// Who holds a message, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) epoch: Epoch,
    pub(crate) started: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) ack_timeout_ms: u64,
    pub(crate) consumer: Arc<str>,
    /// Whether the application has it: what it never saw cannot have failed.
    pub(crate) is_handed: bool,
}

/// Why a message is Dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// `attempts` reached the limit.
    MaxAttempts,
    /// A consumer rejected it.
    Rejected,
    /// Its ttl passed and the queue keeps expired messages.
    Expired,
    /// What is stored fails its checksum.
    Corrupt,
}

impl DeadReason {
    /// The word shown to people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxAttempts => "MAX_ATTEMPTS",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The consumer said so.
    Nack,
    /// Neither settled nor extended in time.
    AckTimeout,
    /// The consumer that held it is gone.
    ConsumerLost,
    /// The consumer gave up on it for good.
    Reject,
}

impl AttemptOutcome {
    /// The word shown to people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nack => "nack",
            Self::AckTimeout => "ack-timeout",
            Self::ConsumerLost => "consumer-lost",
            Self::Reject => "reject",
        }
    }
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was handed out.
    pub started: Timestamp,
    /// When it failed.
    pub ended: Timestamp,
    /// How.
    pub outcome: AttemptOutcome,
    /// What the application said.
    pub reason: String,
    /// The name the consumer gave itself.
    pub consumer: String,
}

/// Where the log has a payload, and its checksum. Nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl Location {
    /// Of no payload.
    pub(crate) const NONE: Self = Self { segment: 0, offset: 0, len: 0, crc: 0 };
}

/// All of a message but its [`Payload`]: what decisions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) queue: QueueId,
    pub(crate) stored_at: Timestamp,
    pub(crate) stage: Stage,
    pub(crate) attempts: u32,
    pub(crate) deliveries: u32,
    pub(crate) history: Vec<Attempt>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) body_bytes: u64,
    pub(crate) priority: Priority,
    /// `None`: in no order but the queue's.
    pub(crate) ordering: Option<KeyId>,
    /// `None`: shares the turn of all without a key.
    pub(crate) fairness: Option<KeyId>,
    pub(crate) location: Location,
}

impl Row {
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    pub(crate) fn state(&self) -> State {
        match self.stage {
            Stage::Ready => State::Ready,
            Stage::Delayed { .. } => State::Delayed,
            Stage::InFlight(_) => State::InFlight,
            Stage::Dead { .. } => State::Dead,
        }
    }

    pub(crate) fn hold(&self) -> Option<&Hold> {
        match &self.stage {
            Stage::InFlight(hold) => Some(hold),
            _ => None,
        }
    }

    /// A message that cannot be read would only die again.
    pub(crate) fn is_redrivable(&self) -> bool {
        !matches!(self.stage, Stage::Dead { reason: DeadReason::Corrupt, .. })
    }

    /// Counts a failed attempt, newest first.
    pub(crate) fn record(&mut self, attempt: Attempt) {
        self.attempts = self.attempts.saturating_add(1);
        self.history.truncate(MAX_HISTORY - 1);
        self.history.insert(0, attempt);
    }
}

/// What the sender gave, kept untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The message itself.
    pub body: Bytes,
    /// Sorted by key.
    pub headers: Vec<(String, String)>,
    /// As the sender said.
    pub content_type: String,
    /// The sender's id against duplicates; empty: none.
    pub dedup_id: String,
    /// Messages with the same one come in stored order, one at a time; empty: none.
    pub ordering_key: String,
    /// The tenant whose share of the queue it takes; empty: none.
    pub fairness_key: String,
}

/// A message as it is shown: by a delivery or a peek.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Failed attempts.
    pub attempts: u32,
    /// Times handed out.
    pub deliveries: u32,
    /// The newest failed attempts, newest first.
    pub history: Vec<Attempt>,
    /// Why it is Dead.
    pub dead_reason: Option<DeadReason>,
    /// Until when it is Delayed.
    pub delayed_until: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// The sender's own limit of attempts.
    pub max_attempts: Option<u32>,
    /// How urgent it is.
    pub priority: Priority,
    /// What the sender gave.
    pub payload: Payload,
}

impl Message {
    pub(crate) fn new(id: MessageId, row: &Row, payload: Payload) -> Self {
        let dead_reason = match row.stage {
            Stage::Dead { reason, .. } => Some(reason),
            _ => None,
        };
        let delayed_until = match row.stage {
            Stage::Delayed { until } => Some(until),
            _ => None,
        };
        Self {
            id,
            stored_at: row.stored_at,
            state: row.state(),
            attempts: row.attempts,
            deliveries: row.deliveries,
            history: row.history.clone(),
            dead_reason,
            delayed_until,
            expires_at: row.expires_at,
            max_attempts: row.max_attempts,
            priority: row.priority,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_a_uuid_v7_that_leads_back_to_its_place() {
        let id = MessageId::new(Timestamp(1_764_000_000_123), 0x00ab_cdef, Seq(987_654_321));
        let uuid = Uuid::parse_str(&id.to_string()).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!((id.seq(), id.salt()), (Seq(987_654_321), 0x00ab_cdef));
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
    }

    #[test]
    fn ids_sort_as_stored() {
        let at = |ms, seq| MessageId::new(Timestamp(ms), 0x00ff_ffff, Seq(seq)).to_string();
        assert!(at(5, 1) < at(5, 2) && at(5, 900) < at(6, 901));
    }
}
