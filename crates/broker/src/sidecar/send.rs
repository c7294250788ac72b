//! Send: which shard stores which message, and one answer from the answers of several shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use ackwell_proto::v1::{ItemError, Message, SendRequest, SendResponse, SendResult};
use ackwell_proto::{Failure, Reason};
use futures::future::join_all;
use tonic::Status;

use super::merge::{self, Answer, Part};
use super::retry::Deadline;
use super::route::{Queue, Route};
use super::shard_channel::ShardChannel;
use super::slots;

/// Stores the messages; a retry of any part carries the same `request_id`.
pub(crate) async fn send(
    queue: &Arc<Queue>,
    mut request: SendRequest,
    deadline: Deadline,
) -> Result<SendResponse, Status> {
    merge::check_batch(request.messages.len(), "messages")?;
    let route = queue.route(deadline).await?;
    let parts = plan(&mut request, &route)?;
    if request.request_id.is_empty() {
        request.request_id = uuid::Uuid::new_v4().to_string();
    }
    let calls = parts.into_iter().map(|part| send_part(queue, &request, part, deadline));
    let results = merge::merge(join_all(calls).await, |error: ItemError| SendResult {
        error: Some(error),
        ..SendResult::default()
    })?;
    Ok(SendResponse { results })
}

async fn send_part(
    queue: &Arc<Queue>,
    request: &SendRequest,
    part: Part<Message>,
    deadline: Deadline,
) -> Answer<SendResult> {
    let request = SendRequest {
        queue: queue.full_name().to_owned(),
        messages: part.items,
        atomic: request.atomic,
        request_id: request.request_id.clone(),
    };
    let attempt = |channel: Arc<ShardChannel>| {
        let request = request.clone();
        async move { channel.queues().send(request).await }
    };
    let answer = queue.call(part.shard, deadline, attempt).await;
    (part.positions, answer.map(|response| response.results))
}

/// Takes the messages out of the request, by shard.
///
/// A message with an `ordering_key` or a `dedup_id`, and a call with a `request_id`, always go to the same shard, the one
/// that keeps their order or remembers them; everything else goes where the fewest calls are outstanding.
fn plan(request: &mut SendRequest, route: &Route) -> Result<Vec<Part<Message>>, Failure> {
    let messages = std::mem::take(&mut request.messages);
    let shards = route.shards.len();
    let anywhere = if request.request_id.is_empty() {
        route.least_loaded()
    } else {
        slots::shard_of(&request.request_id, shards)
    };
    if request.atomic {
        let homes = messages.iter().filter_map(|message| home(message, shards));
        let shard = single_home(homes, shards)?.unwrap_or(anywhere);
        return Ok(vec![Part::whole(shard, messages)]);
    }
    Ok(by_shard(messages, anywhere, shards))
}

/// Takes the messages apart by shard; those that have no home go to `anywhere`.
pub(crate) fn by_shard(messages: Vec<Message>, anywhere: usize, shards: usize) -> Vec<Part<Message>> {
    let mut parts = BTreeMap::new();
    for (position, message) in messages.into_iter().enumerate() {
        let shard = home(&message, shards).unwrap_or(anywhere);
        parts.entry(shard).or_insert_with(|| Part::empty(shard)).push(position, message);
    }
    parts.into_values().collect()
}

/// The only shard that may store the message; `None`: any may.
pub(crate) fn home(message: &Message, shards: usize) -> Option<usize> {
    let keys = [&message.ordering_key, &message.dedup_id];
    keys.into_iter().find(|key| !key.is_empty()).map(|key| slots::shard_of(key, shards))
}

/// An atomic batch is one commit of one shard.
fn single_home(mut homes: impl Iterator<Item = usize>, shards: usize) -> Result<Option<usize>, Failure> {
    let Some(first) = homes.next() else { return Ok(None) };
    if homes.all(|home| home == first) {
        return Ok(Some(first));
    }
    let message = format!(
        "an atomic batch is stored by one shard, but the ordering_keys and dedup_ids of this one belong to several of \
         the queue's {shards} shards; send those messages apart, or give them one ordering_key"
    );
    Err(Failure::new(Reason::CrossShard, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::route::tests::route_of;

    fn message(dedup_id: &str) -> Message {
        Message { dedup_id: dedup_id.to_owned(), ..Message::default() }
    }

    fn homes(
        messages: Vec<Message>,
        request_id: &str,
        atomic: bool,
    ) -> Result<Vec<(usize, Vec<usize>)>, Failure> {
        let mut request =
            SendRequest { messages, atomic, request_id: request_id.to_owned(), ..SendRequest::default() };
        let parts = plan(&mut request, &route_of(4))?;
        Ok(parts.into_iter().map(|part| (part.shard, part.positions)).collect())
    }

    /// The second send of a `dedup_id` reaches the shard that remembers the first.
    #[tokio::test]
    async fn same_dedup_id_goes_to_same_shard() {
        let first = homes(vec![message("a"), message("b"), message("a")], "", false).unwrap();
        let again = homes(vec![message("a"), message("b"), message("a")], "", false).unwrap();
        assert_eq!(first, again);
        let shard_of_a = first.iter().find(|(_, positions)| positions.contains(&0)).unwrap();
        assert!(shard_of_a.1.contains(&2));
    }

    /// A call repeated with its `request_id` reaches the shard that remembers its answer.
    #[tokio::test]
    async fn same_request_id_goes_to_same_shard() {
        let ids: Vec<_> = (0..50).map(|id| format!("call-{id}")).collect();
        let shards: Vec<_> = ids.iter().map(|id| homes(vec![message("")], id, false).unwrap()[0].0).collect();
        let again: Vec<_> = ids.iter().map(|id| homes(vec![message("")], id, false).unwrap()[0].0).collect();
        assert_eq!(shards, again);
        assert!(shards.iter().any(|shard| *shard != shards[0]), "50 ids over 4 shards");
    }

    /// All or none cannot be promised over two shards, so it is refused instead.
    #[tokio::test]
    async fn atomic_batch_over_shards_is_refused() {
        let scattered: Vec<_> = (0..50).map(|id| message(&id.to_string())).collect();
        assert_eq!(homes(scattered, "", true).unwrap_err().reason, Reason::CrossShard);
        assert_eq!(homes(vec![message("a"), message(""), message("a")], "call", true).unwrap().len(), 1);
    }

    /// Order holds only within a shard: a key has one, whatever else the message or the call says, and whichever shard
    /// is failing.
    #[tokio::test]
    async fn ordering_key_decides_the_shard() {
        let keyed =
            |key: usize, dedup_id: &str| Message { ordering_key: format!("k{key}"), ..message(dedup_id) };
        let alone: Vec<_> = (0..50).map(|key| homes(vec![keyed(key, "")], "", false).unwrap()[0].0).collect();
        let other = |key| homes(vec![keyed(key, "dedup")], "call", false).unwrap()[0].0;
        assert_eq!(alone, (0..50).map(other).collect::<Vec<_>>());
        let mixed = homes((0..50).map(|key| keyed(key, "")).collect(), "", false).unwrap();
        assert_eq!(mixed.len(), 4, "50 keys over 4 shards");
        for (shard, positions) in mixed {
            assert!(positions.is_sorted() && positions.iter().all(|position| alone[*position] == shard));
        }
    }
}
