//! How long a stream may go on: no longer than its caller may open another one.

use std::time::Duration;

use ackwell_engine::Timestamp;
use ackwell_proto::{Failure, Reason};
use tokio::sync::watch;

use super::Queues;
use crate::broker::access::{Caller, Proved, Verb};
use crate::clock;

/// A clock that is set does not wake who sleeps; looking again this often is soon enough.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What a call that lasts was allowed by.
pub(crate) struct Lease {
    queues: Queues,
    changes: watch::Receiver<()>,
    caller: Caller,
    verb: Verb,
    name: String,
}

impl Lease {
    pub(super) fn new(queues: Queues, caller: Caller, verb: Verb, name: &str) -> Self {
        let changes = queues.changes.subscribe();
        Self { queues, changes, caller, verb, name: name.to_owned() }
    }

    /// Resolves when the caller may no longer do this: its grant is gone, or its token, or the key of that.
    pub(crate) async fn over(mut self) -> Failure {
        loop {
            self.changes.mark_unchanged();
            let proved = match self.prove() {
                Ok(proved) => proved,
                Err(failure) => return over(failure),
            };
            tokio::select! {
                // The sender is ours.
                _ = self.changes.changed() => {}
                () = tokio::time::sleep(rest(proved.as_ref())) => {}
            }
        }
    }

    fn prove(&self) -> Result<Option<Proved>, Failure> {
        self.queues.prove(&self.queues.find(&self.name)?, &self.caller, self.verb)
    }
}

fn rest(proved: Option<&Proved>) -> Duration {
    let until = proved.map_or(Timestamp::NEVER, |proved| proved.until);
    Duration::from_millis(until.ms_since(clock::now())).min(LOOK_EVERY)
}

/// A caller who can show another token goes on by another stream, so that this is none of the application's business; one
/// who cannot is refused there.
fn over(failure: Failure) -> Failure {
    match failure.reason {
        Reason::Unauthenticated => Failure::new(Reason::TokenExpired, failure.message),
        _ => failure,
    }
}
