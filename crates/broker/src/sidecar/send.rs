//! Send: which shard stores which message, and one answer from the answers of several shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use ackwell_engine::moving::UNBOUND_REQUEST;
use ackwell_proto::v1::{ItemError, Message, SendRequest, SendResponse, SendResult};
use ackwell_proto::{Failure, POSITION_HEADER, Reason};
use futures::future::join_all;
use tonic::Status;

use super::merge::{self, Answer, Part};
use super::retry::{Backoff, Deadline, RETRY_AFTER, is_moved};
use super::route::{Home, Queue, Route};
use super::shard_channel::ShardChannel;

/// Stores the messages; a retry of any part carries the same `request_id`.
pub(crate) async fn send(
    queue: &Arc<Queue>,
    request: SendRequest,
    deadline: Deadline,
) -> Result<SendResponse, Status> {
    merge::check_batch(request.messages.len(), "messages")?;
    let SendRequest { messages, atomic, request_id, queue: _ } = request;
    check_headers(&messages)?;
    let whole = messages.len();
    let unbound = || format!("{UNBOUND_REQUEST}{}", uuid::Uuid::new_v4());
    let is_bound = !request_id.is_empty();
    let request_id = if is_bound { request_id } else { unbound() };
    let call = Call { queue, atomic, request_id, is_bound, whole };
    let answers = call.store(messages.into_iter().enumerate().collect(), Home::Before, deadline).await?;
    let results =
        merge::merge(answers, |error: ItemError| SendResult { error: Some(error), ..SendResult::default() })?;
    Ok(SendResponse { results })
}

/// What sidecars add is not the application's to give.
pub(super) fn check_headers(messages: &[Message]) -> Result<(), Failure> {
    if messages.iter().any(|message| message.headers.contains_key(POSITION_HEADER)) {
        return Err(Failure::invalid(format!("the header {POSITION_HEADER:?} is reserved")));
    }
    Ok(())
}

/// A message, and where it stands in the application's batch.
pub(crate) type Item = (usize, Message);

/// What all parts of a Send have in common.
pub(crate) struct Call<'a> {
    pub(crate) queue: &'a Arc<Queue>,
    pub(crate) atomic: bool,
    pub(crate) request_id: String,
    /// The application may repeat it, through another sidecar too.
    pub(crate) is_bound: bool,
    /// Messages of the application's batch.
    pub(crate) whole: usize,
}

impl Call<'_> {
    /// Stores the messages where they belong. What a shard refuses since its messages move goes to the shard that will have it,
    /// and again to both until one takes it.
    pub(crate) async fn store(
        &self,
        mut items: Vec<Item>,
        mut home: Home,
        deadline: Deadline,
    ) -> Result<Vec<Answer<SendResult>>, Status> {
        let (mut answers, mut backoff) = (Vec::new(), Backoff::new());
        loop {
            let route = self.queue.route(deadline).await?;
            let parts = self.plan(items, &route, home)?;
            let tried = join_all(parts.into_iter().map(|part| self.send_part(part, deadline))).await;
            items = Vec::new();
            for (part, answer) in tried {
                let moved = self.moved(part, answer, &mut answers);
                items.extend(moved);
            }
            if items.is_empty() {
                return Ok(answers);
            }
            items.sort_unstable_by_key(|(position, _)| *position);
            let was_tried_after =
                home == Home::After || route.among(Home::Before) == route.among(Home::After);
            home = if was_tried_after { Home::Before } else { Home::After };
            if was_tried_after && deadline.pause(backoff.step()).await.is_err() {
                answers.push((
                    items.into_iter().map(|(position, _)| position).collect(),
                    Err(self.still_moving()),
                ));
                return Ok(answers);
            }
        }
    }

    fn still_moving(&self) -> Status {
        let name = self.queue.full_name();
        let message =
            format!("the shards of queue {name} are changing, and none took the message in time; try again");
        Failure::new(Reason::ShardMoved, message).retry_after(RETRY_AFTER).into()
    }

    /// Takes the messages out of the request, by shard.
    ///
    /// A message with an `ordering_key` or a `dedup_id`, and a call with a `request_id`, always go to the same shard, the one
    /// that keeps their order or remembers them; everything else goes where the fewest calls are outstanding.
    fn plan(&self, items: Vec<Item>, route: &Route, home: Home) -> Result<Vec<Part<Message>>, Failure> {
        let anywhere = if self.is_bound { route.home(&self.request_id, home) } else { route.least_loaded() };
        if !self.atomic {
            return Ok(by_shard(items, self.whole, anywhere, route, home));
        }
        let homes = items.iter().filter_map(|(_, message)| self::home(message, route, home));
        let shard = single_home(homes, route.among(home))?.unwrap_or(anywhere);
        let (positions, items) = items.into_iter().unzip();
        Ok(vec![Part { shard, positions, items }])
    }

    async fn send_part(
        &self,
        part: Part<Message>,
        deadline: Deadline,
    ) -> (Part<Message>, Result<Vec<SendResult>, Status>) {
        let Part { shard, positions, items } = part;
        let request = SendRequest {
            queue: self.queue.full_name().to_owned(),
            messages: items,
            atomic: self.atomic,
            request_id: self.request_id.clone(),
        };
        let attempt = |channel: Arc<ShardChannel>| {
            let request = request.clone();
            async move { channel.queues().send(request).await }
        };
        let answer = self.queue.call(shard, deadline, attempt).await;
        let part = Part { shard, positions, items: request.messages };
        (part, answer.map(|response| response.results))
    }

    /// Takes the messages out that belong to another shard, and notes the answers of the others.
    fn moved(
        &self,
        part: Part<Message>,
        answer: Result<Vec<SendResult>, Status>,
        answers: &mut Vec<Answer<SendResult>>,
    ) -> Vec<Item> {
        let Part { positions, items, .. } = part;
        let results = match answer {
            Err(status) if is_moved(&status) => return positions.into_iter().zip(items).collect(),
            Ok(results) if results.len() == items.len() && results.iter().any(is_refused_as_moved) => results,
            answer => {
                answers.push((positions, answer));
                return Vec::new();
            }
        };
        if self.atomic {
            return positions.into_iter().zip(items).collect();
        }
        let all = positions.into_iter().zip(items).zip(results);
        let (moved, done): (Vec<_>, Vec<_>) = all.partition(|(_, result)| is_refused_as_moved(result));
        let (positions, results) = done.into_iter().map(|((position, _), result)| (position, result)).unzip();
        answers.push((positions, Ok(results)));
        moved.into_iter().map(|(item, _)| item).collect()
    }
}

/// Whether the message belongs to another shard.
pub(crate) fn is_refused_as_moved(result: &SendResult) -> bool {
    result.error.as_ref().is_some_and(|error| error.reason == Reason::ShardMoved.as_str())
}

/// Takes the messages apart by shard; those that have no home go to `anywhere`. A part says where its messages stand in the
/// `whole`: a repetition may come in other parts, to shards that remember these.
pub(crate) fn by_shard(
    items: Vec<Item>,
    whole: usize,
    anywhere: usize,
    route: &Route,
    home: Home,
) -> Vec<Part<Message>> {
    let mut parts = BTreeMap::new();
    for (position, message) in items {
        let shard = self::home(&message, route, home).unwrap_or(anywhere);
        parts.entry(shard).or_insert_with(|| Part::empty(shard)).push(position, message);
    }
    let mut parts: Vec<Part<Message>> = parts.into_values().collect();
    for part in parts.iter_mut().filter(|part| part.items.len() < whole) {
        for (position, message) in part.positions.iter().zip(&mut part.items) {
            message.headers.insert(POSITION_HEADER.to_owned(), position.to_string());
        }
    }
    parts
}

/// The only shard that may store the message; `None`: any may.
pub(crate) fn home(message: &Message, route: &Route, home: Home) -> Option<usize> {
    let keys = [&message.ordering_key, &message.dedup_id];
    keys.into_iter().find(|key| !key.is_empty()).map(|key| route.home(key, home))
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
    use crate::sidecar::route::tests::{route_of, router};

    fn message(dedup_id: &str) -> Message {
        Message { dedup_id: dedup_id.to_owned(), ..Message::default() }
    }

    fn homes(
        messages: Vec<Message>,
        request_id: &str,
        atomic: bool,
    ) -> Result<Vec<(usize, Vec<usize>)>, Failure> {
        let (queue, whole) = (&router(&[]).queue("orders").unwrap(), messages.len());
        let call = Call {
            queue,
            atomic,
            request_id: request_id.to_owned(),
            is_bound: !request_id.is_empty(),
            whole,
        };
        let parts = call.plan(messages.into_iter().enumerate().collect(), &route_of(4), Home::Before)?;
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

    /// What a shard refuses since it moves goes on with its place; the rest is answered. Of an atomic batch all goes on.
    #[tokio::test]
    async fn messages_that_move_go_on_with_their_places() {
        let queue = router(&[]).queue("orders").unwrap();
        let part = || Part {
            shard: 0,
            positions: vec![3, 5, 8],
            items: vec![message("a"), message("b"), message("c")],
        };
        let refused = |reason| Some(Failure::new(reason, "no").into());
        let results = || {
            let errors = [None, refused(Reason::ShardMoved), refused(Reason::QueueFull)];
            errors.into_iter().map(|error| SendResult { error, ..SendResult::default() }).collect()
        };
        let moved = |atomic, answer| {
            let call = Call { queue: &queue, atomic, request_id: "r".to_owned(), is_bound: true, whole: 9 };
            let mut answers = Vec::new();
            let moved = call.moved(part(), answer, &mut answers);
            (moved.into_iter().map(|(position, _)| position).collect::<Vec<_>>(), answers)
        };
        let (places, answers) = moved(false, Ok(results()));
        assert_eq!((places, answers[0].0.as_slice()), (vec![5], [3, 8].as_slice()));
        assert_eq!(moved(true, Ok(results())).0, [3, 5, 8]);
        assert_eq!(moved(false, Err(Failure::new(Reason::ShardMoved, "no").into())).0, [3, 5, 8]);
        assert_eq!(moved(false, Err(Failure::new(Reason::DiskFull, "no").into())).0, Vec::<usize>::new());
    }

    /// A part says where its messages stand in the whole; what was not taken apart need not.
    #[tokio::test]
    async fn parts_say_where_their_messages_stand() {
        let places = |messages: Vec<Message>| {
            let (whole, items) = (messages.len(), messages.into_iter().enumerate().collect());
            let parts = by_shard(items, whole, 0, &route_of(4), Home::Before);
            let place = |message: &Message| message.headers.get(POSITION_HEADER).cloned();
            let items = parts.iter().flat_map(|part| part.positions.iter().zip(&part.items));
            items.map(|(position, message)| (position.to_string(), place(message))).collect::<Vec<_>>()
        };
        assert_eq!(places(vec![message("a"); 3]).iter().filter(|(_, place)| place.is_some()).count(), 0);
        let scattered = places((0..50).map(|id| message(&id.to_string())).collect());
        assert!(scattered.iter().all(|(position, place)| place.as_ref() == Some(position)));
        assert!(
            check_headers(&[Message {
                headers: [(POSITION_HEADER.to_owned(), "1".to_owned())].into(),
                ..message("")
            }])
            .is_err()
        );
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
