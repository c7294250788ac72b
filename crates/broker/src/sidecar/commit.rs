//! Commit: one step of one shard, so everything in it must lie on one.

use std::sync::Arc;

use ackwell_proto::v1::{CommitRequest, CommitResponse, SendRequest, SettleRequest};
use ackwell_proto::{Failure, Reason};
use bytes::Bytes;
use tonic::Status;

use super::receipt::Receipt;
use super::retry::{Backoff, Deadline, is_moved};
use super::route::{Home, Queue, Route, Router};
use super::shard_channel::ShardChannel;
use super::{merge, send, settle};

/// Settles and sends on the shard of the receipts; a retry carries the same `request_id`.
pub(crate) async fn commit(
    router: &Router,
    mut request: CommitRequest,
    deadline: Deadline,
) -> Result<CommitResponse, Status> {
    let settlements = request.settle.iter().map(|part| part.settlements.len());
    let messages = request.send.iter().map(|part| part.messages.len());
    merge::check_batch(settlements.chain(messages).sum(), "settlements and messages")?;
    let anywhere_of = request.request_id.clone();
    if request.request_id.is_empty() {
        request.request_id = uuid::Uuid::new_v4().to_string();
    }
    let mut backoff = Backoff::new();
    loop {
        let mut answer = None;
        for home in [Home::Before, Home::After] {
            let tried = commit_at(router, request.clone(), &anywhere_of, home, deadline).await;
            if !tried.as_ref().is_ok_and(has_moved) && !tried.as_ref().is_err_and(is_moved) {
                return tried;
            }
            answer = Some(tried);
        }
        if deadline.pause(backoff.step()).await.is_err() {
            return answer.unwrap_or_else(|| Err(Status::internal("a Commit was not tried")));
        }
    }
}

/// One try, at one shard.
async fn commit_at(
    router: &Router,
    mut request: CommitRequest,
    request_id: &str,
    home: Home,
    deadline: Deadline,
) -> Result<CommitResponse, Status> {
    let queues = Queues::of(router, &mut request, deadline).await?;
    let sealed: Vec<Vec<Bytes>> = request.settle.iter().map(receipts).collect();
    let mut places = Places::default();
    open_receipts(&queues.settle, &mut request.settle, &mut places)?;
    find_homes(&queues.send, &request.send, home, &mut places)?;
    let address = match places.first {
        Some((_, address)) => address,
        None => anywhere(queues.first(), request_id, home),
    };
    let shard = queues.shard_at(&address)?;
    let attempt = |channel: Arc<ShardChannel>| {
        let request = request.clone();
        async move { channel.queues().commit(request).await }
    };
    let (queue, _) = queues.first();
    let response = queue.call(shard, deadline, attempt).await?;
    for (((queue, _), receipts), part) in queues.settle.iter().zip(&sealed).zip(&response.settled) {
        settle::forget(queue, receipts, &part.results);
    }
    Ok(response)
}

/// Nothing was done, since a message belongs to another shard by now.
fn has_moved(response: &CommitResponse) -> bool {
    response.sent.iter().flat_map(|part| &part.results).any(send::is_refused_as_moved)
}

type Routed = (Arc<Queue>, Arc<Route>);

/// The queues of the parts, in their order.
struct Queues {
    settle: Vec<Routed>,
    send: Vec<Routed>,
}

impl Queues {
    /// Finds them, and names them in the request as brokers do.
    async fn of(router: &Router, request: &mut CommitRequest, deadline: Deadline) -> Result<Self, Status> {
        let mut queues = Self { settle: Vec::new(), send: Vec::new() };
        for part in &mut request.settle {
            queues.settle.push(routed(router, &mut part.queue, deadline).await?);
        }
        for part in &mut request.send {
            queues.send.push(routed(router, &mut part.queue, deadline).await?);
        }
        Ok(queues)
    }

    fn first(&self) -> &Routed {
        self.settle.iter().chain(&self.send).next().expect("a batch that was checked has an item")
    }

    /// The ordinal in the first queue of the shard that all of them must share.
    fn shard_at(&self, address: &str) -> Result<usize, Failure> {
        for (queue, route) in self.settle.iter().chain(&self.send) {
            if ordinal_of(route, address).is_none() {
                let name = queue.full_name();
                let message =
                    format!("queue {name} has no shard at {address}, where the rest of the Commit is");
                return Err(cross_shard(&message));
            }
        }
        let (_, route) = self.first();
        Ok(ordinal_of(route, address).expect("it was just found in every route"))
    }
}

async fn routed(router: &Router, name: &mut String, deadline: Deadline) -> Result<Routed, Status> {
    let queue = router.queue(name)?;
    queue.full_name().clone_into(name);
    let route = queue.route(deadline).await?;
    Ok((queue, route))
}

fn ordinal_of(route: &Route, address: &str) -> Option<usize> {
    route.shards.iter().position(|shard| shard.address() == address)
}

fn receipts(part: &SettleRequest) -> Vec<Bytes> {
    part.settlements.iter().map(|settlement| settlement.receipt.clone()).collect()
}

/// Where the items lie that are bound to a shard: all at the same address.
#[derive(Default)]
struct Places {
    /// An item that says so, and the address.
    first: Option<(String, String)>,
}

impl Places {
    fn add(&mut self, item: String, address: &str) -> Result<(), Failure> {
        match &self.first {
            None => self.first = Some((item, address.to_owned())),
            Some((_, first)) if first == address => {}
            Some((other, first)) => {
                return Err(cross_shard(&format!("{other} lies at {first} and {item} at {address}")));
            }
        }
        Ok(())
    }
}

fn cross_shard(what: &str) -> Failure {
    let help = "a Commit is one step of one shard: settle and send in calls of their own, or give the messages the \
                ordering_key of the message that is settled, or neither ordering_key nor dedup_id; nothing was done";
    Failure::new(Reason::CrossShard, format!("{what}; {help}"))
}

/// Gives the broker its own receipts, and notes whose they are.
fn open_receipts(queues: &[Routed], parts: &mut [SettleRequest], places: &mut Places) -> Result<(), Failure> {
    for (index, ((_, route), part)) in queues.iter().zip(parts).enumerate() {
        for (item, settlement) in part.settlements.iter_mut().enumerate() {
            let place = format!("settle[{index}].settlements[{item}]");
            let Receipt { shard, inner } = Receipt::open(&settlement.receipt, route.shards.len())
                .map_err(|failure| Failure { message: format!("{place}: {}", failure.message), ..failure })?;
            places.add(place, route.shards[usize::from(shard)].address())?;
            settlement.receipt = inner;
        }
    }
    Ok(())
}

fn find_homes(
    queues: &[Routed],
    parts: &[SendRequest],
    home: Home,
    places: &mut Places,
) -> Result<(), Failure> {
    for (index, ((_, route), part)) in queues.iter().zip(parts).enumerate() {
        for (item, message) in part.messages.iter().enumerate() {
            if let Some(shard) = send::home(message, route, home) {
                places.add(format!("send[{index}].messages[{item}]"), route.shards[shard].address())?;
            }
        }
    }
    Ok(())
}

/// For a Commit that is bound to no shard: as for a Send.
fn anywhere((_, route): &Routed, request_id: &str, home: Home) -> String {
    let shard = if request_id.is_empty() { route.least_loaded() } else { route.home(request_id, home) };
    route.shards[shard].address().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step over two shards could be done half; the refusal says what lies where, and what to do.
    #[test]
    fn items_of_two_shards_are_refused() {
        let mut places = Places::default();
        places.add("settle[0].settlements[0]".to_owned(), "a:1").unwrap();
        places.add("send[0].messages[0]".to_owned(), "a:1").unwrap();
        let refused = places.add("send[0].messages[1]".to_owned(), "b:1").unwrap_err();
        assert_eq!(refused.reason, Reason::CrossShard);
        let says =
            "settle[0].settlements[0] lies at a:1 and send[0].messages[1] at b:1; a Commit is one step";
        assert!(refused.message.starts_with(says), "{refused}");
    }
}
