//! Receive: handing messages out.

use super::Engine;
use crate::command::{Receive, Refusal};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Epoch, Hold, Row, Seq, Stage};
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::time::Timestamp;

impl Engine {
    pub(super) fn receive(&mut self, now: Timestamp, receive: Receive) -> Result<Vec<Seq>, Refusal> {
        let ack_timeout_ms = receive.ack_timeout_ms.unwrap_or(self.settings(receive.queue)?.ack_timeout_ms);
        let key = MemoryKey::Request(receive.queue, receive.request_id.clone());
        match self.memory.get(&key) {
            None => {}
            Some(Remembered::Received(held)) => {
                return Ok(self.hand_again(now, held.clone(), ack_timeout_ms));
            }
            Some(_) => return Err(Refusal::RequestIdReused),
        }
        let chosen = self.choose(&receive)?;
        let held: Vec<(Seq, Epoch)> = chosen
            .iter()
            .map(|seq| (*seq, self.hold(now, *seq, ack_timeout_ms, &receive.consumer)))
            .collect();
        if !receive.request_id.is_empty() && !held.is_empty() {
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Received(held));
        }
        Ok(chosen)
    }

    /// The oldest Ready messages that fit.
    fn choose(&self, receive: &Receive) -> Result<Vec<Seq>, Refusal> {
        let Some(index) = self.messages.index(receive.queue) else { return Ok(Vec::new()) };
        let room = self.settings(receive.queue)?.max_in_flight.saturating_sub(index.counts.in_flight);
        let max_messages = usize::try_from(room.min(u64::from(receive.max_messages))).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |seq: &&Seq| {
            let is_first = bytes == 0;
            bytes += self.row(**seq).body_bytes.max(1);
            is_first || bytes <= receive.max_bytes
        };
        Ok(index.ready.iter().take(max_messages).take_while(fits).copied().collect())
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
    fn hand_again(&mut self, now: Timestamp, held: Vec<(Seq, Epoch)>, ack_timeout_ms: u64) -> Vec<Seq> {
        let is_held = |(seq, epoch): &(Seq, Epoch)| {
            self.messages.get(*seq).and_then(Row::hold).is_some_and(|hold| hold.epoch == *epoch)
        };
        let held: Vec<Seq> = held.into_iter().filter(is_held).map(|(seq, _)| seq).collect();
        held.iter().for_each(|seq| _ = self.prolong(now, *seq, Some(ack_timeout_ms)));
        held
    }
}
