//! What can go wrong in a visit to a Queue, and what to do about it.

use std::time::Duration;

use ackwell_api::InvalidQueue;
use ackwell_api::conditions::reasons;
use kube::core::Status;

use super::apply::ApplyError;
use super::certificates::CertificateError;
use super::update_status::StatusError;
use crate::webhook::Refusal;

/// First wait after a failed visit; doubled with each further failure.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait after a failed visit.
const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// Wait where only a person can help and no watch may notice that they did, as when they delete a foreign object.
const USER: Duration = Duration::from_mins(1);
/// Safety net where a watch should report the change that is waited for.
const WAITING: Duration = Duration::from_secs(30);

/// A visit to a Queue failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The object is no Queue that this version can read.
    #[error("read the Queue: {0}")]
    Undecodable(String),
    #[error(transparent)]
    Invalid(#[from] InvalidQueue),
    #[error("spec.template.metadata: {0}")]
    Template(#[from] Refusal),
    #[error("the operator does not know yet how ServiceAccount tokens are verified")]
    NoKeys,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Status(#[from] StatusError),
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Try again, ever more rarely.
    Transient,
    /// Something else must happen first, and will by itself.
    Waiting,
    /// Only a person can help.
    User,
    /// Our mistake.
    Bug,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Waiting => "waiting",
            Self::User => "user",
            Self::Bug => "bug",
        }
    }

    /// How long to wait after this many failed visits in a row.
    pub(crate) fn backoff(self, failures: u32) -> Duration {
        match self {
            Self::Waiting => WAITING,
            Self::User => USER,
            Self::Transient | Self::Bug => {
                let doublings = failures.saturating_sub(1).min(16);
                MIN_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF)
            }
        }
    }
}

impl Error {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Undecodable(_) | Self::Invalid(_) | Self::Template(_) => Class::User,
            Self::NoKeys => Class::Waiting,
            Self::Certificate(error) => error.class(),
            Self::Apply(error) => error.class(),
            Self::Status(error) => error.class(),
        }
    }

    /// The reason in conditions.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) | Self::Invalid(_) | Self::Template(_) => reasons::INVALID_SPEC,
            Self::NoKeys => reasons::SECURITY_PENDING,
            Self::Certificate(error) => error.reason(),
            Self::Apply(error) => error.reason(),
            Self::Status(_) => reasons::APPLY_REFUSED,
        }
    }
}

/// What to do about an answer of the API server.
pub(crate) fn classify(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) if is_terminating(status) => Class::Waiting,
        kube::Error::Api(status) => match status.code {
            409 | 429 => Class::Transient,
            400..=499 => Class::User,
            _ => Class::Transient,
        },
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Bug,
        _ => Class::Transient,
    }
}

/// The words for people, without the debug output that kube adds.
pub(crate) fn what_it_says(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The namespace is being deleted, and the Queue will be in a moment.
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API server in trouble is left in peace, and found again soon after it recovers.
    #[test]
    fn backoff_doubles_from_one_second_to_five_minutes() {
        let waits = [1, 2, 3, 9, 10, 1000].map(|failures| Class::Transient.backoff(failures).as_secs());
        assert_eq!(waits, [1, 2, 4, 256, 300, 300]);
    }

    /// Every deleted namespace would otherwise look like a mistake of the user.
    #[test]
    fn refusal_in_a_namespace_that_is_deleted_is_waited_for() {
        let answer = serde_json::json!({
            "code": 403,
            "message": "unable to create new content in namespace a because it is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "", "field": "metadata.namespace"}]},
        });
        let error = kube::Error::Api(serde_json::from_value(answer).unwrap());
        assert_eq!(classify(&error), Class::Waiting);
        assert!(what_it_says(&error).starts_with("unable to create"), "no debug output");
    }

    #[test]
    fn answers_of_the_api_server_are_classified_by_who_can_help() {
        let answer = |code| {
            let status = Status { code, ..Status::failure("", "") };
            classify(&kube::Error::Api(Box::new(status)))
        };
        assert_eq!([409, 429, 500, 503].map(answer), [Class::Transient; 4]);
        assert_eq!([400, 403, 404, 422].map(answer), [Class::User; 4]);
    }
}
