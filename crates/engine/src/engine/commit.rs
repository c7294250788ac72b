//! Commit: settling and sending in one step, all of it or nothing.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use super::Engine;
use super::send::{Room, Wanted};
use crate::command::{Commit, Committed, Outcome, Outgoing, Refusal, Reply, Sent, Settle, Settled};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Epoch, Location, QueueId};
use crate::receipt::Receipt;
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::time::Timestamp;

/// The messages for one queue, each looked at.
type Items = Vec<Result<Wanted, Refusal>>;
/// The receipts as they were found, before anything is done; in the order of the settlements.
type Ends = Vec<Vec<Result<Receipt, Refusal>>>;

impl Engine {
    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        commit: Commit,
        locations: Vec<Location>,
    ) -> Result<Reply, Refusal> {
        let Commit { settle, send, request_id } = commit;
        let key = MemoryKey::Request(QueueId::NONE, request_id.into());
        match self.recall(&key) {
            None => {}
            Some(Remembered::Committed(settled, sent)) => return Ok(committed(settled, sent)),
            Some(_) => return Err(Refusal::RequestIdReused),
        }
        let ends = self.look_at_ends(&settle)?;
        let outgoing = self.look_at_sends(now, (&settle, &ends), send, locations)?;
        if ends.iter().flatten().any(Result::is_err)
            || outgoing.iter().flat_map(|(_, items)| items).any(Result::is_err)
        {
            let items = outgoing.into_iter().map(|(_, items)| items).collect();
            return Ok(Reply::Committed(Committed { settled: refused(ends), sent: refused(items) }));
        }
        let settled = self.settle_all(now, &settle, &ends);
        let sent = self.send_all(now, outgoing);
        if !key.is_empty_request() {
            let what = Remembered::Committed(settled.clone(), sent.clone());
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), what);
        }
        Ok(committed(settled, sent))
    }

    fn look_at_ends(&self, settle: &[Settle]) -> Result<Ends, Refusal> {
        let mut seen = BTreeSet::new();
        let looked = settle.iter().map(|Settle { queue, settlements }| {
            self.settings(*queue)?;
            Ok(settlements.iter().map(|(receipt, _)| self.look_at_end(*queue, receipt, &mut seen)).collect())
        });
        looked.collect()
    }

    fn look_at_end(
        &self,
        queue: QueueId,
        receipt: &[u8],
        seen: &mut BTreeSet<Epoch>,
    ) -> Result<Receipt, Refusal> {
        let receipt = self.open_receipt(queue, receipt)?;
        if self.settled_before(receipt).is_some() {
            return Err(Refusal::AlreadySettled);
        }
        self.check_held(receipt)?;
        if seen.insert(receipt.epoch) { Ok(receipt) } else { Err(Refusal::AlreadySettled) }
    }

    fn look_at_sends(
        &self,
        now: Timestamp,
        (settle, ends): (&[Settle], &Ends),
        send: Vec<Outgoing>,
        locations: Vec<Location>,
    ) -> Result<Vec<(QueueId, Items)>, Refusal> {
        let mut rooms = BTreeMap::new();
        let mut locations = locations.into_iter();
        let looked = send.into_iter().map(|Outgoing { queue, messages }| {
            let room = match rooms.entry(queue) {
                Entry::Occupied(room) => room.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.room_after(queue, settle, ends)?),
            };
            let new = messages.into_iter().zip(&mut locations);
            let mut items =
                new.map(|(message, location)| Ok(Wanted::New(message, location))).collect::<Items>();
            self.admit(now, queue, &mut items, room);
            Ok((queue, items))
        });
        looked.collect()
    }

    /// What the queue has room for once the messages are gone which are acked in the same step.
    fn room_after(
        &self,
        queue: QueueId,
        settle: &[Settle],
        ends: &[Vec<Result<Receipt, Refusal>>],
    ) -> Result<Room, Refusal> {
        let mut room = self.room(queue)?.with_settlements();
        let held = settle.iter().zip(ends).flat_map(|(settle, ends)| held(settle, ends));
        let acked = held.filter(|(receipt, outcome)| receipt.queue == queue && **outcome == Outcome::Ack);
        acked.for_each(|(receipt, _)| room.give_back(self.row(receipt.seq).body_bytes));
        Ok(room)
    }

    fn settle_all(
        &mut self,
        now: Timestamp,
        settle: &[Settle],
        ends: &[Vec<Result<Receipt, Refusal>>],
    ) -> Vec<Vec<Settled>> {
        let calls = settle.iter().zip(ends);
        calls
            .map(|(settle, ends)| {
                held(settle, ends).map(|(receipt, outcome)| self.settle_held(now, receipt, outcome)).collect()
            })
            .collect()
    }

    fn send_all(&mut self, now: Timestamp, outgoing: Vec<(QueueId, Items)>) -> Vec<Vec<Sent>> {
        let calls = outgoing.into_iter();
        calls
            .map(|(queue, items)| {
                items.into_iter().flatten().map(|item| self.store_once(now, queue, item)).collect()
            })
            .collect()
    }
}

/// What is to be settled, with its receipt.
fn held<'a>(
    settle: &'a Settle,
    ends: &'a [Result<Receipt, Refusal>],
) -> impl Iterator<Item = (Receipt, &'a Outcome)> {
    let pairs = ends.iter().zip(&settle.settlements);
    pairs.filter_map(|(receipt, (_, outcome))| Some((receipt.clone().ok()?, outcome)))
}

fn committed(settled: Vec<Vec<Settled>>, sent: Vec<Vec<Sent>>) -> Reply {
    Reply::Committed(Committed { settled: all_ok(settled), sent: all_ok(sent) })
}

fn all_ok<T>(lists: Vec<Vec<T>>) -> Vec<Vec<Result<T, Refusal>>> {
    lists.into_iter().map(|list| list.into_iter().map(Ok).collect()).collect()
}

/// What would have been fine is refused for the others' sake.
fn refused<T, R>(looked: Vec<Vec<Result<T, Refusal>>>) -> Vec<Vec<Result<R, Refusal>>> {
    let refuse = |looked: Result<T, Refusal>| Err(looked.err().unwrap_or(Refusal::CommitRefused));
    looked.into_iter().map(|list| list.into_iter().map(refuse).collect()).collect()
}
