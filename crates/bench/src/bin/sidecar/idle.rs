//! What a process takes while its applications wait for messages that do not come.

use std::time::Duration;

use ackwell_bench::clock::Stopwatch;
use ackwell_bench::figures::Figures;
use ackwell_bench::server::{QUEUE, Server};
use ackwell_proto::v1::consume_request::Frame;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{ConsumeRequest, ConsumeResponse, Open};
use anyhow::Context;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Sidecar,
    Broker,
}

/// Of one connection: an application has one, with a stream or a few; sidecars have one stream for each consumer.
const STREAMS_PER_CONNECTION: usize = 250;
/// What began with the streams has ended.
const SETTLED: Duration = Duration::from_secs(3);

/// A consumer that waits.
struct Consumer {
    _say: mpsc::Sender<ConsumeRequest>,
    _heard: Streaming<ConsumeResponse>,
}

pub(crate) async fn measure(
    figures: Figures,
    server: &Server,
    streams: usize,
    time: Duration,
) -> anyhow::Result<Figures> {
    let process = server.observed();
    tokio::time::sleep(SETTLED).await;
    let before = process.own_mib()?;
    let consumers = open(server, streams).await?;
    tokio::time::sleep(SETTLED).await;
    let (since, cpu) = (Stopwatch::start(), process.cpu_seconds()?);
    tokio::time::sleep(time).await;
    let millicores = (process.cpu_seconds()? - cpu) / since.elapsed().as_secs_f64() * 1000.0;
    let (rss, own) = (process.rss_mib()?, process.own_mib()?);
    drop(consumers);
    let figures = figures.with("rss_mib", rss).with("own_mib", own).with("millicores", millicores);
    let Ok(count @ 1..) = u32::try_from(streams) else { return Ok(figures) };
    Ok(figures.with("kib_per_stream", (own - before) * 1024.0 / f64::from(count)))
}

async fn open(server: &Server, streams: usize) -> anyhow::Result<Vec<Consumer>> {
    let mut consumers = Vec::new();
    while consumers.len() < streams {
        let channel = server.connect().await?;
        for _ in 0..STREAMS_PER_CONNECTION.min(streams - consumers.len()) {
            consumers.push(Consumer::open(QueuesClient::new(channel.clone())).await?);
        }
    }
    Ok(consumers)
}

impl Consumer {
    async fn open(mut queues: QueuesClient<tonic::transport::Channel>) -> anyhow::Result<Self> {
        let (say, said) = mpsc::channel(1);
        let open = Open { queue: QUEUE.to_owned(), ..Open::default() };
        say.send(ConsumeRequest { frame: Some(Frame::Open(open)) }).await.context("open the stream")?;
        let mut heard = queues.consume(ReceiverStream::new(said)).await.context("consume")?.into_inner();
        heard.message().await.context("consume")?.context("the stream ended")?;
        Ok(Self { _say: say, _heard: heard })
    }
}
