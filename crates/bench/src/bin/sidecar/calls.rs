//! What a sidecar adds to a call: the same one without it and with it, in turns, so that both see the same machine.

use std::time::Duration;

use ackwell_bench::body::Bodies;
use ackwell_bench::clock::Stopwatch;
use ackwell_bench::figures::Figures;
use ackwell_bench::latencies::Latencies;
use ackwell_bench::server::{QUEUE, Server};
use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{Message, SendRequest, StatsRequest};
use anyhow::{Context, ensure};
use bytes::Bytes;
use tonic::transport::Channel;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// Answered from memory: nothing but the way there and back.
    Stats,
    /// On disk before it is answered.
    Send,
}

/// Calls of one turn: long enough to be on the fast path, short enough for both sides to see the same machine.
const TURN: u32 = 100;
/// Calls of each side that are not counted.
const WARM_UP: u32 = 1000;
const BODY_BYTES: usize = 1024;

/// One way to the broker.
struct Way {
    queues: QueuesClient<Channel>,
    admin: QueueAdminClient<Channel>,
    body: Bytes,
    latencies: Latencies,
}

pub(crate) async fn measure(
    figures: Figures,
    broker: &Server,
    sidecar: &Server,
    call: Call,
    time: Duration,
) -> anyhow::Result<Figures> {
    let mut ways = [Way::to(broker).await?, Way::to(sidecar).await?];
    for way in &mut ways {
        way.take_turn(call, WARM_UP).await?;
        way.latencies = Latencies::default();
    }
    let (since, cpu) = (Stopwatch::start(), sidecar.observed().cpu_seconds()?);
    while since.elapsed() < time {
        for way in &mut ways {
            way.take_turn(call, TURN).await?;
        }
    }
    let cpu = sidecar.observed().cpu_seconds()? - cpu;
    let [direct, through] = ways.map(|way| way.latencies);
    let (near, far) = (direct.quantile_us(500), through.quantile_us(500));
    Ok(figures
        .with_latencies("direct_", &direct)
        .with_latencies("through_", &through)
        .with("added_p50_us", far - near)
        .with("ratio_p50", far / near)
        .with("sidecar_cpu_us", cpu * 1e6 / through.count_f64()))
}

impl Way {
    async fn to(server: &Server) -> anyhow::Result<Self> {
        let channel = server.connect().await?;
        let body = Bodies::new(BODY_BYTES).of(0..1).remove(0);
        let (queues, admin) = (QueuesClient::new(channel.clone()), QueueAdminClient::new(channel));
        Ok(Self { queues, admin, body, latencies: Latencies::default() })
    }

    async fn take_turn(&mut self, call: Call, count: u32) -> anyhow::Result<()> {
        for _ in 0..count {
            let since = Stopwatch::start();
            match call {
                Call::Stats => self.stats().await.context("stats")?,
                Call::Send => self.send().await.context("send")?,
            }
            self.latencies.record(since.elapsed());
        }
        Ok(())
    }

    async fn stats(&mut self) -> anyhow::Result<()> {
        self.admin.stats(StatsRequest { queue: QUEUE.to_owned(), interval: None }).await?;
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let message = Message { body: self.body.clone(), ..Message::default() };
        let request =
            SendRequest { queue: QUEUE.to_owned(), messages: vec![message], ..SendRequest::default() };
        let results = self.queues.send(request).await?.into_inner().results;
        ensure!(results.len() == 1 && results[0].error.is_none(), "not stored: {results:?}");
        Ok(())
    }
}
