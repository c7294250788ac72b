//! Where the reply to a command goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ackwell_engine::Reply;
use ackwell_proto::Failure;
use tokio::sync::oneshot;

use super::room::Taken;
use crate::broker::refusal;

/// Who waits for the reply to a command.
pub(crate) struct Answer {
    reply: oneshot::Sender<Result<Reply, Failure>>,
    chain: Option<Chain>,
    /// Given back with the answer.
    _room: Option<Taken>,
}

/// What the caller waits for.
pub(crate) struct Answered(pub(super) oneshot::Receiver<Result<Reply, Failure>>);

impl Answered {
    pub(crate) async fn reply(self) -> Result<Reply, Failure> {
        self.0.await.unwrap_or_else(|_| Err(refusal::shutting_down()))
    }
}

/// Commands of one caller that keep their order: once one of them failed with the store, those behind it fail too, although
/// the store may be open again by then.
#[derive(Clone, Default)]
pub(crate) struct Chain {
    is_broken: Arc<AtomicBool>,
}

impl Answer {
    pub(super) fn new(room: Option<Taken>, chain: Option<Chain>) -> (Self, Answered) {
        let (reply, answered) = oneshot::channel();
        (Self { reply, chain, _room: room }, Answered(answered))
    }

    /// Whether a command before this one has failed.
    pub(super) fn is_cut_off(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.is_broken.load(Ordering::Relaxed))
    }

    /// The command was done, or refused for what it is.
    pub(super) fn give(self, reply: Result<Reply, Failure>) {
        // A caller that is gone does not hear it.
        _ = self.reply.send(reply);
    }

    /// The command was not done, for reasons of the store.
    pub(super) fn fail(self, failure: Failure) {
        if let Some(chain) = &self.chain {
            chain.is_broken.store(true, Ordering::Relaxed);
        }
        self.give(Err(failure));
    }
}
