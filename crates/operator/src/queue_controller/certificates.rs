//! The certificates that brokers show: issued with the Queue, renewed in time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell_api::conditions::reasons;
use ackwell_api::names;
use jiff::Timestamp;
use kube::ResourceExt;

use super::QueueRef;
use super::apply::{Applier, ApplyError};
use super::build;
use super::error::Class;
use super::validate::Plan;
use crate::certificates::broker::{Authority, good_until, issue};
use crate::certificates::{Content, SecretData};
use crate::clock;

/// A Secret that somebody deleted or changed is made anew within this, or at the next visit after it.
const LOOK_EVERY: Duration = Duration::from_mins(5);

/// The brokers have no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the operator has no authority yet to sign the brokers' certificate")]
    NoAuthority,
    #[error("sign the brokers' certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl CertificateError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::NoAuthority => Class::Waiting,
            Self::Issue(_) => Class::Bug,
            Self::Apply(error) => error.class(),
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoAuthority | Self::Issue(_) => reasons::SECURITY_PENDING,
            Self::Apply(error) => error.reason(),
        }
    }
}

/// What is known of the certificates of all Queues.
pub(crate) struct Certificates {
    authority: Authority,
    seen: Mutex<HashMap<QueueRef, Seen>>,
}

/// A certificate that was good when it was looked at.
#[derive(Clone)]
struct Seen {
    uid: Option<String>,
    bundle: Option<String>,
    until: Timestamp,
    at: Instant,
}

impl Certificates {
    pub(crate) fn new(authority: Authority) -> Self {
        Self { authority, seen: Mutex::default() }
    }

    /// Makes sure that the Secret of the Queue in `plan` has a good certificate.
    pub(super) async fn ensure(&self, plan: &Plan, applier: &Applier<'_>) -> Result<(), CertificateError> {
        let authority = self.authority.content();
        let (key, uid) = (key(plan), plan.queue.queue().uid());
        let bundle = authority.bundle();
        let now = clock::now().0;
        if self.seen(&key).is_some_and(|seen| seen.uid == uid && seen.bundle == bundle && seen.is_fresh(now))
        {
            return Ok(());
        }
        let until = self.renew(plan, applier, &authority, now).await?;
        let seen = Seen { uid, bundle, until, at: clock::monotonic() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, seen);
        Ok(())
    }

    /// When a Queue has to be visited for the sake of its certificate.
    pub(super) fn next_look(&self, queue: &QueueRef) -> Duration {
        let rest =
            |seen: Seen| seen.until.duration_since(clock::now().0).try_into().unwrap_or(Duration::ZERO);
        self.seen(queue).map_or(LOOK_EVERY, |seen| LOOK_EVERY.min(rest(seen)))
    }

    /// Forgets a Queue that is gone.
    pub(super) fn forget(&self, queue: &QueueRef) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    fn seen(&self, queue: &QueueRef) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned()
    }

    /// Until when what is there now, or put there, is good.
    async fn renew(
        &self,
        plan: &Plan,
        applier: &Applier<'_>,
        authority: &Content,
        now: Timestamp,
    ) -> Result<Timestamp, CertificateError> {
        let names = names::server_names(plan.queue.name().namespace(), plan.queue.name().name());
        let live = applier.secret_data(&build::certificate(plan, SecretData::new())).await?;
        let until = good_until(&live, authority, &names, now);
        if until > now {
            return Ok(until);
        }
        let issued = issue(authority, &names, now)?.ok_or(CertificateError::NoAuthority)?;
        applier.write_secret(&build::certificate(plan, issued.clone())).await?;
        tracing::info!(queue = %plan.queue.name(), "issued a certificate for the brokers");
        Ok(good_until(&issued, authority, &names, now))
    }
}

impl Seen {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.until && self.at.elapsed() < LOOK_EVERY
    }
}

fn key(plan: &Plan) -> QueueRef {
    QueueRef::new(plan.queue.name().name()).within(plan.queue.name().namespace())
}
