//! Bad tokens, counted for each address: seeing that one is bad costs as much as storing a message, and whoever reaches the
//! port can send them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_engine::Timestamp;
use ackwell_proto::{Failure, Reason};

/// Bad tokens of an address that are looked at one after the other: a pod whose token ran out shows one with each call.
const AT_ONCE: u64 = 64;
/// ... and from then on one in so many milliseconds.
const EVERY_MS: u64 = 50;
/// Addresses that are remembered, each for some seconds: as many as there may be connections.
const MAX_ADDRESSES: usize = 8192;
const RETRY: Duration = Duration::from_secs(1);

/// For each address the time at which its bad tokens are forgiven.
#[derive(Default)]
pub(crate) struct BadTokens(Mutex<HashMap<Option<IpAddr>, Timestamp>>);

impl BadTokens {
    /// Refuses an address that has shown too many, before another of its tokens is looked at.
    pub(super) fn check(&self, address: Option<IpAddr>, now: Timestamp) -> Result<(), Failure> {
        let forgiven = self.lock().get(&address).copied().unwrap_or(now);
        if forgiven.0 <= now.0 + AT_ONCE * EVERY_MS { Ok(()) } else { Err(too_many(address)) }
    }

    /// One more.
    pub(super) fn note(&self, address: Option<IpAddr>, now: Timestamp) {
        let mut forgiven = self.lock();
        if forgiven.len() >= MAX_ADDRESSES {
            forgiven.retain(|_, at| now < *at);
        }
        if forgiven.len() >= MAX_ADDRESSES {
            forgiven.clear();
        }
        let at = forgiven.entry(address).or_insert(now);
        *at = Timestamp(at.0.max(now.0) + EVERY_MS);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(address: Option<IpAddr>) -> Failure {
    let from = address.map_or_else(String::new, |address| format!(" from {address}"));
    let message = format!("too many bad tokens came{from}; send a good one, in a second");
    Failure::new(Reason::Busy, message).retry_after(RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    fn from(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Bad tokens of this address that are looked at from now on.
    fn looked_at(bad: &BadTokens, address: Option<IpAddr>, now: Timestamp) -> u64 {
        let looks = || bad.check(address, now).ok().map(|()| bad.note(address, now));
        std::iter::from_fn(looks).count() as u64
    }

    /// Promise: what bad tokens cost is bounded by time, however many are sent; and it is not others who pay.
    #[test]
    fn an_address_has_few_tokens_looked_at_and_others_all() {
        let bad = BadTokens::default();
        assert_eq!(looked_at(&bad, Some(from(1)), START), AT_ONCE + 1);
        assert_eq!(bad.check(Some(from(1)), START).unwrap_err().reason, Reason::Busy);
        bad.check(Some(from(2)), START).unwrap();
        assert_eq!(looked_at(&bad, Some(from(1)), START.plus_ms(10 * EVERY_MS)), 10);
        let later = START.plus_ms(3600 * 1000);
        assert_eq!(looked_at(&bad, Some(from(1)), later), AT_ONCE + 1, "all is forgiven");
    }

    /// Promise: whoever calls from many addresses takes no more memory than there may be connections.
    #[test]
    fn addresses_are_bounded() {
        let bad = BadTokens::default();
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() * 2 {
            bad.note(Some(IpAddr::from(number.to_be_bytes())), START);
        }
        assert!(bad.lock().len() <= MAX_ADDRESSES);
    }
}
