//! Commit: settling and sending in one step. It fails as a whole: an OK that did nothing would be overlooked.

use ackwell_engine::command::{Commit, Committed, Outgoing, Settle};
use ackwell_engine::{Command, Refusal, Reply};
use ackwell_proto::Failure;
use ackwell_proto::v1::{
    CommitRequest, CommitResponse, SendRequest, SendResponse, SettleRequest, SettleResponse,
};

use super::Service;
use super::queues::{send_result, settle_result};
use crate::broker::access::{Caller, Verb};
use crate::broker::convert;
use crate::broker::refusal::failure;
use crate::broker::served::Allowed;

impl Service {
    pub(super) async fn commit_all(
        &self,
        caller: &Caller,
        request: CommitRequest,
    ) -> Result<CommitResponse, Failure> {
        let CommitRequest { request_id, settle, send } = request;
        let settlements = settle.iter().map(|settle| settle.settlements.len());
        let messages = send.iter().map(|send| send.messages.len());
        convert::batch_size("settlements and messages", settlements.chain(messages).sum())?;
        let settle =
            settle.into_iter().enumerate().map(|(index, settle)| self.settle_of(caller, index, settle));
        let send = send.into_iter().enumerate().map(|(index, send)| self.outgoing_of(caller, index, send));
        let commit = Commit {
            settle: settle.collect::<Result<_, _>>()?,
            send: send.collect::<Result<_, _>>()?,
            request_id: convert::request_id(request_id)?,
        };
        match self.shard.apply(Command::Commit(commit)).await? {
            Reply::Committed(committed) => answer(committed),
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("a Commit is answered by results, not {other:?}"),
        }
    }

    fn settle_of(&self, caller: &Caller, index: usize, settle: SettleRequest) -> Result<Settle, Failure> {
        let queue = self.queues.allow(caller, Verb::Consume, &settle.queue)?.served.id;
        let parsed = settle.settlements.into_iter().enumerate().map(|(item, settlement)| {
            let outcome = convert::outcome(settlement.outcome).map_err(|f| at_settlement(index, item, f))?;
            Ok((settlement.receipt, outcome))
        });
        Ok(Settle { queue, settlements: parsed.collect::<Result<_, Failure>>()? })
    }

    fn outgoing_of(&self, caller: &Caller, index: usize, send: SendRequest) -> Result<Outgoing, Failure> {
        let Allowed { served, sender } = self.queues.allow(caller, Verb::Send, &send.queue)?;
        if !send.request_id.is_empty() {
            return Err(Failure::invalid("a Commit has one request_id: leave that of `send` empty"));
        }
        let parsed = send.messages.into_iter().enumerate();
        let messages = parsed.map(|(item, message)| {
            convert::new_message(message, &sender).map_err(|f| at_message(index, item, f))
        });
        Ok(Outgoing { queue: served.id, messages: messages.collect::<Result<_, _>>()? })
    }
}

fn answer(committed: Committed) -> Result<CommitResponse, Failure> {
    if let Some(failure) = first_in_the_way(&committed) {
        return Err(failure);
    }
    let settled = committed.settled.into_iter().map(|results| SettleResponse {
        results: results.into_iter().map(|result| settle_result(result.map_err(|r| failure(&r)))).collect(),
    });
    let sent = committed.sent.into_iter().map(|results| SendResponse {
        results: results.into_iter().map(|result| send_result(result.map_err(|r| failure(&r)))).collect(),
    });
    Ok(CommitResponse { settled: settled.collect(), sent: sent.collect() })
}

/// Of the refused items, the first that is not refused for another's sake.
fn first_in_the_way(committed: &Committed) -> Option<Failure> {
    let settled = items(&committed.settled).map(|(index, item, r)| at_settlement(index, item, failure(r)));
    let sent = items(&committed.sent).map(|(index, item, r)| at_message(index, item, failure(r)));
    settled.chain(sent).next()
}

fn items<T>(lists: &[Vec<Result<T, Refusal>>]) -> impl Iterator<Item = (usize, usize, &Refusal)> {
    let all = lists.iter().enumerate().flat_map(|(index, list)| {
        list.iter().enumerate().filter_map(move |(item, result)| Some((index, item, result.as_ref().err()?)))
    });
    all.filter(|(_, _, refusal)| **refusal != Refusal::CommitRefused)
}

fn at_settlement(index: usize, item: usize, failure: Failure) -> Failure {
    at(&format!("settle[{index}].settlements[{item}]"), failure)
}

fn at_message(index: usize, item: usize, failure: Failure) -> Failure {
    at(&format!("send[{index}].messages[{item}]"), failure)
}

fn at(place: &str, mut failure: Failure) -> Failure {
    failure.message = format!("{place}: {}; nothing was done", failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use ackwell_proto::Reason;

    use super::*;

    /// The caller is told what to mend, not what else would have been fine.
    #[test]
    fn refused_commit_names_the_item_in_the_way() {
        let full = Err(Refusal::QueueFull { what: "limits.maxMessages is reached" });
        let committed = Committed {
            settled: vec![vec![Err(Refusal::CommitRefused)]],
            sent: vec![vec![Err(Refusal::CommitRefused), full]],
        };
        let failure = answer(committed).unwrap_err();
        assert_eq!(failure.reason, Reason::QueueFull);
        assert!(failure.message.starts_with("send[0].messages[1]: the queue is full"), "{failure}");
        assert!(
            failure.message.ends_with("; nothing was done") && failure.retry_after.is_some(),
            "{failure}"
        );
    }
}
