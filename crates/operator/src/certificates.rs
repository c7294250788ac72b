//! Certificates of the webhook and of brokers, without cert-manager: made by the leader. The authority and the webhook's
//! are kept in one Secret, served by every replica.
//!
//! - [`Content`]: what the Secret holds, as far as it can be used.
//! - [`next_step`]: what to do now, from the content and the time alone; [`carry_out`] does it, in memory.
//! - [`Keeper`]: the leader's loop. It tells the API server whom to trust first, and changes what is served after.
//! - [`broker`]: what the same authority signs for the brokers of a Queue.
//! - [`Served`]: the certificate that this replica shows, replaced without closing anything.
//!
//! Rights it needs: on `secrets` of its own namespace create, and get, list, watch, update on the one it makes; get, list,
//! watch, patch on its own `mutatingwebhookconfigurations`.
//!
//! A new authority is trusted before anything it signed is served, and the old one is trusted until nothing that it
//! signed is served any more; so no call fails while certificates change.

mod apply;
pub(crate) mod broker;
mod content;
mod issue;
mod keeper;
mod observe;
mod served;
mod step;

use std::time::Duration;

pub use content::{Content, SecretData};
pub use issue::carry_out;
pub use step::{Cause, Step, next_step};

pub(crate) use apply::Store;
pub(crate) use keeper::Keeper;
pub(crate) use observe::{Observed, observe};
pub(crate) use served::{Served, tls};

/// Certificates are valid from a little before they are made, for API servers whose clock is behind.
const BACKDATE: Duration = Duration::from_mins(5);

const DAY: Duration = Duration::from_hours(24);

/// What certificates are made for, and for how long.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The DNS names that the API server calls.
    pub names: Vec<String>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
}

/// How long certificates live. They are renewed after two thirds of it.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of the authority.
    pub authority: Duration,
    /// Of the certificate that is served; never longer than its authority's.
    pub leaf: Duration,
    /// How long API servers get to learn whom to trust, before it is relied on.
    pub settle: Duration,
    /// How long the old authority is trusted after the last certificate of the webhook that it signed was replaced. Those
    /// of brokers are replaced within minutes of that, unless the operator is away.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { authority: DAY * 365, leaf: DAY * 90, settle: Duration::from_mins(1), overlap: DAY * 7 }
    }
}

impl Policy {
    /// For the Service `service` in `namespace`.
    pub fn for_service(service: &str, namespace: &str, lifetimes: Lifetimes) -> Self {
        let names = ["svc.cluster.local", "svc"].map(|suffix| format!("{service}.{namespace}.{suffix}"));
        Self { names: names.into(), lifetimes }
    }
}

#[cfg(test)]
mod tests;
