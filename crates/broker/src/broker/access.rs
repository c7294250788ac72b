//! Who may do what with a queue.
//!
//! A caller is a Kubernetes ServiceAccount, which its token proves; [`token`] verifies it without asking anybody. What is
//! not granted is refused. A queue without an `access` in its config is served to everybody: outside of a cluster.

mod bad_tokens;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell_engine::Timestamp;
use ackwell_proto::v1::{self, Grant};
use ackwell_proto::{Failure, Reason};
use tonic::Request;

use crate::clock;
use crate::tls::Remote;
pub(crate) use bad_tokens::BadTokens;
use token::Keys;

/// Verified tokens that are remembered: verifying one costs as much as storing a message. There is one per pod.
const MAX_REMEMBERED: usize = 4096;
/// Longer tokens are refused unread: those of Kubernetes have about 1 KiB.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Before a token, as RFC 6750 has it.
const SCHEME: &str = "Bearer ";

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Store messages.
    Send,
    /// Take them, settle them.
    Consume,
    /// Read them without taking them.
    Peek,
    /// Change what becomes of them.
    Admin,
    /// Learn where shards are and how many messages there are: whoever may do anything.
    Look,
    /// Change the queue's settings: the operator alone.
    Configure,
}

/// Who calls, as the call itself says.
#[derive(Default)]
pub(crate) struct Caller {
    token: Option<String>,
    address: Option<IpAddr>,
}

/// A caller who has proved who it is: `namespace/name` of a ServiceAccount. Nobody where nobody has to prove anything.
pub(crate) type Sender = Option<Arc<str>>;

/// Who may do what.
pub(crate) struct Access {
    keys: Keys,
    operator: String,
    grants: Vec<Grant>,
    remembered: Mutex<HashMap<String, Proved>>,
}

/// Without the tokens.
impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Access").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// Who a caller has proved to be, and how long that holds.
#[derive(Clone, Debug)]
pub(crate) struct Proved {
    /// `namespace/name` of a ServiceAccount.
    pub(crate) account: Arc<str>,
    pub(crate) until: Timestamp,
}

impl Caller {
    /// Takes the token out of the call's metadata.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|text| text.strip_prefix(SCHEME)).map(|text| text.trim().to_owned());
        let address = request.extensions().get::<Remote>().map(|remote| remote.address.ip().to_canonical());
        Self { token, address }
    }
}

impl Access {
    /// As the operator wrote it.
    pub(crate) fn new(access: v1::Access) -> Result<Self, Failure> {
        let v1::Access { issuer, keys, operator, grants } = access;
        let keys = Keys::parse(issuer, &keys)
            .map_err(|error| Failure::invalid(format!("access.keys cannot be used: {error}")))?;
        Ok(Self { keys, operator, grants, remembered: Mutex::default() })
    }

    /// Who the caller is, if it may do this.
    pub(crate) fn allow(&self, caller: &Caller, verb: Verb, bad: &BadTokens) -> Result<Proved, Failure> {
        let proved = self.prove(caller, bad)?;
        if self.is_granted(&proved.account, verb) { Ok(proved) } else { Err(denied(&proved.account, verb)) }
    }

    fn prove(&self, caller: &Caller, bad: &BadTokens) -> Result<Proved, Failure> {
        let Some(token) = caller.token.as_deref() else {
            return Err(unauthenticated("the call has no token"));
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(unauthenticated(&format!("the token has over {MAX_TOKEN_BYTES} bytes")));
        }
        let now = clock::now();
        if let Some(known) = self.remembered().get(token).filter(|known| now < known.until) {
            return Ok(known.clone());
        }
        bad.check(caller.address, now)?;
        match self.keys.verify(token) {
            Ok(proved) => {
                self.remember(token, proved.clone(), now);
                Ok(proved)
            }
            Err(error) => {
                bad.note(caller.address, now);
                Err(unauthenticated(&error.to_string()))
            }
        }
    }

    /// What has run out makes room; where that is not enough, all is verified anew.
    fn remember(&self, token: &str, proved: Proved, now: Timestamp) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, known| now < known.until);
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), proved);
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, Proved>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_granted(&self, account: &str, verb: Verb) -> bool {
        let is_operator = account == self.operator;
        let mut granted = self.grants.iter().filter(|grant| is_of(grant, account));
        match verb {
            Verb::Configure => is_operator,
            Verb::Look => is_operator || granted.next().is_some(),
            Verb::Send => granted.any(|grant| has(grant, v1::Verb::Send)),
            Verb::Consume => granted.any(|grant| has(grant, v1::Verb::Consume)),
            Verb::Peek => granted.any(|grant| has(grant, v1::Verb::Peek)),
            Verb::Admin => granted.any(|grant| has(grant, v1::Verb::Admin)),
        }
    }
}

/// A grant without a name is for all ServiceAccounts of its namespace.
fn is_of(grant: &Grant, account: &str) -> bool {
    account.split_once('/').is_some_and(|(namespace, name)| {
        grant.namespace == namespace && (grant.service_account.is_empty() || grant.service_account == name)
    })
}

fn has(grant: &Grant, verb: v1::Verb) -> bool {
    grant.verbs.contains(&i32::from(verb))
}

fn unauthenticated(why: &str) -> Failure {
    let help = "send a ServiceAccount token for the audience ackwell.dev as `authorization: Bearer TOKEN`, \
                with the command line as ACKWELL_TOKEN";
    Failure::new(Reason::Unauthenticated, format!("{why}; {help}"))
}

fn denied(account: &str, verb: Verb) -> Failure {
    let message = match verb {
        Verb::Configure => {
            format!("ServiceAccount {account} is not the operator, who alone configures queues")
        }
        Verb::Look => {
            format!("ServiceAccount {account} may do nothing with this queue; see spec.clients of the Queue")
        }
        _ => {
            let verb = format!("{verb:?}").to_lowercase();
            format!(
                "ServiceAccount {account} may not {verb} here; add it with this verb to spec.clients of the Queue"
            )
        }
    };
    Failure::new(Reason::PermissionDenied, message)
}

#[cfg(test)]
mod tests;
