//! All rows of a store with their indexes: what comes next, what is dead, what happens by itself, how many there are.
//!
//! Every change of a row goes through [`Messages::put`] and [`Messages::remove`], so that indexes and counts cannot drift.

mod keys;
mod lanes;

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{KeyId, QueueId, Row, Seq, Stage, State};
use crate::time::Timestamp;
use keys::Keys;
pub(crate) use lanes::Ageing;
use lanes::{Lanes, Rank};

/// Messages of a queue, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for a consumer.
    pub ready: u64,
    /// Waiting for a time.
    pub delayed: u64,
    /// Held.
    pub in_flight: u64,
    /// Given up on.
    pub dead: u64,
    /// Of all bodies.
    pub bytes: u64,
}

impl Counts {
    pub(crate) fn messages(&self) -> u64 {
        self.ready + self.delayed + self.in_flight + self.dead
    }

    pub(crate) fn add(&mut self, row: &Row) {
        *self.of(row.state()) += 1;
        self.bytes += row.body_bytes;
    }

    fn subtract(&mut self, row: &Row) {
        *self.of(row.state()) -= 1;
        self.bytes -= row.body_bytes;
    }

    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Ready => &mut self.ready,
            State::Delayed => &mut self.delayed,
            State::InFlight => &mut self.in_flight,
            State::Dead => &mut self.dead,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Messages {
    rows: BTreeMap<Seq, Row>,
    by_queue: BTreeMap<QueueId, Index>,
    timers: BTreeSet<(Timestamp, Seq)>,
    dirty: BTreeSet<Seq>,
}

/// A queue's share of the rows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) lanes: Lanes,
    pub(crate) keys: Keys,
    pub(crate) ready: BTreeSet<Seq>,
    pub(crate) dead: BTreeSet<Seq>,
    pub(crate) all: BTreeSet<Seq>,
    pub(crate) counts: Counts,
}

impl Messages {
    pub(crate) fn load(rows: Vec<(Seq, Row)>) -> Self {
        let mut messages = Self::default();
        for (seq, row) in rows {
            messages.put(seq, row);
        }
        messages.dirty.clear();
        messages
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Row> {
        self.rows.get(&seq)
    }

    pub(crate) fn index(&self, queue: QueueId) -> Option<&Index> {
        self.by_queue.get(&queue)
    }

    pub(crate) fn counts(&self, queue: QueueId) -> Counts {
        self.index(queue).map(|index| index.counts).unwrap_or_default()
    }

    /// How many messages could be handed out now, if nothing but their order mattered.
    pub(crate) fn eligible(&self, queue: QueueId) -> u64 {
        self.index(queue).map_or(0, |index| index.lanes.len())
    }

    /// The message that comes next. The same one until its row changes.
    pub(crate) fn next(&mut self, queue: QueueId, ageing: Ageing) -> Option<Seq> {
        let rows = &self.rows;
        self.by_queue.get_mut(&queue)?.lanes.next(|seq| rank(rows, ageing, seq))
    }

    /// Whether it is the message that comes next.
    pub(crate) fn is_next(&self, seq: Seq, ageing: Ageing) -> bool {
        let index = self.rows.get(&seq).and_then(|row| self.index(row.queue));
        index.and_then(|index| index.lanes.coming(|seq| rank(&self.rows, ageing, seq))) == Some(seq)
    }

    /// How many messages with its fairness key come before it, counted up to `max`.
    pub(crate) fn ahead(&self, seq: Seq, ageing: Ageing, max: u64) -> u64 {
        let row = &self.rows[&seq];
        let lanes = self.index(row.queue).map(|index| &index.lanes);
        lanes.map_or(0, |lanes| lanes.ahead(seq, row, |seq| rank(&self.rows, ageing, seq), max))
    }

    /// Its fairness key has had its turn with this message.
    pub(crate) fn charge(&mut self, seq: Seq) {
        let Some(row) = self.rows.get(&seq) else { return };
        if let Some(index) = self.by_queue.get_mut(&row.queue) {
            index.lanes.charge(row);
        }
    }

    pub(crate) fn put(&mut self, seq: Seq, row: Row) {
        let (queue, ordering) = (row.queue, row.ordering);
        self.retire(queue, ordering);
        self.take_out(seq);
        self.put_in(seq, row);
        self.promote(queue, ordering);
        self.dirty.insert(seq);
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Row> {
        let (queue, ordering) = self.rows.get(&seq).map(|row| (row.queue, row.ordering))?;
        self.retire(queue, ordering);
        let row = self.take_out(seq);
        self.promote(queue, ordering);
        self.dirty.insert(seq);
        row
    }

    /// Forgets an empty queue.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        self.by_queue.remove(&queue);
    }

    fn put_in(&mut self, seq: Seq, row: Row) {
        let index = self.by_queue.entry(row.queue).or_default();
        index.all.insert(seq);
        index.counts.add(&row);
        match row.stage {
            Stage::Ready => _ = index.ready.insert(seq),
            Stage::Dead { .. } => _ = index.dead.insert(seq),
            Stage::Delayed { .. } | Stage::InFlight(_) => {}
        }
        match row.ordering {
            Some(key) => index.keys.insert(key, seq, &row),
            None if row.state() == State::Ready => index.lanes.insert(seq, &row),
            None => {}
        }
        self.timers.extend(wake_at(&row).map(|at| (at, seq)));
        self.rows.insert(seq, row);
    }

    fn take_out(&mut self, seq: Seq) -> Option<Row> {
        let row = self.rows.remove(&seq)?;
        let index = self.by_queue.entry(row.queue).or_default();
        index.all.remove(&seq);
        index.counts.subtract(&row);
        match row.stage {
            Stage::Ready => _ = index.ready.remove(&seq),
            Stage::Dead { .. } => _ = index.dead.remove(&seq),
            Stage::Delayed { .. } | Stage::InFlight(_) => {}
        }
        match row.ordering {
            Some(key) => index.keys.remove(key, seq),
            None if row.state() == State::Ready => index.lanes.remove(seq, &row),
            None => {}
        }
        if let Some(at) = wake_at(&row) {
            self.timers.remove(&(at, seq));
        }
        Some(row)
    }

    /// Takes the eligible message of an ordering key out of its lane, before the key's messages change.
    fn retire(&mut self, queue: QueueId, ordering: Option<KeyId>) {
        self.with_eligible(queue, ordering, Lanes::remove);
    }

    /// Puts the eligible message of an ordering key into its lane.
    fn promote(&mut self, queue: QueueId, ordering: Option<KeyId>) {
        self.with_eligible(queue, ordering, Lanes::insert);
    }

    fn with_eligible(
        &mut self,
        queue: QueueId,
        ordering: Option<KeyId>,
        change: impl FnOnce(&mut Lanes, Seq, &Row),
    ) {
        let Some((key, index)) = ordering.zip(self.by_queue.get_mut(&queue)) else { return };
        let (Some(head), None) = index.keys.head(key) else { return };
        let row = &self.rows[&head];
        if row.state() == State::Ready {
            change(&mut index.lanes, head, row);
        }
    }

    /// Takes the next message whose time has come. The caller puts or removes its row, or it stays without a timer.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Seq> {
        let &(at, seq) = self.timers.first()?;
        (at <= now).then(|| {
            self.timers.pop_first();
            seq
        })
    }

    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (Seq, &Row)> {
        self.rows().filter(|(_, row)| row.hold().is_some())
    }

    /// All rows, in stored order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Seq, &Row)> {
        self.rows.iter().map(|(seq, row)| (*seq, row))
    }

    /// The changed rows; `None` for those that are gone.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Seq, Option<&Row>)> {
        self.dirty.iter().map(|seq| (*seq, self.rows.get(seq)))
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(crate) fn committed(&mut self) {
        self.dirty.clear();
    }
}

fn rank(rows: &BTreeMap<Seq, Row>, ageing: Ageing, seq: Seq) -> Rank {
    rows.get(&seq).map_or(Rank::MAX, |row| ageing.rank(row.stored_at, row.priority))
}

/// When something happens to the message by itself.
fn wake_at(row: &Row) -> Option<Timestamp> {
    match &row.stage {
        Stage::Ready => row.expires_at,
        Stage::Delayed { until } => Some(row.expires_at.map_or(*until, |expires| expires.min(*until))),
        Stage::InFlight(hold) => Some(hold.deadline),
        Stage::Dead { until, .. } => (*until < Timestamp::NEVER).then_some(*until),
    }
}
