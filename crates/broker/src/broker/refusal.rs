//! The one map from what the engine refuses to what a caller is told.

use std::time::Duration;

use ackwell_engine::{Refusal, StoreError};
use ackwell_proto::{Failure, Reason};

/// A full queue drains at the pace of its consumers; asking more often only costs.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// Dedup ids move within a moment, and who does not know where its message belongs can ask.
const MOVED_RETRY: Duration = Duration::from_millis(200);
/// Making room on a volume takes a person, or consumers, a while.
const DISK_FULL_RETRY: Duration = Duration::from_secs(5);
/// A restore takes seconds at least.
const RESTORING_RETRY: Duration = Duration::from_secs(1);
/// Reopening the store usually takes less.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

pub(crate) fn failure(refusal: &Refusal) -> Failure {
    let failure = Failure::new(reason(refusal), refusal.to_string());
    match refusal {
        Refusal::QueueFull { .. } => failure.retry_after(FULL_RETRY),
        Refusal::Moved => failure.retry_after(MOVED_RETRY),
        _ => failure,
    }
}

fn reason(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::UnknownQueue | Refusal::QueueDeleted => Reason::QueueNotFound,
        Refusal::MessageTooLarge { .. } => Reason::MessageTooLarge,
        Refusal::QueueFull { .. } => Reason::QueueFull,
        Refusal::BatchRefused | Refusal::CommitRefused => Reason::BatchRefused,
        Refusal::InvalidReceipt => Reason::InvalidReceipt,
        Refusal::ReceiptExpired => Reason::ReceiptExpired,
        Refusal::SettledOtherwise => Reason::SettledOtherwise,
        Refusal::InvalidMessage { .. } | Refusal::RequestIdReused => Reason::InvalidArgument,
        Refusal::UnknownMessage => Reason::MessageNotFound,
        Refusal::MessageInFlight => Reason::MessageInFlight,
        Refusal::Moved => Reason::ShardMoved,
        Refusal::AlreadySettled => Reason::AlreadySettled,
    }
}

/// After this the store is opened anew: nothing that was not answered OK may be taken as stored.
pub(crate) fn storage_failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Corrupt { .. } => Failure::new(Reason::Corrupt, error.to_string()),
        error if error.is_disk_full() => no_room(),
        _ => storage_unavailable(),
    }
}

pub(crate) fn disk_full() -> Failure {
    Failure::new(Reason::DiskFull, "the broker's volume is nearly full; consume, or grow its volume claim")
        .retry_after(DISK_FULL_RETRY)
}

/// A write met the end of the volume. Unlike [`disk_full`], which senders are told before anything is tried, it is worth
/// repeating at once: acks need little, and find it when senders are refused.
fn no_room() -> Failure {
    Failure::new(Reason::StorageUnavailable, "the broker's volume is full; try again")
        .retry_after(STORAGE_RETRY)
}

pub(crate) fn storage_unavailable() -> Failure {
    Failure::new(Reason::StorageUnavailable, "the store failed and is being reopened; try again")
        .retry_after(STORAGE_RETRY)
}

pub(crate) fn shutting_down() -> Failure {
    Failure::new(Reason::ShuttingDown, "the broker is stopping; try again")
        .retry_after(Duration::from_millis(200))
}

pub(crate) fn busy() -> Failure {
    Failure::new(Reason::Busy, "the broker has as many calls waiting as it accepts; try again")
        .retry_after(Duration::from_millis(50))
}

/// What was there before comes first.
pub(crate) fn restoring() -> Failure {
    let message = "the queue is being restored from a backup, and opens when that is done; try again";
    Failure::new(Reason::BrokerUnavailable, message).retry_after(RESTORING_RETRY)
}
