//! What can be asked of the engine, and what it answers.

use bytes::Bytes;

use crate::message::{DeadReason, Epoch, Message, MessageId, Payload, Priority, QueueId, State};
use crate::moving::{Arrive, Arrived, Depart, Departing, Forget, Import, Place};
use crate::settings::Settings;
use crate::task::{Progress, Task};
use crate::time::Timestamp;

/// A change, or a question that changes who holds what.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes the queue, or changes its settings.
    Configure(Configure),
    /// Stops handing messages out, or goes on.
    Pause(Pause),
    /// Removes the queue with all it holds, a bounded stretch at a time.
    Delete(Delete),
    /// Stores messages.
    Send(Send),
    /// Hands messages out.
    Receive(Receive),
    /// Reports that the application has what was received for it.
    HandOver(HandOver),
    /// Ends deliveries.
    Settle(Settle),
    /// Prolongs deliveries.
    Extend(Extend),
    /// Settles and sends, all of it or nothing.
    Commit(Commit),
    /// Removes single messages that nobody holds.
    Cancel(Cancel),
    /// Puts Dead messages back.
    Redrive(Selection),
    /// Removes messages that nobody holds.
    Purge(Selection),
    /// Tells which of the queue's shards this is.
    Place(Place),
    /// Prepares for messages of another shard.
    Arrive(Arrive),
    /// Takes messages of another shard.
    Import(Import),
    /// Chooses messages that go to another shard.
    Depart(Depart),
    /// Removes those that are there.
    Forget(Forget),
    /// Does the next part of a task.
    Task(Task),
}

/// Answers a [`Command`], variant by variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The queue, and the generation of the settings it runs now.
    Configured(QueueId, u64),
    /// Done.
    Paused,
    /// How many messages were removed, and whether the queue is gone.
    Deleted(Deleted),
    /// One per message, in order.
    Sent(Vec<Result<Sent, Refusal>>),
    /// At most what was asked for.
    Received(Vec<Delivery>),
    /// One per receipt, in order.
    HandedOver(Vec<Result<(), Refusal>>),
    /// One per settlement, in order.
    Settled(Vec<Result<Settled, Refusal>>),
    /// The new deadline per receipt, in order.
    Extended(Vec<Result<Timestamp, Refusal>>),
    /// One per item, in order.
    Committed(Committed),
    /// One per id, in order.
    Cancelled(Vec<Result<(), Refusal>>),
    /// What was found and put back.
    Redriven(Selected),
    /// What was found and removed.
    Purged(Selected),
    /// The generation of the placement from now on.
    Placed(u64),
    /// What is there of the source.
    Arrived(Arrived),
    /// The number of the last page.
    Imported(u64),
    /// The page on its way; none: nothing can go now.
    Departing(Option<Departing>),
    /// Done.
    Forgotten,
    /// How far the task is.
    Task(Progress),
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

/// Stops handing messages out, or goes on. Everything else works while a queue is paused.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Which.
    pub queue: QueueId,
    /// Or goes on.
    pub paused: bool,
}

/// Removes the queue with all it holds, in flight too. From the first stretch on it takes and gives nothing; its name is
/// free once it is gone.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// Which.
    pub queue: QueueId,
    /// At most so many messages in this stretch.
    pub max_messages: u64,
}

/// A stretch of a [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Messages of this stretch.
    pub messages: u64,
    /// The queue is gone.
    pub done: bool,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// What the sender gave.
    pub payload: Payload,
    /// When it becomes Ready; now or earlier: at once.
    pub available: Available,
    /// Expires this long after being stored.
    pub ttl_ms: Option<u64>,
    /// Lowers the queue's limit.
    pub max_attempts: Option<u32>,
    /// How urgent it is.
    pub priority: Priority,
    /// Where it stands in the Send that this one is a part of; `None`: this is the whole.
    pub position: Option<u32>,
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
    /// When the application has them.
    pub handover: Handover,
}

/// When the application has what was received for it. What it does not have yet can be lost without blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// At once: the caller is the application.
    AtOnce,
    /// When a [`HandOver`] says so.
    Reported,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Reports that the application has what was received for it.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// Whose.
    pub queue: QueueId,
    /// Which.
    pub receipts: Vec<Bytes>,
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
    /// The consumer is gone: back to its place at once, and counted if the application had it.
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

/// Settles and sends, all of it or nothing.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Each as it would be settled alone.
    pub settle: Vec<Settle>,
    /// What to store, and where.
    pub send: Vec<Outgoing>,
    /// Makes a repetition safe; empty: none.
    pub request_id: String,
}

/// Messages of a [`Commit`] for one queue.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub queue: QueueId,
    /// What.
    pub messages: Vec<NewMessage>,
}

/// What became of a [`Commit`]: everything in it, or nothing and which items stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One list per [`Commit::settle`], one item per settlement.
    pub settled: Vec<Vec<Result<Settled, Refusal>>>,
    /// One list per [`Commit::send`], one item per message.
    pub sent: Vec<Vec<Result<Sent, Refusal>>>,
}

/// Removes single messages that nobody holds.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Whose.
    pub queue: QueueId,
    /// Which.
    pub ids: Vec<MessageId>,
}

/// Which messages are meant. Every field given must match.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty: any.
    pub states: Vec<State>,
    /// Equal; empty: any.
    pub ordering_key: String,
    /// Equal; empty: any.
    pub fairness_key: String,
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

/// Messages to do something with, a bounded stretch at a time.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Where.
    pub queue: QueueId,
    /// Which.
    pub filter: Filter,
    /// Go on behind this one.
    pub after: Option<Cursor>,
    /// At most so many.
    pub max_messages: u64,
    /// Whether to count only.
    pub mode: Mode,
}

/// Whether to count only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Change nothing.
    DryRun,
    /// Do it.
    Apply,
}

/// Where a scan stopped.
pub type Cursor = u64;

/// A stretch of a [`Selection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Messages that match.
    pub matched: u64,
    /// Of these, changed.
    pub changed: u64,
    /// There may be more behind this.
    pub next: Option<Cursor>,
}

/// Where a message stands, and what keeps it from being handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where it stands.
    pub state: State,
    /// In the order in which they have to go away. None: the next Receive gets it.
    pub reasons: Vec<Blocked>,
}

/// One thing that keeps a message from being handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// A person paused the queue.
    Paused,
    /// The queue is being deleted.
    Deleting,
    /// It goes to another shard, or waits for messages with its slot that come from another one.
    Moving,
    /// Somebody has it.
    Held {
        /// The name that the consumer gave itself.
        consumer: String,
        /// Since when.
        since: Timestamp,
        /// Unless it is extended.
        until: Timestamp,
    },
    /// It waits for a time: its sender's, or its backoff.
    Delayed {
        /// Until when.
        until: Timestamp,
        /// Failed attempts; 0: its sender's.
        attempts: u32,
    },
    /// It is given up on; a redrive puts it back.
    Dead {
        /// Why.
        reason: DeadReason,
        /// When it is removed.
        until: Timestamp,
    },
    /// Another message with its ordering key comes first.
    BehindKey {
        /// The first one.
        head: MessageId,
        /// What that one waits for.
        head_state: State,
    },
    /// The queue has as many messages in flight as it may.
    InFlightLimit {
        /// Now.
        in_flight: u64,
        /// The limit.
        max: u64,
    },
    /// Others come first.
    InLine {
        /// Eligible messages before it with its fairness key, counted up to [`MAX_COUNTED`].
        ahead: u64,
        /// Fairness keys that take turns, its own among them.
        keys: u64,
    },
}

/// Messages ahead of another are counted up to here.
pub const MAX_COUNTED: u64 = 10_000;

/// Why a command, or an item of it, changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such queue.
    #[error("this store has no such queue")]
    UnknownQueue,
    /// The queue is being deleted.
    #[error("the queue is being deleted")]
    QueueDeleted,
    /// A field of the message is out of its range.
    #[error("{field} {rule}")]
    InvalidMessage {
        /// Which.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
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
    /// A Commit ends deliveries itself or not at all.
    #[error("the delivery was settled before; give a Commit a request_id and repeat it with that")]
    AlreadySettled,
    /// Another item of the Commit was refused.
    #[error("nothing was done: another part of the Commit was refused")]
    CommitRefused,
    /// No such message.
    #[error("the queue has no such message: the id is wrong, or the message is gone")]
    UnknownMessage,
    /// It is another shard's, or on its way there.
    #[error(
        "the queue's shards are changing: another shard has this, or will have it in a moment; try again"
    )]
    Moved,
    /// A consumer holds it.
    #[error("a consumer holds the message; it can be removed when that is over")]
    MessageInFlight,
    /// The request id was used for something else.
    #[error("the request_id was used for another kind of call within the last two minutes")]
    RequestIdReused,
}
