//! Settle and Extend: by receipt to the shard that made it; safe to repeat, so repeated until answered.

use std::sync::Arc;

use ackwell_proto::v1::{
    ExtendRequest, ExtendResponse, ExtendResult, ItemError, SettleRequest, SettleResponse, SettleResult,
    Settlement,
};
use ackwell_proto::{Failure, Reason};
use bytes::Bytes;
use futures::future::join_all;
use tonic::Status;

use super::merge::{self, Answer, Part, Split};
use super::receipt::Receipt;
use super::retry::Deadline;
use super::route::Queue;
use super::shard_channel::ShardChannel;

/// Settles what the application names by sealed receipts.
pub(crate) async fn settle(
    queue: &Arc<Queue>,
    settlements: Vec<Settlement>,
    deadline: Deadline,
) -> Result<SettleResponse, Status> {
    merge::check_batch(settlements.len(), "settlements")?;
    let shards = queue.route(deadline).await?.shards.len();
    let Split { parts, refused } = split_settlements(settlements, shards);
    let calls = parts.into_iter().map(|part| settle_part(queue, part, deadline));
    let mut answers = join_all(calls).await;
    answers.extend(refused.into_iter().map(refused_item));
    let results = merge::merge(answers, settle_refusal)?;
    Ok(SettleResponse { results })
}

/// Extends what the application names by sealed receipts.
pub(crate) async fn extend(
    queue: &Arc<Queue>,
    request: ExtendRequest,
    deadline: Deadline,
) -> Result<ExtendResponse, Status> {
    merge::check_batch(request.receipts.len(), "receipts")?;
    let shards = queue.route(deadline).await?.shards.len();
    let Split { parts, refused } = split_receipts(request.receipts, shards);
    let calls = parts.into_iter().map(|part| extend_part(queue, part, request.ack_timeout, deadline));
    let mut answers = join_all(calls).await;
    answers.extend(refused.into_iter().map(refused_item));
    let results = merge::merge(answers, extend_refusal)?;
    Ok(ExtendResponse { results })
}

/// A refused receipt as an answer of its own, which fails the call when it was the only item, as a broker's does.
fn refused_item<R>((position, failure): (usize, Failure)) -> Answer<R> {
    (vec![position], Err(failure.into()))
}

/// Sorts settlements by shard and gives each the broker's own receipt.
pub(crate) fn split_settlements(settlements: Vec<Settlement>, shards: usize) -> Split<Settlement> {
    merge::split(settlements, |settlement: Settlement| {
        let Receipt { shard, inner } = Receipt::open(&settlement.receipt, shards)?;
        Ok((usize::from(shard), Settlement { receipt: inner, ..settlement }))
    })
}

/// Sorts receipts by shard and opens them.
pub(crate) fn split_receipts(receipts: Vec<Vec<u8>>, shards: usize) -> Split<Vec<u8>> {
    merge::split(receipts, |receipt: Vec<u8>| -> Result<_, Failure> {
        let Receipt { shard, inner } = Receipt::open(&Bytes::from(receipt), shards)?;
        Ok((usize::from(shard), inner.to_vec()))
    })
}

/// Whether the delivery is no longer held. A settlement refused for another reason changed nothing.
pub(crate) fn is_over(result: &SettleResult) -> bool {
    use Reason::{InvalidReceipt, ReceiptExpired, SettledOtherwise};
    let reason = |error: &ItemError| Reason::parse(&error.reason);
    let is_gone = |error| matches!(reason(error), Some(InvalidReceipt | ReceiptExpired | SettledOtherwise));
    result.error.as_ref().is_none_or(is_gone)
}

/// Forgets what is over, here and in the streams that delivered it.
pub(crate) fn forget(queue: &Queue, receipts: &[Bytes], results: &[SettleResult]) {
    queue.held.settled(receipts.iter().zip(results));
    let over = receipts.iter().zip(results).filter(|(_, result)| is_over(result));
    queue.settled.tell(&over.map(|(receipt, _)| receipt.clone()).collect::<Vec<_>>());
}

/// The answer for a settlement that was not made.
pub(crate) fn settle_refusal(error: ItemError) -> SettleResult {
    SettleResult { error: Some(error), ..SettleResult::default() }
}

/// The answer for an extension that was not made.
pub(crate) fn extend_refusal(error: ItemError) -> ExtendResult {
    ExtendResult { error: Some(error), ..ExtendResult::default() }
}

async fn settle_part(queue: &Arc<Queue>, part: Part<Settlement>, deadline: Deadline) -> Answer<SettleResult> {
    let request = SettleRequest { queue: queue.full_name().to_owned(), settlements: part.items };
    let attempt = |channel: Arc<ShardChannel>| {
        let request = request.clone();
        async move { channel.queues().settle(request).await }
    };
    let answer = queue.call(part.shard, deadline, attempt).await;
    (part.positions, answer.map(|response| response.results))
}

async fn extend_part(
    queue: &Arc<Queue>,
    part: Part<Vec<u8>>,
    ack_timeout: Option<prost_types::Duration>,
    deadline: Deadline,
) -> Answer<ExtendResult> {
    let request = ExtendRequest { queue: queue.full_name().to_owned(), receipts: part.items, ack_timeout };
    let attempt = |channel: Arc<ShardChannel>| {
        let request = request.clone();
        async move { channel.queues().extend(request).await }
    };
    let answer = queue.call(part.shard, deadline, attempt).await;
    (part.positions, answer.map(|response| response.results))
}
