//! Why a call or an item of a batch was refused: stable words for programs, sentences for people.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1::ItemError;

/// `google.rpc.ErrorInfo.domain` of every error.
const DOMAIN: &str = "ackwell.dev";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $code:ident;)*) => {
        /// A stable reason, with one gRPC code each. `docs/reference/errors.md` lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The gRPC code of a call that fails for this reason.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or out of its range.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// The body is longer than the queue's `maxMessageBytes`.
    MessageTooLarge = "MESSAGE_TOO_LARGE", InvalidArgument;
    /// More items than a batch may have.
    BatchTooLarge = "BATCH_TOO_LARGE", InvalidArgument;
    /// The receipt was not made by this queue.
    InvalidReceipt = "INVALID_RECEIPT", InvalidArgument;
    /// An atomic batch was refused because of another item.
    BatchRefused = "BATCH_REFUSED", FailedPrecondition;
    /// One step was asked for over several shards; it is one commit of one shard.
    CrossShard = "CROSS_SHARD", FailedPrecondition;
    /// The call does not prove who calls.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// Who calls may not do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied;
    /// No such queue here.
    QueueNotFound = "QUEUE_NOT_FOUND", NotFound;
    /// The queue has no such message: the id is wrong, or the message is gone.
    MessageNotFound = "MESSAGE_NOT_FOUND", NotFound;
    /// A consumer holds the message.
    MessageInFlight = "MESSAGE_IN_FLIGHT", FailedPrecondition;
    /// The receipt is no longer valid: its time ran out, or the message was handed out again.
    ReceiptExpired = "RECEIPT_EXPIRED", FailedPrecondition;
    /// The delivery was settled before, with another outcome.
    SettledOtherwise = "SETTLED_OTHERWISE", FailedPrecondition;
    /// The delivery was settled before; a Commit ends deliveries itself or not at all.
    AlreadySettled = "ALREADY_SETTLED", FailedPrecondition;
    /// The queue holds as many messages, or bytes, as its limits allow.
    QueueFull = "QUEUE_FULL", ResourceExhausted;
    /// More calls are waiting than the broker accepts at once.
    Busy = "BUSY", ResourceExhausted;
    /// The volume is full; acks still work.
    DiskFull = "DISK_FULL", ResourceExhausted;
    /// The store failed and is being reopened; nothing was confirmed that is not on disk.
    StorageUnavailable = "STORAGE_UNAVAILABLE", Unavailable;
    /// The token by which a stream was opened is no longer good.
    TokenExpired = "TOKEN_EXPIRED", Unavailable;
    /// Another shard has the message, or will have it in a moment: the queue's shards are changing.
    ShardMoved = "SHARD_MOVED", Unavailable;
    /// The process is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// No broker of the queue answered in time.
    BrokerUnavailable = "BROKER_UNAVAILABLE", Unavailable;
    /// What is stored fails its checksum; it is not served.
    Corrupt = "CORRUPT", DataLoss;
}

impl Reason {
    /// The reason for a word on the wire; `None` for one that this version does not know.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }
}

/// A refusal: of a whole call (as [`Status`]) or of one item (as [`ItemError`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{}]", reason.as_str())]
pub struct Failure {
    /// For programs.
    pub reason: Reason,
    /// For people: what was wrong and what to do.
    pub message: String,
    /// Present where trying again later can help.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A refusal that does not change by waiting.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }

    /// A malformed field, the most common refusal.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidArgument, message)
    }

    /// The same, worth trying again after `delay`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Reads what [`Status::from`] wrote; `None` when the status is not one of ours.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        Some(Self { reason: Reason::parse(&info.reason)?, message: status.message().to_owned(), retry_after })
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(failure.reason.as_str(), DOMAIN, std::collections::HashMap::new());
        if let Some(delay) = failure.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(failure.reason.code(), failure.message, details)
    }
}

impl From<Failure> for ItemError {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.as_str().to_owned(),
            message: failure.message,
            retry_after: failure.retry_after.map(|delay| prost_types::Duration {
                seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(delay.subsec_nanos()).unwrap_or(0),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients act on reason and retry hint: both must survive the wire form.
    #[test]
    fn failure_through_status_is_unchanged() {
        for &reason in Reason::ALL {
            let failure = Failure::new(reason, "what to do").retry_after(Duration::from_millis(1500));
            let status = Status::from(failure.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Failure::from_status(&status), Some(failure));
        }
    }

    #[test]
    fn foreign_status_is_not_a_failure() {
        assert_eq!(Failure::from_status(&Status::unavailable("connection refused")), None);
    }
}
