//! All rows of a store with their indexes: what comes next, what is dead, what happens by itself, how many there are.
//!
//! Every change of a row goes through [`Messages::put`], [`Messages::change`] and [`Messages::remove`], so that indexes and counts cannot drift.

mod keys;
mod lanes;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dense::{Fetch, NumberSet, Page, PageNo, Pages, Timers, number_at};
use crate::message::{KeyId, QueueId, Row, Seq, Stage, State};
use crate::slots::{Slot, SlotSet};
use crate::time::Timestamp;
use keys::Keys;
pub(crate) use lanes::{Ageing, Turns};
use lanes::{Lanes, Place, Rank};
pub(crate) use summary::{Alike, Group, Slots, Stored, Summary};

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
    rows: Pages<Seq, Row>,
    by_queue: BTreeMap<QueueId, Index>,
    /// When holds end: one for each message in flight.
    holds: Timers<Seq>,
    /// When something happens to the others by itself.
    timers: Timers<Seq>,
}

/// A queue's share of the rows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) lanes: Lanes,
    pub(crate) keys: Keys,
    pub(crate) ready: NumberSet<Seq>,
    pub(crate) dead: NumberSet<Seq>,
    pub(crate) all: NumberSet<Seq>,
    pub(crate) counts: Counts,
    /// What is not eligible, whatever its state.
    pub(crate) held: Held,
}

/// Slots whose messages leave, or wait for others that come.
#[derive(Debug, Default)]
pub(crate) struct Held {
    slots: SlotSet,
    /// Their keys with messages that are not Dead.
    keys: BTreeSet<KeyId>,
}

impl Held {
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.slots.contains(slot)
    }

    /// Whether the slot is one of them and has messages that are not Dead.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.of(slot).next().is_some()
    }

    fn of(&self, slot: Slot) -> impl Iterator<Item = KeyId> {
        self.keys.range(KeyId::first_of(slot)..=KeyId::last_of(slot)).copied()
    }

    /// Forgets the keys of these slots.
    fn let_go(&mut self, slots: &SlotSet) -> BTreeSet<KeyId> {
        let keys: BTreeSet<KeyId> = slots.iter().flat_map(|slot| self.of(slot)).collect();
        keys.iter().for_each(|key| _ = self.keys.remove(key));
        keys
    }

    /// Keeps up with a key of a slot that waits.
    fn note(&mut self, key: KeyId, has_messages: bool) {
        if has_messages {
            self.keys.insert(key);
        } else {
            self.keys.remove(&key);
        }
    }
}

/// What of a row the indexes go by. Only the state and the timer are ever changed.
#[derive(Clone, Copy)]
struct Entry {
    queue: QueueId,
    state: State,
    place: Place,
    ordering: Option<KeyId>,
    bytes: u64,
    wake_at: Option<Timestamp>,
}

impl Entry {
    fn of(seq: Seq, row: &Row) -> Self {
        Self {
            queue: row.queue,
            state: row.state(),
            place: Place::of(seq, row),
            ordering: row.ordering,
            bytes: row.body_bytes,
            wake_at: wake_at(row),
        }
    }

    fn seq(&self) -> Seq {
        self.place.seq
    }

    fn timer(&self) -> Option<(State, Timestamp)> {
        self.wake_at.map(|at| (self.state, at))
    }
}

impl Index {
    /// Lists messages without a gap, all but the heads of ordering keys.
    fn list_run(&mut self, alike: &Alike, first: Seq, last: Seq) {
        self.all.insert_run(first, last);
        match alike.state {
            State::Ready => self.ready.insert_run(first, last),
            State::Dead => self.dead.insert_run(first, last),
            State::Delayed | State::InFlight => {}
        }
        match alike.ordering {
            Some(key) => {
                (first.0..=last.0).for_each(|seq| self.keys.insert(key, Seq(seq), alike.state));
            }
            None if alike.state == State::Ready => self.lanes.insert_run(alike.place(first), last),
            None => {}
        }
    }

    fn list(&mut self, entry: &Entry) {
        *self.counts.of(entry.state) += 1;
        self.counts.bytes += entry.bytes;
        match entry.state {
            State::Ready => _ = self.ready.insert(entry.seq()),
            State::Dead => _ = self.dead.insert(entry.seq()),
            State::Delayed | State::InFlight => {}
        }
        match entry.ordering {
            Some(key) => self.keys.insert(key, entry.seq(), entry.state),
            None if entry.state == State::Ready => self.lanes.insert(entry.place),
            None => {}
        }
    }

    fn unlist(&mut self, entry: &Entry) {
        *self.counts.of(entry.state) -= 1;
        self.counts.bytes -= entry.bytes;
        match entry.state {
            State::Ready => _ = self.ready.remove(entry.seq()),
            State::Dead => _ = self.dead.remove(entry.seq()),
            State::Delayed | State::InFlight => {}
        }
        match entry.ordering {
            Some(key) => self.keys.remove(key, entry.seq()),
            None if entry.state == State::Ready => self.lanes.remove(entry.place),
            None => {}
        }
    }
}

impl Messages {
    /// Of what [`Messages::freeze`] gave away once. No row is read before it is needed.
    pub(crate) fn load(pages: &[(PageNo, Summary)], fetch: Fetch<Row>) -> Self {
        let rows = Pages::stored(pages.iter().map(|(no, _)| *no), fetch);
        let mut messages = Self { rows, ..Self::default() };
        let groups =
            || pages.iter().flat_map(|(no, summary)| summary.groups.iter().map(|group| (*no, group)));
        groups().for_each(|(no, group)| messages.list_group(no, group));
        // Once all of a key are known, its first is.
        groups().for_each(|(no, group)| messages.list_heads(no, group));
        messages
    }

    fn list_group(&mut self, no: PageNo, group: &Group) {
        let Group { alike, bytes, slots } = group;
        let index = self.by_queue.entry(alike.queue).or_default();
        *index.counts.of(alike.state) += slots.len();
        index.counts.bytes += bytes;
        slots.runs().for_each(|(first, last)| {
            index.list_run(alike, number_at(no, first), number_at(no, last));
        });
        if let Some(at) = alike.wake_at {
            let timers = self.timers_of(alike.state);
            slots.iter().for_each(|slot| _ = timers.insert(at, number_at(no, slot)));
        }
    }

    /// Lists the messages of a group that are eligible as the first ones of their ordering key.
    fn list_heads(&mut self, no: PageNo, Group { alike, slots, .. }: &Group) {
        let (Some(key), State::Ready) = (alike.ordering, alike.state) else { return };
        let Some(index) = self.by_queue.get_mut(&alike.queue) else { return };
        for seq in slots.iter().map(|slot| number_at(no, slot)) {
            if index.keys.head(key) == (Some(seq), None) {
                index.lanes.insert(alike.place(seq));
            }
        }
    }

    /// The pages of rows that changed since the last time; `None` for those that are empty now. Takes a moment, however
    /// many rows there are.
    pub(crate) fn freeze(&mut self) -> Vec<(PageNo, Option<Arc<Page<Row>>>)> {
        self.rows.freeze()
    }

    /// How many pages of rows changed since the last freeze, about.
    pub(crate) fn changed_pages(&self) -> usize {
        self.rows.changed()
    }

    /// Keeps at most so many pages of rows in memory, as far as the others can be read again: those that the first
    /// `stored` freezes gave away.
    pub(crate) fn let_go(&mut self, max_pages: usize, stored: u64) {
        self.rows.let_go(max_pages, stored);
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Row> {
        self.rows.get(seq)
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
        let index = self.rows.get(seq).and_then(|row| self.index(row.queue));
        index.and_then(|index| index.lanes.coming(|seq| rank(&self.rows, ageing, seq))) == Some(seq)
    }

    /// How many messages with its fairness key come before it, counted up to `max`.
    pub(crate) fn ahead(&self, seq: Seq, ageing: Ageing, max: u64) -> u64 {
        let Some(row) = self.rows.get(seq) else { return 0 };
        let lanes = self.index(row.queue).map(|index| &index.lanes);
        lanes.map_or(0, |lanes| lanes.ahead(seq, row, |seq| rank(&self.rows, ageing, seq), max))
    }

    /// Whose turn it is, and who owes turns.
    pub(crate) fn turns(&self, queue: QueueId) -> Turns {
        self.index(queue).map(|index| index.lanes.turns()).unwrap_or_default()
    }

    /// As they were when [`Messages::turns`] was asked.
    pub(crate) fn restore_turns(&mut self, queue: QueueId, turns: Turns) {
        self.by_queue.entry(queue).or_default().lanes.restore(turns);
    }

    /// The round begins anew, with no debts.
    pub(crate) fn forget_turns(&mut self) {
        self.by_queue.values_mut().for_each(|index| index.lanes.restore(Turns::default()));
    }

    pub(crate) fn put(&mut self, seq: Seq, row: Row) {
        let entry = Entry::of(seq, &row);
        let eligible = self.eligible_of(entry.queue, entry.ordering);
        let before = self.rows.insert(seq, row).map(|before| Entry::of(seq, &before));
        self.note(before, Some(entry), eligible);
    }

    /// Changes the row of a message that an index named, in place: all but its queue, its keys, its priority and its size.
    pub(crate) fn change<R>(&mut self, seq: Seq, change: impl FnOnce(&mut Row) -> R) -> R {
        const STORED: &str = "indexes name only stored messages";
        let mut row = self.rows.get_mut(seq).expect(STORED);
        let before = Entry::of(seq, row);
        let mut eligible = None;
        if before.ordering.is_some() {
            eligible = self.eligible_of(before.queue, before.ordering);
            row = self.rows.get_mut(seq).expect(STORED);
        }
        let result = change(row);
        let after = Entry::of(seq, row);
        self.note(Some(before), Some(after), eligible);
        result
    }

    /// Changes the row of the message that comes next: with it, its fairness key has had its turn.
    pub(crate) fn take(&mut self, seq: Seq, change: impl FnOnce(&mut Row)) {
        let by_queue = &mut self.by_queue;
        let Some(row) = self.rows.get_mut(seq) else { return };
        if let Some(index) = by_queue.get_mut(&row.queue) {
            index.lanes.charge(row);
        }
        self.change(seq, change);
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Row> {
        let ordering = self.rows.get(seq)?.ordering;
        let eligible = ordering.and_then(|_| self.eligible_of(self.rows.get(seq)?.queue, ordering));
        let row = self.rows.remove(seq)?;
        self.note(Some(Entry::of(seq, &row)), None, eligible);
        Some(row)
    }

    /// Has messages with ordering keys of these slots, and of no others, wait. Takes a while where there are many keys.
    pub(crate) fn hold(&mut self, queue: QueueId, slots: SlotSet) {
        let index = self.by_queue.entry(queue).or_default();
        let [stops, goes_on] = [slots.without(&index.held.slots), index.held.slots.without(&slots)];
        let stopped = if stops.is_empty() { BTreeSet::new() } else { index.keys.of(&stops) };
        let going_on = index.held.let_go(&goes_on);
        index.held.slots = slots;
        index.held.keys.extend(&stopped);
        for key in self.in_stored_order(queue, going_on) {
            self.list_anew(queue, Some(key), None);
        }
        for key in self.in_stored_order(queue, stopped) {
            let listed = self.head_of(queue, key);
            self.list_anew(queue, Some(key), listed);
        }
    }

    /// By their first messages, so that rows which lie together are read together.
    fn in_stored_order(&self, queue: QueueId, keys: BTreeSet<KeyId>) -> Vec<KeyId> {
        let mut keys: Vec<KeyId> = keys.into_iter().collect();
        keys.sort_by_key(|key| (self.index(queue).and_then(|index| index.keys.head(*key).0), *key));
        keys
    }

    /// Forgets an empty queue.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        self.by_queue.remove(&queue);
    }

    /// Keeps the indexes up with a row that was added, changed or removed. `eligible` was that of its ordering key before.
    fn note(&mut self, before: Option<Entry>, after: Option<Entry>, eligible: Option<Place>) {
        let Some(entry) = after.or(before) else { return };
        let index = self.by_queue.entry(entry.queue).or_default();
        if before.map(|entry| entry.state) != after.map(|entry| entry.state) {
            before.iter().for_each(|entry| index.unlist(entry));
            after.iter().for_each(|entry| index.list(entry));
        }
        match (before, after) {
            (None, Some(_)) => _ = index.all.insert(entry.seq()),
            (Some(_), None) => _ = index.all.remove(entry.seq()),
            _ => {}
        }
        let [stopped, started] = [before, after].map(|entry| entry.and_then(|entry| entry.timer()));
        if stopped != started {
            stopped.into_iter().for_each(|(state, at)| _ = self.timers_of(state).remove(at, entry.seq()));
        }
        started.into_iter().for_each(|(state, at)| _ = self.timers_of(state).insert(at, entry.seq()));
        self.list_anew(entry.queue, entry.ordering, eligible);
    }

    /// The eligible message of an ordering key.
    fn eligible_of(&self, queue: QueueId, ordering: Option<KeyId>) -> Option<Place> {
        let (index, key) = (self.index(queue)?, ordering?);
        if index.held.contains(key.slot()) { None } else { self.head_of(queue, key) }
    }

    /// The message of an ordering key that is eligible unless its slot is held.
    fn head_of(&self, queue: QueueId, key: KeyId) -> Option<Place> {
        let (Some(head), None) = self.index(queue)?.keys.head(key) else { return None };
        let row = self.rows.get(head)?;
        (row.state() == State::Ready).then(|| Place::of(head, row))
    }

    /// The key's messages have changed, perhaps which of them is eligible. The new one is listed before the old one is
    /// taken out, since a fairness key that has nothing listed forgets its debt.
    fn list_anew(&mut self, queue: QueueId, ordering: Option<KeyId>, before: Option<Place>) {
        let Some(key) = ordering else { return };
        let after = self.eligible_of(queue, ordering);
        let Some(index) = self.by_queue.get_mut(&queue) else { return };
        if index.held.contains(key.slot()) {
            index.held.note(key, index.keys.has(key));
        }
        if before == after {
            return;
        }
        after.into_iter().for_each(|place| index.lanes.insert(place));
        before.into_iter().for_each(|place| index.lanes.remove(place));
    }

    /// Takes the next message whose time has come. The caller puts or removes its row, or it stays without a timer.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Seq> {
        let held_first = match (self.holds.first(), self.timers.first()) {
            (Some(held), Some(other)) => held < other,
            (held, _) => held.is_some(),
        };
        if held_first { self.holds.pop_due(now) } else { self.timers.pop_due(now) }
    }

    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        [self.holds.first(), self.timers.first()].into_iter().flatten().map(|(at, _)| at).min()
    }

    pub(crate) fn in_flight(&self) -> impl Iterator<Item = Seq> {
        self.holds.iter()
    }

    /// All rows, in stored order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Seq, Row)> {
        self.rows.iter()
    }

    fn timers_of(&mut self, state: State) -> &mut Timers<Seq> {
        if state == State::InFlight { &mut self.holds } else { &mut self.timers }
    }
}

fn rank(rows: &Pages<Seq, Row>, ageing: Ageing, seq: Seq) -> Rank {
    rows.get(seq).map_or(Rank::MAX, |row| ageing.rank(row.stored_at, row.priority))
}

/// When something happens to the message by itself. Held messages always have a time.
fn wake_at(row: &Row) -> Option<Timestamp> {
    match &row.stage {
        Stage::Ready => row.expires_at,
        Stage::Delayed { until } => Some(row.expires_at.map_or(*until, |expires| expires.min(*until))),
        Stage::InFlight(hold) => Some(hold.deadline),
        Stage::Dead { until, .. } => (*until < Timestamp::NEVER).then_some(*until),
    }
}
