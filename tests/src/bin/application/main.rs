//! An application of the chaos test: sends numbered messages, works on what it receives, and writes down what it is told. It uses
//! nothing but the generated stubs, and does what docs/delivery.md asks of a client.
//!
//! `application ADDRESS LEDGER INDEX SEED`: until SIGTERM, which it obeys as it should, or worse.

mod consumer;
mod sender;

use std::path::PathBuf;
use std::sync::Arc;

use ackwell_tests::caller::Caller;
use ackwell_tests::dice::Dice;
use ackwell_tests::ledger::Ledger;
use ackwell_tests::processes::QUEUE;
use anyhow::Context;
use consumer::Consumer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Calls of Send at a time.
const SENDERS: u64 = 8;
/// Streams at a time.
const CONSUMERS: u64 = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, ledger, index, seed] = &arguments[..] else {
        anyhow::bail!("application ADDRESS LEDGER INDEX SEED")
    };
    let caller = Caller::connect_lazy(address.parse().context("read the address")?, QUEUE);
    let ledger = Arc::new(Ledger::open(&PathBuf::from(ledger)).context("open the ledger")?);
    let (index, seed): (u64, u64) = (index.parse()?, seed.parse()?);
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let (stop, stopping) = watch::channel(false);
    let dice = |which: u64| Dice::new(seed ^ (index << 32) ^ which);
    for sender in 0..SENDERS {
        tokio::spawn(sender::send(
            caller.clone(),
            Arc::clone(&ledger),
            index * SENDERS + sender,
            dice(sender),
        ));
    }
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|consumer| {
            let consumer = Consumer::new(caller.clone(), Arc::clone(&ledger), dice(100 + consumer));
            tokio::spawn(consumer.run(stopping.clone()))
        })
        .collect();
    terminated.recv().await;
    stop.send_replace(true);
    for consumer in consumers {
        consumer.await?;
    }
    Ok(())
}
