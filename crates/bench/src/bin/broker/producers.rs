//! Who sends: calls of their own, one after the other or at a steady rate, each with a batch; or a stream of batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackwell_bench::clock::Stopwatch;
use ackwell_bench::server::QUEUE;
use ackwell_proto::v1::produce_request::Frame as Said;
use ackwell_proto::v1::produce_response::Frame as Heard;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{
    Message, ProduceBatch, ProduceConfirm, ProduceOpen, ProduceRequest, ProduceResponse, SendRequest,
};
use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::load::Shared;

/// Sends batches, one after the other, until it is over.
pub(crate) async fn send(channel: Channel, shared: Arc<Shared>, batch: u32) -> anyhow::Result<()> {
    let queues = QueuesClient::new(channel);
    while !shared.is_over.load(Ordering::Relaxed) {
        send_one(queues.clone(), &shared, batch).await?;
    }
    Ok(())
}

/// Sends so many batches a second until it is over. A slow answer keeps none back, so that what a pause costs is seen.
pub(crate) async fn send_steadily(
    channel: Channel,
    shared: Arc<Shared>,
    batch: u32,
    per_second: u32,
) -> anyhow::Result<()> {
    let queues = QueuesClient::new(channel);
    let mut due = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut calls = JoinSet::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        tokio::select! {
            _ = due.tick() => {
                let (queues, shared) = (queues.clone(), Arc::clone(&shared));
                calls.spawn(async move { send_one(queues, &shared, batch).await });
            }
            Some(ended) = calls.join_next() => ended??,
        }
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    Ok(())
}

async fn send_one(mut queues: QueuesClient<Channel>, shared: &Shared, batch: u32) -> anyhow::Result<()> {
    shared.room.acquire_many(batch).await.context("nobody closes it")?.forget();
    let messages = messages(shared, batch);
    let request = SendRequest { queue: QUEUE.to_owned(), messages, ..SendRequest::default() };
    let since = Stopwatch::start();
    let results = queues.send(request).await.context("send")?.into_inner().results;
    let stored = results.iter().filter(|result| result.error.is_none() && !result.duplicate).count();
    ensure!(stored == batch as usize, "{stored} of {batch} messages were stored: {results:?}");
    shared.confirm(batch, since.elapsed());
    Ok(())
}

/// The same on one stream, with so many batches that are not confirmed.
pub(crate) async fn produce(
    channel: Channel,
    shared: Arc<Shared>,
    batch: u32,
    outstanding: u32,
) -> anyhow::Result<()> {
    let (say, said) = mpsc::channel(outstanding as usize + 1);
    let open = ProduceOpen { queue: QUEUE.to_owned(), ..ProduceOpen::default() };
    say.send(ProduceRequest { frame: Some(Said::Open(open)) }).await.context("open the stream")?;
    let answer = QueuesClient::new(channel).produce(ReceiverStream::new(said)).await;
    let mut heard = answer.context("produce")?.into_inner();
    let mut stream = Unconfirmed { batch, since: VecDeque::new(), first: 1 };
    while !shared.is_over.load(Ordering::Relaxed) {
        if stream.since.len() == outstanding as usize {
            stream.hear(&mut heard, &shared).await?;
            continue;
        }
        tokio::select! {
            biased;
            room = shared.room.acquire_many(batch) => room.context("nobody closes it")?.forget(),
            heard = stream.hear(&mut heard, &shared) => { heard?; continue }
        }
        let seq = stream.begin();
        let messages = messages(&shared, batch);
        let frame = Some(Said::Batch(ProduceBatch { seq, messages }));
        say.send(ProduceRequest { frame }).await.context("produce")?;
    }
    while !stream.since.is_empty() {
        stream.hear(&mut heard, &shared).await?;
    }
    Ok(())
}

/// Batches on their way, since when each.
struct Unconfirmed {
    batch: u32,
    since: VecDeque<Stopwatch>,
    first: u64,
}

impl Unconfirmed {
    fn begin(&mut self) -> u64 {
        self.since.push_back(Stopwatch::start());
        self.first + self.since.len() as u64 - 1
    }

    async fn hear(&mut self, heard: &mut Streaming<ProduceResponse>, shared: &Shared) -> anyhow::Result<()> {
        let frame = heard.message().await.context("produce")?.context("the broker ended the stream")?;
        match frame.frame.context("a frame says nothing")? {
            Heard::Opened(_) | Heard::Window(_) => Ok(()),
            Heard::Confirm(confirm) => self.confirm(&confirm, shared),
            Heard::GoAway(go_away) => bail!("the broker stops: {}", go_away.reason),
        }
    }

    fn confirm(&mut self, confirm: &ProduceConfirm, shared: &Shared) -> anyhow::Result<()> {
        ensure!(confirm.results.is_empty(), "messages were refused: {:?}", confirm.results);
        while self.first <= confirm.through_seq {
            let since = self.since.pop_front().context("a batch was confirmed that was not sent")?;
            shared.confirm(self.batch, since.elapsed());
            self.first += 1;
        }
        Ok(())
    }
}

/// The next ones.
fn messages(shared: &Shared, batch: u32) -> Vec<Message> {
    let message = |body| Message { body, ..Message::default() };
    shared.bodies.of(shared.send(batch)).into_iter().map(message).collect()
}
