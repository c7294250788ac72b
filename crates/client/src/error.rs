//! Why a call, or one item of it, failed.

use std::time::Duration;

use ackwell_proto::v1::ItemError;
use ackwell_proto::{Failure, Reason};
use tonic::{Code, Status};

/// Why a call, or one item of it, failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names no broker.
    #[error("address {address:?} is not valid: use host:port, like {default}", default = crate::DEFAULT_ADDRESS)]
    InvalidAddress {
        /// As it was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("no broker or sidecar answers at {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why, as the system says it.
        cause: String,
    },
    /// The broker or sidecar refused, for a reason this version knows.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The same, for a reason this version does not know.
    #[error("{message} [{reason}]")]
    RefusedOtherwise {
        /// The word on the wire.
        reason: String,
        /// For people.
        message: String,
        /// Present where trying again later can help.
        retry_after: Option<Duration>,
    },
    /// The call failed without a reason of Ackwell: no connection, or something else answered.
    #[error("the call failed: {message} [{code:?}]")]
    Call {
        /// Of gRPC.
        code: Code,
        /// What is known.
        message: String,
    },
    /// No answer came in time.
    #[error("no answer within {limit:?}")]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// The consumer or producer has ended.
    #[error("it is closed")]
    Closed,
    /// The answer does not match the call.
    #[error("the answer has {got} results for {expected} items: client and broker do not match")]
    Mismatch {
        /// Items of the call.
        expected: usize,
        /// Results of the answer.
        got: usize,
    },
}

impl Error {
    /// The stable reason of a refusal.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(failure) => Some(failure.reason),
            _ => None,
        }
    }

    /// Whether a call with a single item may have failed with it, where a larger one would not have.
    pub(crate) fn is_of_an_item(&self) -> bool {
        self.reason().is_some_and(|reason| reason.code() != Code::Unavailable)
    }

    /// When trying again can help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(failure) => failure.retry_after,
            Self::RefusedOtherwise { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match Failure::from_status(&status) {
            Some(failure) => Self::Refused(failure),
            None => Self::Call { code: status.code(), message: cause(&status) },
        }
    }
}

impl From<ItemError> for Error {
    fn from(error: ItemError) -> Self {
        let ItemError { reason: word, message, retry_after } = error;
        let retry_after = retry_after.and_then(|delay| Duration::try_from(delay).ok());
        match Reason::parse(&word) {
            Some(reason) => Self::Refused(Failure { reason, message, retry_after }),
            None => Self::RefusedOtherwise { reason: word, message, retry_after },
        }
    }
}

/// Whether opening a stream again does not help.
pub(crate) fn is_permanent(status: &Status) -> bool {
    let is_refused = Failure::from_status(status).is_some() || std::error::Error::source(status).is_none();
    is_refused
        && matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
                | Code::FailedPrecondition
                | Code::OutOfRange
        )
}

/// Whether an item that was refused may well succeed when it is tried again.
pub(crate) fn is_passing(error: &Error) -> bool {
    error.reason().is_some_and(|reason| reason.code() == Code::Unavailable || reason == Reason::Busy)
}

/// The innermost cause: the outer ones are "transport error" and the like.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last();
    match error.downcast_ref::<Status>() {
        Some(status) if error.source().is_none() => status.message().to_owned(),
        _ => innermost.unwrap_or(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer broker may refuse for reasons that this client does not know.
    #[test]
    fn item_error_of_unknown_reason_keeps_its_words() {
        let item = ItemError { reason: "SO_NEW".into(), message: "do this".into(), retry_after: None };
        let error = Error::from(item);
        assert_eq!(error.reason(), None);
        assert_eq!(error.to_string(), "do this [SO_NEW]");
    }

    #[test]
    fn item_error_of_known_reason_is_a_failure() {
        let failure = Failure::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(1500));
        let error = Error::from(ItemError::from(failure));
        assert_eq!(error.reason(), Some(Reason::QueueFull));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    }
}
