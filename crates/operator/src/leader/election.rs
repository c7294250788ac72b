//! Who may hold the lease: decisions only, no requests and no clock.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Error, LEASE_DURATION, RENEW_DEADLINE};

/// What one replica knows.
pub(super) struct Election {
    identity: String,
    /// The lease's resource version, and when this replica first saw it.
    seen: Option<(String, Instant)>,
    /// When the last successful renewal was asked for; `None` when this replica does not lead.
    renewed_at: Option<Instant>,
    /// Who took a lease that this replica held.
    taken_by: Option<String>,
}

/// What to do with the lease.
#[derive(Debug, PartialEq)]
pub(super) enum Move {
    /// Someone else holds it.
    Wait,
    /// There is none.
    Create(Box<LeaseSpec>),
    /// It is ours, free, or ran out. The resource version decides if two try at once.
    Replace(Box<Lease>),
}

impl Election {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed_at: None, taken_by: None }
    }

    pub(super) fn leads(&self) -> bool {
        self.renewed_at.is_some()
    }

    /// Decides on the lease as it is.
    pub(super) fn decide(&mut self, live: Option<&Lease>, now: Instant, wall: MicroTime) -> Move {
        let Some(lease) = live else { return Move::Create(Box::new(self.claim(None, wall))) };
        let first_seen = self.see(lease, now);
        match holder(lease) {
            Some(other) if other != self.identity => {
                if self.leads() {
                    self.taken_by = Some(other.to_owned());
                    return Move::Wait;
                }
                if now.saturating_duration_since(first_seen) < LEASE_DURATION {
                    return Move::Wait;
                }
            }
            Some(_) | None => {}
        }
        let spec = self.claim(lease.spec.as_ref(), wall);
        Move::Replace(Box::new(Lease { metadata: lease.metadata.clone(), spec: Some(spec) }))
    }

    /// A write that was asked for at `asked_at` succeeded.
    pub(super) fn renewed(&mut self, asked_at: Instant) {
        self.renewed_at = Some(asked_at);
    }

    /// How long a lease that is held may still be relied on without a renewal.
    pub(super) fn time_left(&self, now: Instant) -> Result<Duration, Error> {
        if let Some(other) = &self.taken_by {
            return Err(Error::Taken(other.clone()));
        }
        let Some(renewed_at) = self.renewed_at else { return Ok(Duration::MAX) };
        let left = RENEW_DEADLINE.saturating_sub(now.saturating_duration_since(renewed_at));
        if left.is_zero() { Err(Error::Expired) } else { Ok(left) }
    }

    /// Until when a lease that is held may be relied on.
    pub(super) fn holds_until(&self) -> Option<Instant> {
        self.renewed_at.map(|renewed_at| renewed_at + RENEW_DEADLINE)
    }

    /// The lease without a holder, if we are the holder.
    pub(super) fn released(&self, mut lease: Lease) -> Option<Lease> {
        let ours = self.leads() && holder(&lease) == Some(&self.identity);
        lease.spec.as_mut()?.holder_identity = None;
        ours.then_some(lease)
    }

    fn see(&mut self, lease: &Lease, now: Instant) -> Instant {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((known, at)) if *known == version => *at,
            Some(_) | None => self.seen.insert((version, now)).1,
        }
    }

    fn claim(&self, previous: Option<&LeaseSpec>, wall: MicroTime) -> LeaseSpec {
        let held = previous.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = previous.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: held.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(wall.clone())),
            renew_time: Some(wall),
            lease_transitions: Some(if held.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn lease(version: &str, holder: Option<&str>) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec { holder_identity: holder.map(str::to_owned), ..LeaseSpec::default() });
        lease
    }

    fn claims(choice: &Move) -> bool {
        match choice {
            Move::Replace(lease) => holder(lease) == Some("me"),
            Move::Create(spec) => spec.holder_identity.as_deref() == Some("me"),
            Move::Wait => false,
        }
    }

    fn decide(election: &mut Election, live: Option<&Lease>, now: Instant) -> Move {
        election.decide(live, now, clock::now_micro())
    }

    /// A free lease is taken at once: the first leader, and the next after a clean stop, need not wait.
    #[test]
    fn free_lease_is_claimed_at_once() {
        let now = clock::monotonic();
        for live in [None, Some(lease("1", None)), Some(lease("1", Some("")))] {
            assert!(claims(&decide(&mut Election::new("me".to_owned()), live.as_ref(), now)));
        }
    }

    /// Two replicas never lead at once: a holder that renews keeps the lease for ever.
    #[test]
    fn foreign_lease_is_claimed_only_after_it_did_not_change_for_its_duration() {
        let start = clock::monotonic();
        let mut election = Election::new("me".to_owned());
        assert_eq!(decide(&mut election, Some(&lease("1", Some("other"))), start), Move::Wait);
        let almost = start + LEASE_DURATION.saturating_sub(Duration::from_millis(1));
        assert_eq!(decide(&mut election, Some(&lease("1", Some("other"))), almost), Move::Wait);
        assert_eq!(
            decide(&mut election, Some(&lease("2", Some("other"))), start + LEASE_DURATION),
            Move::Wait
        );
        assert!(claims(&decide(&mut election, Some(&lease("2", Some("other"))), start + 2 * LEASE_DURATION)));
    }

    /// The holder stops before others may start.
    #[test]
    fn holder_that_cannot_renew_gives_up_before_the_lease_runs_out() {
        let start = clock::monotonic();
        let mut election = Election::new("me".to_owned());
        election.renewed(start);
        let millisecond = Duration::from_millis(1);
        assert_eq!(
            election.time_left(start + RENEW_DEADLINE.saturating_sub(millisecond)).unwrap(),
            millisecond
        );
        assert!(matches!(election.time_left(start + RENEW_DEADLINE), Err(Error::Expired)));
        assert!(
            RENEW_DEADLINE + super::super::RETRY_PERIOD < LEASE_DURATION,
            "noticed at the latest one period later"
        );
    }

    #[test]
    fn holder_that_sees_another_name_gives_up() {
        let now = clock::monotonic();
        let mut election = Election::new("me".to_owned());
        election.renewed(now);
        assert_eq!(decide(&mut election, Some(&lease("7", Some("other"))), now), Move::Wait);
        assert!(matches!(election.time_left(now), Err(Error::Taken(name)) if name == "other"));
    }

    #[test]
    fn renewal_keeps_when_it_was_acquired() {
        let mut election = Election::new("me".to_owned());
        let now = clock::monotonic();
        let Move::Create(spec) = decide(&mut election, None, now) else {
            panic!("a missing lease is created")
        };
        let mut live = lease("1", None);
        live.spec = Some(*spec.clone());
        let Move::Replace(renewed) = decide(&mut election, Some(&live), now) else {
            panic!("our lease is renewed")
        };
        let renewed = renewed.spec.unwrap();
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (spec.acquire_time, Some(1)));
    }

    /// Giving back what someone else holds would let two lead.
    #[test]
    fn only_our_lease_is_released() {
        let mut election = Election::new("me".to_owned());
        assert_eq!(election.released(lease("1", Some("me"))), None, "never led");
        election.renewed(clock::monotonic());
        assert_eq!(election.released(lease("1", Some("other"))), None);
        assert_eq!(holder(&election.released(lease("1", Some("me"))).unwrap()), None);
    }
}
