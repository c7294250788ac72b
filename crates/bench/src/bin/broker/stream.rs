//! A consumer that acks whatever it gets, on the stream that it gets it from.

use std::sync::Arc;
use std::time::Duration;

use ackwell_bench::server::QUEUE;
use ackwell_proto::v1::consume_request::Frame as Said;
use ackwell_proto::v1::consume_response::Frame as Heard;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::settlement::Outcome;
use ackwell_proto::v1::{Ack, ConsumeRequest, Delivery, Open, SettleFrame, SettledFrame, Settlement, Window};
use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::Consumers;
use crate::load::Shared;

/// Frames on their way to the broker: more than deliveries in the window can lead to.
const FRAMES: usize = 16_384;
/// Between two looks at whether it is over, when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// A frame of deliveries may have the whole window's bodies.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Until everything is acked that was sent.
pub(crate) async fn consume(channel: Channel, shared: Arc<Shared>, how: Consumers) -> anyhow::Result<()> {
    let mut queues = QueuesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let (say, said) = mpsc::channel(FRAMES);
    let window = Window { max_messages: how.window, max_bytes: 0 };
    let open = Open { queue: QUEUE.to_owned(), window: Some(window), ..Open::default() };
    say.send(ConsumeRequest { frame: Some(Said::Open(open)) }).await.context("open the stream")?;
    let mut frames = queues.consume(ReceiverStream::new(said)).await.context("consume")?.into_inner();
    while !shared.is_done() {
        // Nothing may come any more once the producers are told to end.
        let Ok(heard) = timeout(LOOK, frames.message()).await else { continue };
        let frame = heard.context("consume")?.context("the broker ended the stream")?;
        match frame.frame.context("a frame says nothing")? {
            Heard::Opened(_) | Heard::Extended(_) => {}
            Heard::Deliveries(deliveries) => {
                shared.receive(deliveries.deliveries.iter().map(body))?;
                let mut acks: Vec<Settlement> = deliveries.deliveries.into_iter().map(ack).collect();
                while !acks.is_empty() {
                    let settlements = acks.drain(..acks.len().min(how.acked)).collect();
                    let settle = SettleFrame { seq: 0, settlements };
                    say.send(ConsumeRequest { frame: Some(Said::Settle(settle)) }).await.context("ack")?;
                }
            }
            Heard::Settled(settled) => check(&shared, &settled)?,
            Heard::Revoked(revoked) => {
                bail!("{} deliveries were revoked: {}", revoked.receipts.len(), revoked.reason)
            }
            Heard::GoAway(go_away) => bail!("the broker stops: {}", go_away.reason),
        }
    }
    Ok(())
}

fn check(shared: &Shared, settled: &SettledFrame) -> anyhow::Result<()> {
    let refused = settled.results.iter().find_map(|result| result.error.as_ref());
    ensure!(refused.is_none(), "an ack was refused: {refused:?}");
    shared.acked(settled.results.len());
    Ok(())
}

fn body(delivery: &Delivery) -> &[u8] {
    delivery.message.as_ref().map_or(&[], |message| &message.body)
}

fn ack(delivery: Delivery) -> Settlement {
    Settlement { receipt: delivery.receipt, outcome: Some(Outcome::Ack(Ack {})) }
}
