//! Messages by id: nothing tells which shard has one, so all are asked, and at most one has it.

use std::sync::Arc;

use ackwell_proto::v1::{CancelRequest, CancelResponse, CancelResult, ItemError};
use ackwell_proto::{Failure, Reason};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tonic::{Response, Status};

use super::merge;
use super::retry::Deadline;
use super::route::Queue;
use super::shard_channel::ShardChannel;

/// The answer of the shard that has the message.
pub(crate) async fn find<T, F>(
    queue: &Arc<Queue>,
    deadline: Deadline,
    attempt: impl Fn(Arc<ShardChannel>) -> F + Copy,
) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let shards = queue.route(deadline).await?.shards.len();
    first_found((0..shards).map(|shard| queue.call(shard, deadline, attempt)).collect()).await
}

/// Removes each message where it is.
pub(crate) async fn cancel(
    queue: &Arc<Queue>,
    ids: Vec<String>,
    deadline: Deadline,
) -> Result<CancelResponse, Status> {
    merge::check_batch(ids.len(), "ids")?;
    let (count, shards) = (ids.len(), queue.route(deadline).await?.shards.len());
    let request = CancelRequest { queue: queue.full_name().to_owned(), ids };
    let attempt = |channel: Arc<ShardChannel>| {
        let request = request.clone();
        async move { channel.admin().cancel(request).await }
    };
    let asked = (0..shards).map(|shard| queue.call(shard, deadline, attempt));
    let answers = join_all(asked).await.into_iter().map(|answer| per_id(answer, count)).collect();
    let mut errors = combine(answers, count);
    match errors.pop() {
        Some(Some(error)) if count == 1 => Err(merge::status_of(error)),
        last => {
            let results = errors.into_iter().chain(last).map(|error| CancelResult { error });
            Ok(CancelResponse { results: results.collect() })
        }
    }
}

/// That no shard has it is only known when all said so.
async fn first_found<T>(
    mut answers: FuturesUnordered<impl Future<Output = Result<T, Status>>>,
) -> Result<T, Status> {
    let mut refusal = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) => return Ok(found),
            Err(status) if refusal.is_none() || !says_not_found(&status) => refusal = Some(status),
            Err(_) => {}
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal("no shard was asked")))
}

fn says_not_found(status: &Status) -> bool {
    Failure::from_status(status).is_some_and(|failure| failure.reason == Reason::MessageNotFound)
}

/// What one shard said of each id; a call that failed as a whole says the same of all.
fn per_id(answer: Result<CancelResponse, Status>, count: usize) -> Vec<Option<ItemError>> {
    match answer {
        Ok(response) if response.results.len() == count => {
            response.results.into_iter().map(|result| result.error).collect()
        }
        Ok(_) => {
            let status = Status::internal("a broker answered another number of items than it was given");
            vec![Some(merge::item_error(&status)); count]
        }
        Err(status) => vec![Some(merge::item_error(&status)); count],
    }
}

/// Of each id, the shard's word that has the message.
fn combine(answers: Vec<Vec<Option<ItemError>>>, count: usize) -> Vec<Option<ItemError>> {
    let mut combined: Vec<Option<Option<ItemError>>> = vec![None; count];
    for (known, new) in answers.into_iter().flat_map(|answer| answer.into_iter().enumerate()) {
        let known = &mut combined[known];
        let is_word = |error: &Option<ItemError>| {
            error.as_ref().is_none_or(|error| error.reason != Reason::MessageNotFound.as_str())
        };
        let is_better = match known {
            None => true,
            Some(None) => false,
            Some(_) => is_word(&new),
        };
        if is_better {
            *known = Some(new);
        }
    }
    combined.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    fn error(reason: Reason) -> ItemError {
        Failure::new(reason, "no").into()
    }

    /// A shard that is away may have the message: then nobody may say that it is gone.
    #[tokio::test]
    async fn absent_shard_is_not_a_missing_message() {
        let missing = || Err(Failure::new(Reason::MessageNotFound, "no").into());
        let away = || Err(Failure::new(Reason::BrokerUnavailable, "away").into());
        let first = async |answers: Vec<Result<u8, Status>>| {
            let answers: FuturesUnordered<_> = answers.into_iter().map(ready).collect();
            first_found(answers).await.map_err(|status| Failure::from_status(&status).unwrap().reason)
        };
        assert_eq!(first(vec![missing(), Ok(7), away()]).await, Ok(7));
        assert_eq!(first(vec![missing(), missing()]).await, Err(Reason::MessageNotFound));
        assert_eq!(first(vec![away(), missing()]).await, Err(Reason::BrokerUnavailable));
        assert_eq!(first(vec![missing(), away()]).await, Err(Reason::BrokerUnavailable));
    }

    /// Each id is answered by the shard that has it.
    #[test]
    fn word_of_the_shard_that_has_it_counts() {
        use Reason::{BrokerUnavailable, MessageInFlight, MessageNotFound};
        let here = vec![
            None,
            Some(error(MessageNotFound)),
            Some(error(MessageInFlight)),
            Some(error(MessageNotFound)),
        ];
        let there = vec![
            Some(error(MessageNotFound)),
            None,
            Some(error(MessageNotFound)),
            Some(error(MessageNotFound)),
        ];
        let both = vec![None, None, Some(error(MessageInFlight)), Some(error(MessageNotFound))];
        assert_eq!(combine(vec![here.clone(), there.clone()], 4), both);
        assert_eq!(combine(vec![there, here.clone()], 4), both);
        let away = vec![Some(error(BrokerUnavailable)); 4];
        assert_eq!(combine(vec![here, away], 4)[3], Some(error(BrokerUnavailable)));
    }
}
