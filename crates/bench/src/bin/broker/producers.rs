//! Who sends: calls of their own, one after the other, each with a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ackwell_bench::clock::Stopwatch;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{Message, SendRequest};
use anyhow::{Context, ensure};
use tonic::transport::Channel;

use crate::load::Shared;
use crate::server::QUEUE;

/// Sends batches until it is over; with a bound, no more than so many messages are on their way.
pub(crate) async fn send(
    channel: Channel,
    shared: Arc<Shared>,
    batch: u32,
    bound: Option<usize>,
) -> anyhow::Result<()> {
    let mut queues = QueuesClient::new(channel);
    while !shared.is_over.load(Ordering::Relaxed) {
        if bound.is_some() {
            shared.room.acquire_many(batch).await.context("nobody closes it")?.forget();
        }
        let numbers = shared.send(batch);
        let message = |body| Message { body, ..Message::default() };
        let messages = shared.bodies.of(numbers).into_iter().map(message).collect();
        let request = SendRequest { queue: QUEUE.to_owned(), messages, ..SendRequest::default() };
        let since = Stopwatch::start();
        let results = queues.send(request).await.context("send")?.into_inner().results;
        let stored = results.iter().filter(|result| result.error.is_none() && !result.duplicate).count();
        ensure!(stored == batch as usize, "{stored} of {batch} messages were stored: {results:?}");
        shared.confirm(batch, since.elapsed());
    }
    Ok(())
}
