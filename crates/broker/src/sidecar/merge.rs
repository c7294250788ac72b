//! A batch taken apart by shard, and its answers put together again in the application's order.

use std::collections::BTreeMap;
use std::time::Duration;

use ackwell_proto::v1::ItemError;
use ackwell_proto::{Failure, Reason, duration_millis};
use tonic::Status;

use super::retry::{describe, is_transient};

/// The items of a batch that one shard handles.
#[derive(Debug)]
pub(crate) struct Part<T> {
    pub(crate) shard: usize,
    /// Where each item stands in the application's batch.
    pub(crate) positions: Vec<usize>,
    pub(crate) items: Vec<T>,
}

impl<T> Part<T> {
    pub(crate) fn empty(shard: usize) -> Self {
        Self { shard, positions: Vec::new(), items: Vec::new() }
    }

    pub(crate) fn push(&mut self, position: usize, item: T) {
        self.positions.push(position);
        self.items.push(item);
    }
}

/// A shard's answer, with the places of its items.
pub(crate) type Answer<R> = (Vec<usize>, Result<Vec<R>, Status>);

/// Items by shard, and those that belong to none.
#[derive(Debug)]
pub(crate) struct Split<T> {
    pub(crate) parts: Vec<Part<T>>,
    pub(crate) refused: Vec<(usize, Failure)>,
}

/// Sorts items by the shard that `home` finds for each.
pub(crate) fn split<I, T>(
    items: impl IntoIterator<Item = I>,
    home: impl Fn(I) -> Result<(usize, T), Failure>,
) -> Split<T> {
    let mut parts: BTreeMap<usize, Part<T>> = BTreeMap::new();
    let mut refused = Vec::new();
    for (position, item) in items.into_iter().enumerate() {
        match home(item) {
            Ok((shard, item)) => {
                parts.entry(shard).or_insert_with(|| Part::empty(shard)).push(position, item);
            }
            Err(failure) => refused.push((position, failure)),
        }
    }
    Split { parts: parts.into_values().collect(), refused }
}

/// Puts the answers in order. A shard that failed fails its items; the call fails when its only shard did, or when
/// no shard was there.
pub(crate) fn merge<R>(answers: Vec<Answer<R>>, refusal: impl Fn(ItemError) -> R) -> Result<Vec<R>, Status> {
    let mut merged: BTreeMap<usize, R> = BTreeMap::new();
    let is_down = |answer: &Result<Vec<R>, Status>| answer.as_ref().is_err_and(is_transient);
    let fails_whole = answers.len() == 1 || answers.iter().all(|(_, answer)| is_down(answer));
    for (positions, answer) in answers {
        match answer {
            Ok(results) if results.len() == positions.len() => {
                merged.extend(positions.into_iter().zip(results));
            }
            Ok(_) => {
                return Err(Status::internal("a broker answered another number of items than it was given"));
            }
            Err(status) if fails_whole => return Err(status),
            Err(status) => {
                let error = item_error(&status);
                merged.extend(positions.into_iter().map(|position| (position, refusal(error.clone()))));
            }
        }
    }
    Ok(merged.into_values().collect())
}

/// The refusal of a whole part, for each of its items.
pub(crate) fn item_error(status: &Status) -> ItemError {
    Failure::from_status(status).map_or_else(
        || ItemError { reason: unknown_reason(status), message: describe(status), retry_after: None },
        ItemError::from,
    )
}

/// The other way round, for a call with a single item: it fails as a whole.
pub(crate) fn status_of(error: ItemError) -> Status {
    let Some(reason) = Reason::parse(&error.reason) else {
        return Status::unknown(format!("{} [{}]", error.message, error.reason));
    };
    let retry_after = error.retry_after.as_ref().and_then(duration_millis).map(Duration::from_millis);
    Failure { reason, message: error.message, retry_after }.into()
}

/// A code of gRPC itself still has a word.
fn unknown_reason(status: &Status) -> String {
    format!("{:?}", status.code()).to_uppercase()
}

/// Most items of a batch, as in the API.
pub(crate) const MAX_BATCH: usize = 1000;

/// Refuses a batch that no broker would take, before it is held in memory for a retry.
pub(crate) fn check_batch(len: usize, what: &str) -> Result<(), Failure> {
    match len {
        0 => Err(Failure::invalid(format!("no {what}; give 1 to {MAX_BATCH}"))),
        1..=MAX_BATCH => Ok(()),
        _ => {
            let message = format!("{len} {what}; at most {MAX_BATCH}: make several calls");
            Err(Failure::new(Reason::BatchTooLarge, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(error: ItemError) -> String {
        error.reason
    }

    /// Answers stand where their items stood.
    #[test]
    fn answers_of_parts_are_in_order_of_items() {
        let split = split([0, 1, 0, 1], |shard: usize| Ok((shard, shard)));
        let answers = split
            .parts
            .into_iter()
            .map(|part| (part.positions, Ok(vec![format!("s{}", part.shard); 2])))
            .collect();
        assert_eq!(merge(answers, refusal).unwrap(), ["s0", "s1", "s0", "s1"]);
    }

    /// One shard's outage does not hide the other's answer.
    #[test]
    fn failed_part_fails_only_its_items() {
        let down: Status = Failure::new(Reason::BrokerUnavailable, "down").into();
        let answers = vec![(vec![0, 2], Ok(vec!["ok".to_owned(); 2])), (vec![1], Err(down.clone()))];
        assert_eq!(merge(answers, refusal).unwrap(), ["ok", "BROKER_UNAVAILABLE", "ok"]);
        let answers = vec![(vec![0], Err(down.clone())), (vec![1], Err(down))];
        assert_eq!(merge(answers, refusal).unwrap_err().code(), tonic::Code::Unavailable);
    }
}
