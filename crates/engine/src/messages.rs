//! All rows of a store with their indexes: what is ready, what is dead, what happens next, how many there are.
//!
//! Every change of a row goes through [`Messages::put`] and [`Messages::remove`], so that indexes and counts cannot drift.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{QueueId, Row, Seq, Stage, State};
use crate::time::Timestamp;

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

    pub(crate) fn put(&mut self, seq: Seq, row: Row) {
        self.remove(seq);
        let index = self.by_queue.entry(row.queue).or_default();
        index.all.insert(seq);
        *index.counts.of(row.state()) += 1;
        index.counts.bytes += row.body_bytes;
        match row.stage {
            Stage::Ready => _ = index.ready.insert(seq),
            Stage::Dead { .. } => _ = index.dead.insert(seq),
            Stage::Delayed { .. } | Stage::InFlight(_) => {}
        }
        self.timers.extend(wake_at(&row).map(|at| (at, seq)));
        self.rows.insert(seq, row);
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Row> {
        self.dirty.insert(seq);
        let row = self.rows.remove(&seq)?;
        let index = self.by_queue.entry(row.queue).or_default();
        index.all.remove(&seq);
        index.ready.remove(&seq);
        index.dead.remove(&seq);
        *index.counts.of(row.state()) -= 1;
        index.counts.bytes -= row.body_bytes;
        if let Some(at) = wake_at(&row) {
            self.timers.remove(&(at, seq));
        }
        Some(row)
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
        self.rows.iter().filter(|(_, row)| row.hold().is_some()).map(|(seq, row)| (*seq, row))
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

/// When something happens to the message by itself.
fn wake_at(row: &Row) -> Option<Timestamp> {
    match &row.stage {
        Stage::Ready => row.expires_at,
        Stage::Delayed { until } => Some(row.expires_at.map_or(*until, |expires| expires.min(*until))),
        Stage::InFlight(hold) => Some(hold.deadline),
        Stage::Dead { until, .. } => (*until < Timestamp::NEVER).then_some(*until),
    }
}
