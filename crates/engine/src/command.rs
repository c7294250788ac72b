//! What can be asked of the engine, and what it answers.

use bytes::Bytes;

use crate::message::{Epoch, Message, MessageId, Payload, QueueId, State};
use crate::settings::Settings;
use crate::time::Timestamp;

/// A change, or a question that changes who holds what.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes the queue, or changes its settings.
    Configure(Configure),
    /// Stores messages.
    Send(Send),
    /// Hands messages out.
    Receive(Receive),
    /// Ends deliveries.
    Settle(Settle),
    /// Prolongs deliveries.
    Extend(Extend),
    /// Puts Dead messages back.
    Redrive(Redrive),
}

/// Answers a [`Command`], variant by variant.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The queue, and the generation of the settings it runs now.
    Configured(QueueId, u64),
    /// One per message, in order.
    Sent(Vec<Result<Sent, Refusal>>),
    /// At most what was asked for.
    Received(Vec<Delivery>),
    /// One per settlement, in order.
    Settled(Vec<Result<Settled, Refusal>>),
    /// The new deadline per receipt, in order.
    Extended(Vec<Result<Timestamp, Refusal>>),
    /// What was found and done.
    Redriven(Redriven),
    /// The command as a whole was refused.
    Refused(Refusal),
}

/// What [`Engine::apply`](crate::Engine::apply) answers, once it is on disk.
#[derive(Debug, Default)]
pub struct Applied {
    /// One per command, in order.
    pub replies: Vec<Reply>,
    /// Receipts that ran out of time in this batch.
    pub expired: Vec<Bytes>,
}

/// Makes the queue, or changes its settings.
#[derive(Clone, Debug)]
pub struct Configure {
    /// `namespace/name`.
    pub name: String,
    /// An older generation than the stored one changes nothing.
    pub generation: u64,
    /// The rules from now on.
    pub settings: Settings,
}

/// Stores messages.
#[derive(Clone, Debug)]
pub struct Send {
    /// Where to.
    pub queue: QueueId,
    /// What.
    pub messages: Vec<NewMessage>,
    /// What one refused message means for the others.
    pub batch: Batch,
    /// Makes a repetition safe; empty: none.
    pub request_id: String,
}

/// What one refused message means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Nothing.
    Each,
    /// None is stored.
    Atomic,
}

/// A message to store.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// What the sender gave.
    pub payload: Payload,
    /// When it becomes Ready; now or earlier: at once.
    pub available: Available,
    /// Expires this long after being stored.
    pub ttl_ms: Option<u64>,
    /// Lowers the queue's limit.
    pub max_attempts: Option<u32>,
}

/// When a message becomes Ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Available {
    /// At once.
    #[default]
    Now,
    /// This long after being stored.
    After(u64),
    /// At this time.
    At(Timestamp),
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id; for a duplicate the original's.
    pub id: MessageId,
    /// The dedup id was known: nothing was stored.
    pub duplicate: bool,
}

/// Hands messages out.
#[derive(Clone, Debug)]
pub struct Receive {
    /// Where from.
    pub queue: QueueId,
    /// At most so many.
    pub max_messages: u32,
    /// At most so many bytes of bodies.
    pub max_bytes: u64,
    /// What becomes of a first message with more.
    pub oversized: Oversized,
    /// `None`: the queue's.
    pub ack_timeout_ms: Option<u64>,
    /// Named in histories.
    pub consumer: String,
    /// Makes a repetition safe; empty: none.
    pub request_id: String,
}

/// What becomes of a message that is larger than all that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversized {
    /// It comes, alone.
    Comes,
    /// It waits, for another or until there is more room.
    Waits,
}

/// A message in a consumer's hands.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Proof of holding.
    pub receipt: Bytes,
    /// What.
    pub message: Message,
    /// Until when.
    pub deadline: Timestamp,
    /// The fencing token.
    pub epoch: Epoch,
}

/// Ends deliveries.
#[derive(Clone, Debug)]
pub struct Settle {
    /// Whose.
    pub queue: QueueId,
    /// Each with its receipt.
    pub settlements: Vec<(Bytes, Outcome)>,
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: gone.
    Ack,
    /// Failed: Delayed by `delay_ms` or the backoff, or Dead.
    Nack {
        /// `None`: the queue's backoff.
        delay_ms: Option<u64>,
        /// What the application said.
        reason: String,
    },
    /// Not processed: back to its place.
    Release,
    /// Dead at once.
    Reject {
        /// What the application said.
        reason: String,
    },
    /// The consumer is gone: counted, back to its place at once.
    Lost {
        /// How that was noticed.
        reason: String,
    },
}

/// Where a settled message is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// `None`: gone.
    pub state: Option<State>,
    /// Where it is Delayed: until when.
    pub delayed_until: Option<Timestamp>,
}

/// Prolongs deliveries.
#[derive(Clone, Debug)]
pub struct Extend {
    /// Whose.
    pub queue: QueueId,
    /// Which.
    pub receipts: Vec<Bytes>,
    /// From now; `None`: as long as it was held for.
    pub ack_timeout_ms: Option<u64>,
}

/// Which messages are meant. Every field given must match.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty: any.
    pub states: Vec<State>,
    /// Each equal.
    pub headers: Vec<(String, String)>,
    /// Within the last attempt's reason, or the dead reason; empty: any.
    pub reason_contains: String,
    /// At least.
    pub min_attempts: u32,
    /// Later than.
    pub stored_after: Option<Timestamp>,
    /// Earlier than.
    pub stored_before: Option<Timestamp>,
    /// Empty: any.
    pub ids: Vec<MessageId>,
}

/// Puts Dead messages back, a bounded stretch at a time.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// Where.
    pub queue: QueueId,
    /// Which.
    pub filter: Filter,
    /// Go on behind this one.
    pub after: Option<Cursor>,
    /// At most so many.
    pub max_messages: u64,
    /// Whether to count only.
    pub mode: RedriveMode,
}

/// Whether to count only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveMode {
    /// Change nothing.
    DryRun,
    /// Do it.
    Apply,
}

/// Where a scan stopped.
pub type Cursor = u64;

/// A stretch of a redrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Messages that match.
    pub matched: u64,
    /// Of these, put back.
    pub redriven: u64,
    /// There is more behind this.
    pub next: Option<Cursor>,
}

/// Why a command, or an item of it, changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such queue.
    #[error("this store has no such queue")]
    UnknownQueue,
    /// The body is too long.
    #[error(
        "the body has {bytes} bytes, more than the {max_bytes} that the queue allows (limits.maxMessageBytes)"
    )]
    MessageTooLarge {
        /// Length of the body.
        bytes: u64,
        /// The queue's limit.
        max_bytes: u64,
    },
    /// The queue holds as much as it may.
    #[error("the queue is full: {what}; consume, or raise the limit in the Queue's spec")]
    QueueFull {
        /// Which limit.
        what: &'static str,
    },
    /// The atomic batch had another refused message.
    #[error("nothing was stored: the batch is atomic and another message of it was refused")]
    BatchRefused,
    /// Not a receipt of this queue.
    #[error("the receipt was not made by this queue")]
    InvalidReceipt,
    /// No longer the holder.
    #[error("the receipt is no longer valid: its time ran out, or the message was handed out again")]
    ReceiptExpired,
    /// Settled before in another way.
    #[error("the delivery was settled before, with another outcome")]
    SettledOtherwise,
    /// The request id was used for something else.
    #[error("the request_id was used for another kind of call within the last two minutes")]
    RequestIdReused,
}
