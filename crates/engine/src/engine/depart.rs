//! The source's side of a move: which messages go, in pages that are fixed before they go and forgotten once they are there.

use std::collections::BTreeSet;

use super::Engine;
use super::peek::MAX_SCANNED;
use crate::command::{NewMessage, Refusal, Reply};
use crate::message::{DeadReason, Payload, QueueId, Row, Seq, Stage};
use crate::moving::{
    Depart, Departure, Forget, Leaving, OnTheWay, Placement, RememberedId, Source, Traveller,
};
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::slots::Slot;
use crate::store::{StoreError, catching};
use crate::time::Timestamp;

/// A page that is being chosen: for one target.
struct Choice {
    target: Option<u32>,
    seqs: Vec<Seq>,
    messages_left: usize,
    bytes_left: u64,
}

impl Choice {
    fn takes(&mut self, target: u32, seq: Seq, row: &Row) -> bool {
        let fits = row.body_bytes <= self.bytes_left || self.seqs.is_empty();
        if self.messages_left == 0 || !fits || self.target.is_some_and(|other| other != target) {
            return false;
        }
        self.target = Some(target);
        self.seqs.push(seq);
        self.messages_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(row.body_bytes);
        true
    }
}

impl Engine {
    /// What a shard with messages of others has to do; `None`: it has none, and was told of no move.
    pub fn leaving(&self, queue: QueueId) -> Option<Leaving> {
        let moves = self.moves(queue)?;
        let placement = moves.placement;
        let is_left = self.is_left(queue);
        let mut targets = placement.targets();
        // Of an earlier move that was broken off.
        let owed = moves.departure.on_the_way.as_ref().map(|page| page.target);
        targets.extend(owed.filter(|target| !targets.contains(target)));
        if placement.to == 0 || is_left && targets.is_empty() {
            return None;
        }
        let next = self.meta.next_seq;
        let first = self.messages.index(queue).and_then(|index| index.all.iter().next());
        let first = first.unwrap_or(Seq(next));
        let counted = if placement.drains() { self.messages.counts(queue).messages() } else { 0 };
        Some(Leaving {
            placement,
            source: Source::new(moves, self.meta.salt, first, next),
            targets,
            can_depart: self.can_depart(queue),
            remembers_until: self.remembers_until(queue),
            messages: counted.max(moves.departure.behind.len() as u64),
            is_left,
        })
    }

    /// Whether every message that leaves has left.
    fn is_left(&self, queue: QueueId) -> bool {
        let Some(Departure { behind, on_the_way, .. }) = self.moves(queue).map(|moves| &moves.departure)
        else {
            return true;
        };
        behind.is_empty() && on_the_way.is_none() && self.unscanned(queue).next().is_none()
    }

    fn can_depart(&self, queue: QueueId) -> bool {
        let Some(Departure { behind, on_the_way, .. }) = self.moves(queue).map(|moves| &moves.departure)
        else {
            return false;
        };
        let is_back = |seq: &Seq| self.messages.get(*seq).is_none_or(|row| row.hold().is_none());
        on_the_way.is_some() || behind.iter().any(is_back) || self.unscanned(queue).next().is_some()
    }

    /// Places where nobody looked yet for what leaves.
    fn unscanned(&self, queue: QueueId) -> impl Iterator<Item = Seq> {
        let moves = self.moves(queue);
        let Departure { scanned, end, .. } = moves.map_or(&NOTHING, |moves| &moves.departure);
        let end = if self.placement(queue).drains() { u64::MAX } else { *end };
        let all = self.messages.index(queue).into_iter();
        let start = Seq(scanned.saturating_add(1));
        all.flat_map(move |index| index.all.iter_from(start)).take_while(move |seq| seq.0 < end)
    }

    pub(super) fn depart(&mut self, depart: Depart) -> Result<Reply, Refusal> {
        let queue = depart.queue;
        self.settings(queue)?;
        if self.moves(queue).is_some_and(|moves| moves.departure.on_the_way.is_none()) {
            self.choose(depart);
        }
        let on_the_way = self.moves(queue).and_then(|moves| moves.departure.on_the_way.as_ref());
        Ok(Reply::Departing(on_the_way.map(OnTheWay::departing)))
    }

    /// Looks at those that were left behind before, then goes on where it stopped.
    fn choose(&mut self, depart: Depart) {
        let Depart { queue, max_messages, max_bytes } = depart;
        let mut choice =
            Choice { target: None, seqs: Vec::new(), messages_left: max_messages, bytes_left: max_bytes };
        let known = self.moves_mut(queue).map(|moves| std::mem::take(&mut moves.departure.behind));
        let mut behind = BTreeSet::new();
        known.into_iter().flatten().for_each(|seq| self.consider(seq, &mut choice, &mut behind));
        let unscanned: Vec<Seq> = self.unscanned(queue).take(MAX_SCANNED).collect();
        let mut scanned = None;
        for seq in unscanned {
            if choice.messages_left == 0 || choice.bytes_left == 0 {
                break;
            }
            self.consider(seq, &mut choice, &mut behind);
            scanned = Some(seq.0);
        }
        let Some(Departure { transfers, scanned: so_far, behind: left, on_the_way, .. }) =
            self.moves_mut(queue).map(|moves| &mut moves.departure)
        else {
            return;
        };
        *left = behind;
        *so_far = scanned.unwrap_or(*so_far);
        *on_the_way = choice.target.map(|target| {
            let transfer = transfers.get(&target).copied().unwrap_or(0) + 1;
            OnTheWay { target, transfer, seqs: choice.seqs }
        });
    }

    fn consider(&self, seq: Seq, choice: &mut Choice, behind: &mut BTreeSet<Seq>) {
        let Some(row) = self.messages.get(seq) else { return };
        let Some(target) = self.target(seq, row) else { return };
        if row.hold().is_some() || !choice.takes(target, seq, row) {
            behind.insert(seq);
        }
    }

    pub(super) fn forget(&mut self, forget: Forget) -> Result<Reply, Refusal> {
        let Forget { queue, target, transfer } = forget;
        self.settings(queue)?;
        let is_it = |page: &mut OnTheWay| page.target == target && page.transfer == transfer;
        let departure = self.moves_mut(queue).map(|moves| &mut moves.departure);
        let gone = departure.and_then(|departure| {
            let page = departure.on_the_way.take_if(is_it)?;
            departure.transfers.insert(target, transfer);
            Some(page)
        });
        for seq in gone.into_iter().flat_map(|page| page.seqs) {
            self.remove(seq);
        }
        Ok(Reply::Forgotten)
    }

    /// The page on its way, with its bodies.
    pub fn travellers(&self, queue: QueueId) -> Result<Vec<Traveller>, StoreError> {
        let page = self.moves(queue).and_then(|moves| moves.departure.on_the_way.as_ref());
        let seqs = page.map_or(&[][..], |page| &page.seqs);
        catching(|| seqs.iter().filter_map(|seq| self.traveller(*seq).transpose()).collect())
    }

    /// `None`: it is gone meanwhile, by its retention.
    pub(super) fn traveller(&self, seq: Seq) -> Result<Option<Traveller>, StoreError> {
        let Some(row) = self.messages.get(seq) else { return Ok(None) };
        let payload = self.store.payload(row.location)?;
        let stage = if payload.is_some() { row.stage.clone() } else { self.corrupt_stage(row) };
        Ok(Some(Traveller {
            place: seq,
            stored_at: row.stored_at,
            stage,
            attempts: row.attempts,
            deliveries: row.deliveries,
            history: row.history.clone(),
            expires_at: row.expires_at,
            message: NewMessage {
                payload: payload.unwrap_or_else(Payload::default),
                max_attempts: row.max_attempts,
                priority: row.priority,
                ..NewMessage::default()
            },
        }))
    }

    /// What cannot be read is never served: it goes as a Dead one, without its body.
    fn corrupt_stage(&self, row: &Row) -> Stage {
        let since = self.meta.clock;
        let until = self.settings(row.queue).map_or(Timestamp::NEVER, |settings| settings.dead_until(since));
        Stage::Dead { reason: DeadReason::Corrupt, since, until }
    }

    /// Slots that go to the target and of which there are messages here that are not Dead.
    pub fn waiting(&self, queue: QueueId, target: u32) -> Vec<Slot> {
        let Placement { to, .. } = self.placement(queue);
        let Some(index) = self.messages.index(queue).filter(|_| to > 0) else { return Vec::new() };
        Slot::all().filter(|slot| slot.shard(to) == target && index.held.has(*slot)).collect()
    }

    /// At most `limit` dedup ids behind `after`, by name.
    pub fn dedup_ids(&self, queue: QueueId, after: &str, limit: usize) -> Vec<RememberedId> {
        self.memory.dedup_ids(queue, after, self.meta.clock).take(limit).collect()
    }

    /// Names this store among those of a queue.
    pub fn salt(&self) -> u32 {
        self.meta.salt
    }

    /// Until when a repeated call may be one that was answered here: of all that was asked, or, if the shard stays, of what it
    /// was asked before it was told that slots go.
    fn remembers_until(&self, queue: QueueId) -> Timestamp {
        let since = self.moves(queue).map_or(Timestamp(0), |moves| moves.departure.since);
        let told = since.plus_ms(IDEMPOTENCY_WINDOW_MS);
        if self.placement(queue).drains() { self.memory.remembers_until(queue).unwrap_or(told) } else { told }
    }
}

static NOTHING: Departure = Departure::NONE;
