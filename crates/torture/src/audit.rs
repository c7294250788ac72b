//! Compares a broker with the ledger of its callers.

use ackwell_client::{Client, Message, PeekRequest};
use anyhow::ensure;

use crate::broker::QUEUE;
use crate::ledger::Ledger;

const BODY_BYTES: u32 = 1 << 20;

/// Compares counts while others send and settle, so that they may lie anywhere between what was certain before the question
/// and what was possible after the answer.
pub(crate) async fn roughly(client: &Client, ledger: &Ledger) -> anyhow::Result<()> {
    let before = ledger.counts();
    let stored = stored(client).await?;
    let after = ledger.counts();
    let least = before.confirmed.saturating_sub(after.acks_tried);
    let most = after.tried.saturating_sub(before.acked);
    ensure!((least..=most).contains(&stored), "{stored} messages are stored, not {least} to {most}");
    Ok(())
}

/// Compares every message, while nobody sends or settles. How many there are.
pub(crate) async fn exactly(client: &Client, ledger: &Ledger) -> anyhow::Result<u64> {
    let all = all(client).await?;
    ledger.audit(&all)?;
    let stored = stored(client).await?;
    ensure!(stored == all.len() as u64, "the counts say {stored} messages, and {} are there", all.len());
    Ok(stored)
}

/// How many messages there are, as the counts say.
pub(crate) async fn stored(client: &Client) -> anyhow::Result<u64> {
    let stats = client.stats(QUEUE).await?;
    Ok(stats.ready + stats.delayed + stats.in_flight + stats.dead)
}

async fn all(client: &Client) -> anyhow::Result<Vec<Message>> {
    let mut all = Vec::new();
    let mut cursor = Vec::new();
    loop {
        let request = PeekRequest {
            queue: QUEUE.to_owned(),
            limit: 1000,
            cursor,
            body_bytes: BODY_BYTES,
            ..PeekRequest::default()
        };
        let page = client.peek(request).await?;
        all.extend(page.messages);
        cursor = page.cursor;
        if cursor.is_empty() {
            return Ok(all);
        }
    }
}
