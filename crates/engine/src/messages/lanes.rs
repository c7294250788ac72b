//! Which eligible message of a queue comes next: fairness keys in turn, then priority, then stored order.
//!
//! A **lane** is what of one fairness key and one priority is eligible, in stored order. The keys take turns by deficit
//! round robin: large messages put their key into debt, and a key in debt is passed over until its debt is paid, a unit a
//! turn. So a key with little to do waits one round at most, whatever the backlog of another.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::dense::NumberSet;
use crate::message::{KeyId, Priority, Row, Seq};
use crate::time::Timestamp;

/// A message takes one turn, and one more for each of these. Most are smaller, and then turns are counted in messages; one of
/// 16 MiB takes 257.
const UNIT_BYTES: u64 = 64 << 10;

/// The eligible messages of one queue.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    by_key: BTreeMap<Option<KeyId>, Lane>,
    /// The key that was served last. Turns go by the order of the keys, which needs no list that a restart would lose.
    served: Option<KeyId>,
    len: u64,
}

/// Whose turn it is: all of the lanes that their messages do not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Turns {
    pub(crate) served: Option<KeyId>,
    pub(crate) debts: Vec<(Option<KeyId>, u64)>,
}

/// Where an eligible message is listed. Never changed by what happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: Seq,
    pub(super) fairness: Option<KeyId>,
    pub(super) priority: Priority,
}

impl Place {
    pub(super) fn of(seq: Seq, row: &Row) -> Self {
        Self { seq, fairness: row.fairness, priority: row.priority }
    }
}

/// One key's share.
#[derive(Debug, Default)]
struct Lane {
    /// Sorted by priority; none is empty. Nearly always one.
    by_priority: Vec<(Priority, NumberSet<Seq>)>,
    /// Turns to sit out.
    debt: u64,
}

/// Wide enough for any step, so that a very long one makes priorities strict.
pub(crate) type Rank = u128;

/// Priorities as head starts.
#[derive(Clone, Copy)]
pub(crate) struct Ageing {
    pub(crate) step_ms: u64,
}

impl Ageing {
    /// Lower comes first. Not changed by time: both of two messages age alike.
    pub(crate) fn rank(self, stored_at: Timestamp, priority: Priority) -> Rank {
        let behind = u128::from(Priority::MAX - priority.level());
        u128::from(stored_at.0) + u128::from(self.step_ms) * behind
    }
}

impl Lanes {
    /// How many messages are eligible.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many keys take turns.
    pub(crate) fn keys(&self) -> u64 {
        self.by_key.len() as u64
    }

    pub(super) fn insert(&mut self, place: Place) {
        self.insert_run(place, place.seq);
    }

    /// All from the place's message to another one, which share their keys and priority.
    pub(super) fn insert_run(&mut self, first: Place, last: Seq) {
        self.by_key.entry(first.fairness).or_default().insert_run(first, last);
        self.len += last.0 - first.seq.0 + 1;
    }

    pub(super) fn remove(&mut self, place: Place) {
        let Some(lane) = self.by_key.get_mut(&place.fairness) else { return };
        self.len -= u64::from(lane.remove(place));
        if lane.by_priority.is_empty() {
            self.by_key.remove(&place.fairness);
        }
    }

    /// The message whose turn it is. Turns that are passed over are paid for: each step of the loop pays a unit that a
    /// message taken before has cost.
    pub(crate) fn next(&mut self, rank: impl Fn(Seq) -> Rank) -> Option<Seq> {
        loop {
            let (key, lane) = self.after_served()?;
            if lane.debt == 0 {
                return lane.first(rank);
            }
            lane.debt -= 1;
            self.served = key;
        }
    }

    /// What [`Lanes::next`] will find, with nothing paid yet: of the smallest debts the first to come round.
    pub(crate) fn coming(&self, rank: impl Fn(Seq) -> Rank) -> Option<Seq> {
        let behind = self.by_key.range((Bound::Excluded(self.served), Bound::Unbounded));
        let round = behind.chain(self.by_key.range(..=self.served));
        let (_, lane) = round.min_by_key(|(_, lane)| lane.debt)?;
        lane.first(rank)
    }

    /// The message is being taken: its key has had its turn.
    pub(crate) fn charge(&mut self, row: &Row) {
        self.served = row.fairness;
        let debt = row.body_bytes / UNIT_BYTES;
        if debt > 0
            && let Some(lane) = self.by_key.get_mut(&row.fairness)
        {
            lane.debt += debt;
        }
    }

    /// How many of its fairness key come before it, counted up to `max`.
    pub(crate) fn ahead(&self, seq: Seq, row: &Row, rank: impl Fn(Seq) -> Rank, max: u64) -> u64 {
        let own = (rank(seq), seq);
        let lanes = self.by_key.get(&row.fairness).into_iter().flat_map(|lane| &lane.by_priority);
        let before = lanes.flat_map(|(_, seqs)| seqs.iter().take_while(|seq| (rank(*seq), *seq) < own));
        before.take(usize::try_from(max).unwrap_or(usize::MAX)).count() as u64
    }

    pub(super) fn turns(&self) -> Turns {
        let in_debt = self.by_key.iter().filter(|(_, lane)| lane.debt > 0);
        Turns { served: self.served, debts: in_debt.map(|(key, lane)| (*key, lane.debt)).collect() }
    }

    pub(super) fn restore(&mut self, turns: Turns) {
        self.served = turns.served;
        self.by_key.values_mut().for_each(|lane| lane.debt = 0);
        for (key, debt) in turns.debts {
            if let Some(lane) = self.by_key.get_mut(&key) {
                lane.debt = debt;
            }
        }
    }

    fn after_served(&mut self) -> Option<(Option<KeyId>, &mut Lane)> {
        let (last, _) = self.by_key.last_key_value()?;
        let is_over = *last <= self.served;
        let round = if is_over { Bound::Unbounded } else { Bound::Excluded(self.served) };
        let next = self.by_key.range_mut((round, Bound::Unbounded)).next();
        next.map(|(key, lane)| (*key, lane))
    }
}

impl Lane {
    fn insert_run(&mut self, place: Place, last: Seq) {
        let at = match self.find(place.priority) {
            Ok(at) => at,
            Err(at) => {
                self.by_priority.reserve_exact(1);
                self.by_priority.insert(at, (place.priority, NumberSet::default()));
                at
            }
        };
        self.by_priority[at].1.insert_run(place.seq, last);
    }

    fn remove(&mut self, place: Place) -> bool {
        let Ok(at) = self.find(place.priority) else { return false };
        let (_, seqs) = &mut self.by_priority[at];
        let was_there = seqs.remove(place.seq);
        if seqs.is_empty() {
            self.by_priority.remove(at);
        }
        was_there
    }

    fn find(&self, priority: Priority) -> Result<usize, usize> {
        self.by_priority.binary_search_by_key(&priority, |(priority, _)| *priority)
    }

    fn first(&self, rank: impl Fn(Seq) -> Rank) -> Option<Seq> {
        if let [(_, only)] = self.by_priority.as_slice() {
            return only.first();
        }
        let heads = self.by_priority.iter().filter_map(|(_, seqs)| seqs.first());
        heads.min_by_key(|seq| (rank(*seq), *seq))
    }
}

#[cfg(test)]
mod tests;
