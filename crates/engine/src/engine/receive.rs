//! Receive: handing messages out.

use super::Engine;
use crate::command::{Oversized, Receive, Refusal};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Epoch, Hold, Row, Seq, Stage};
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::time::Timestamp;

/// What a reply will consist of, once it is on disk.
type Handed = Vec<(Seq, Epoch)>;

impl Engine {
    pub(super) fn receive(&mut self, now: Timestamp, receive: &Receive) -> Result<Handed, Refusal> {
        let ack_timeout_ms = receive.ack_timeout_ms.unwrap_or(self.settings(receive.queue)?.ack_timeout_ms);
        let key = MemoryKey::Request(receive.queue, receive.request_id.clone());
        match self.recall(&key) {
            None => {}
            Some(Remembered::Received(held)) => {
                return Ok(self.hand_again(now, held.clone(), ack_timeout_ms));
            }
            Some(_) => return Err(Refusal::RequestIdReused),
        }
        let chosen = self.choose(now, receive)?;
        let held: Handed = chosen
            .into_iter()
            .map(|seq| (seq, self.hold(now, seq, ack_timeout_ms, &receive.consumer)))
            .collect();
        if !receive.request_id.is_empty() && !held.is_empty() {
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Received(held.clone()));
        }
        Ok(held)
    }

    /// The oldest Ready messages that fit.
    fn choose(&self, now: Timestamp, receive: &Receive) -> Result<Vec<Seq>, Refusal> {
        let Some(index) = self.messages.index(receive.queue) else { return Ok(Vec::new()) };
        let room = self.settings(receive.queue)?.max_in_flight.saturating_sub(index.counts.in_flight);
        let max_messages = usize::try_from(room.min(u64::from(receive.max_messages))).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut chosen = Vec::new();
        for seq in index.ready.iter().copied() {
            let row = self.row(seq);
            bytes += row.body_bytes;
            let comes_alone = chosen.is_empty() && receive.oversized == Oversized::Comes;
            let fits = comes_alone || bytes <= receive.max_bytes;
            if chosen.len() == max_messages || !fits {
                break;
            }
            // A sweep that did not get as far yet must not let an expired message out.
            if row.expires_at.is_none_or(|expires_at| expires_at > now) {
                chosen.push(seq);
            } else {
                bytes -= row.body_bytes;
            }
        }
        Ok(chosen)
    }

    fn hold(&mut self, now: Timestamp, seq: Seq, ack_timeout_ms: u64, consumer: &str) -> Epoch {
        let epoch = Epoch(self.meta.next_epoch);
        self.meta.next_epoch += 1;
        let deadline = now.plus_ms(ack_timeout_ms);
        let hold = Hold { epoch, started: now, deadline, ack_timeout_ms, consumer: consumer.to_owned() };
        let row = self.row(seq).clone();
        let deliveries = row.deliveries.saturating_add(1);
        self.messages.put(seq, Row { stage: Stage::InFlight(hold), deliveries, ..row });
        epoch
    }

    /// The same call again: what of it is still held, with its time starting anew.
    fn hand_again(&mut self, now: Timestamp, mut held: Handed, ack_timeout_ms: u64) -> Handed {
        held.retain(|(seq, epoch)| self.is_held(*seq, *epoch));
        held.iter().for_each(|(seq, _)| _ = self.prolong(now, *seq, Some(ack_timeout_ms)));
        held
    }
}
