//! What to do now: decided from what the Secret holds and the time, and nothing else.

use std::time::Duration;

use jiff::Timestamp;

use super::Policy;
use super::content::{Certificate, Content, Issuer};

/// What to do with a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Rest {
        /// When to look again.
        until: Timestamp,
    },
    /// Make an authority; what is served stays, if it can.
    NewAuthority(Cause),
    /// Make what is served.
    NewLeaf(Cause),
    /// Trust the previous authority no longer.
    ForgetPrevious,
}

/// Why something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is none, or it cannot be used: unreadable, not its key, not valid yet, for other names, signed by others.
    Unusable,
    /// It has lived two thirds of its life.
    Due,
    /// Its authority was replaced, and the new one is trusted by now.
    Superseded,
}

/// A step, and the time from which on it is due.
type Planned = (Timestamp, Step);

/// The first step that is due, in the order in which they have to happen.
pub fn next_step(content: &Content, now: Timestamp, policy: &Policy) -> Step {
    let planned = plan(content, now, policy);
    let due = planned.iter().find(|(time, _)| *time <= now);
    let next = planned.iter().map(|(time, _)| *time).min();
    due.map_or(Step::Rest { until: next.unwrap_or(Timestamp::MAX) }, |(_, step)| *step)
}

/// Later than `time`, as far as time goes.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn plan(content: &Content, now: Timestamp, policy: &Policy) -> Vec<Planned> {
    let authority = content.authority.as_ref().filter(|it| content.authority_key.is_some() && it.from <= now);
    let Some(authority) = authority else { return vec![(now, Step::NewAuthority(Cause::Unusable))] };
    let mut planned = vec![(renewal(authority), Step::NewAuthority(Cause::Due))];
    planned.extend(leaf(content, authority, now, policy));
    planned
}

fn leaf(content: &Content, authority: &Certificate, now: Timestamp, policy: &Policy) -> Vec<Planned> {
    let usable = content.leaf.as_ref().map(|leaf| &leaf.certificate);
    let usable = usable.filter(|leaf| leaf.from <= now && leaf.covers(&policy.names));
    let Some((leaf, issuer)) = usable.zip(content.issuer()) else {
        return vec![(now, Step::NewLeaf(Cause::Unusable))];
    };
    let mut planned = vec![(renewal(leaf), Step::NewLeaf(Cause::Due))];
    match issuer {
        Issuer::Previous => {
            planned
                .push((after(authority.made(), policy.lifetimes.settle), Step::NewLeaf(Cause::Superseded)));
        }
        Issuer::Current if content.previous.is_some() => {
            planned.push((after(leaf.made(), policy.lifetimes.overlap), Step::ForgetPrevious));
        }
        Issuer::Current => {}
    }
    planned
}

/// Two thirds of a life leave the last third to notice that renewing fails.
pub(super) fn renewal(certificate: &Certificate) -> Timestamp {
    let made = certificate.made();
    let life = certificate.until.duration_since(made).unsigned_abs();
    if certificate.until < made { certificate.until } else { after(made, life * 2 / 3) }
}
