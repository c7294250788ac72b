//! Turns, debts and eligibility, against rules that count instead of keeping lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Ageing, UNIT_BYTES};
use crate::dense::{Page, PageNo};
use crate::message::{DeadReason, Epoch, Hold, KeyId, Location, Priority, QueueId, Row, Seq, Stage};
use crate::messages::{Messages, Summary};
use crate::time::Timestamp;

const QUEUE: QueueId = QueueId(1);
const AGEING: Ageing = Ageing { step_ms: 1000 };

/// A Ready message of a tenant.
fn row(tenant: u64, body_bytes: u64) -> Row {
    Row {
        queue: QUEUE,
        stored_at: Timestamp(0),
        stage: Stage::Ready,
        attempts: 0,
        deliveries: 0,
        history: Vec::new(),
        expires_at: None,
        max_attempts: None,
        body_bytes,
        priority: Priority::default(),
        ordering: None,
        fairness: Some(KeyId(tenant)),
        location: Location::NONE,
    }
}

fn stored(rows: impl IntoIterator<Item = Row>) -> Messages {
    let mut messages = Messages::default();
    (1..).map(Seq).zip(rows).for_each(|(seq, row)| messages.put(seq, row));
    messages
}

/// Hands the next message out, which was foreseen, and has it acked.
fn take(messages: &mut Messages) -> Option<Row> {
    let foreseen: Vec<Seq> =
        messages.rows().map(|(seq, _)| seq).filter(|seq| messages.is_next(*seq, AGEING)).collect();
    let seq = messages.next(QUEUE, AGEING)?;
    assert_eq!(foreseen, [seq]);
    messages.take(seq, |_| {});
    messages.remove(seq)
}

fn tenant(row: &Row) -> u64 {
    row.fairness.unwrap().0
}

proptest! {
    /// Promise: a quiet key is served within one round, whatever the backlog of the noisy ones: each of them comes before it
    /// at most once.
    #[test]
    fn quiet_key_is_served_within_one_round(
        backlog in vec((0u64..4, 0..40 * UNIT_BYTES), 1..60),
        taken_before in 0usize..60,
        quiet in 0u64..6,
    ) {
        let mut messages = stored(backlog.into_iter().map(|(tenant, bytes)| row(tenant * 2, bytes)));
        for _ in 0..taken_before {
            take(&mut messages);
        }
        messages.put(Seq(1000), row(quiet * 2 + 1, 1));
        let mut before = BTreeSet::new();
        while let Some(next) = take(&mut messages).filter(|row| tenant(row) != quiet * 2 + 1) {
            prop_assert!(before.insert(tenant(&next)), "a noisy key came twice");
        }
    }

    /// Promise: of two backlogged keys neither gets more than one message ahead of the other, counted in units of bytes.
    #[test]
    fn backlogged_keys_get_equal_shares(sizes in vec(0..40 * UNIT_BYTES, 200), largest in 1..40u64) {
        let bodies = sizes.iter().map(|bytes| bytes % (largest * UNIT_BYTES));
        let rows: Vec<Row> = bodies.enumerate().map(|(n, bytes)| row(u64::from(n < 100), bytes)).collect();
        let mut messages = stored(rows);
        let mut shares = [0; 2];
        let mut left = [100, 100];
        while left.iter().all(|left| *left > 1) {
            let next = take(&mut messages).unwrap();
            let tenant = usize::try_from(tenant(&next)).unwrap();
            shares[tenant] += 1 + next.body_bytes / UNIT_BYTES;
            left[tenant] -= 1;
            prop_assert!(shares[0].abs_diff(shares[1]) <= largest, "{shares:?}");
        }
    }

    /// Promise: eligible are exactly the Ready messages without an ordering key, and of each key the first that waits, if it
    /// is Ready and none of its key is in flight.
    #[test]
    fn eligible_is_what_the_rule_says(changes in vec((1u64..12, 0u8..5), 1..80)) {
        let mut messages = Messages::default();
        for (n, change) in changes {
            match stage(change) {
                Some(stage) if may_follow(&messages, Seq(n), &stage) => {
                    let ordering = (n % 3 > 0).then_some(KeyId(n % 3));
                    messages.put(Seq(n), Row { stage, ordering, ..row(n % 2, 1) });
                }
                Some(_) => {}
                None => _ = messages.remove(Seq(n)),
            }
            prop_assert_eq!(eligible(&messages), by_the_rule(&messages));
            let frozen = reloaded(&messages);
            prop_assert_eq!(eligible(&frozen), eligible(&messages));
            prop_assert_eq!(frozen.counts(QUEUE), messages.counts(QUEUE));
            prop_assert_eq!(frozen.next_timer(), messages.next_timer());
        }
    }
}

/// What a restart makes of them.
fn reloaded(messages: &Messages) -> Messages {
    let mut again = Messages::default();
    messages.rows().for_each(|(seq, row)| again.put(seq, row));
    let pages = again.freeze().into_iter().filter_map(|(no, page)| Some((no, page?)));
    let pages: BTreeMap<PageNo, Arc<Page<Row>>> = pages.collect();
    let summaries: Vec<_> = pages.iter().map(|(no, page)| (*no, Summary::of(page))).collect();
    Messages::load(&summaries, Arc::new(move |no| Arc::clone(&pages[&no])))
}

fn stage(change: u8) -> Option<Stage> {
    match change {
        0 => Some(Stage::Ready),
        1 => Some(Stage::Delayed { until: Timestamp(9) }),
        2 => Some(Stage::InFlight(Hold {
            epoch: Epoch(1),
            started: Timestamp(0),
            deadline: Timestamp(9),
            ack_timeout_ms: 9,
            consumer: "".into(),
            is_handed: true,
        })),
        3 => Some(Stage::Dead { reason: DeadReason::Rejected, since: Timestamp(0), until: Timestamp::NEVER }),
        _ => None,
    }
}

/// Only what is eligible is handed out.
fn may_follow(messages: &Messages, seq: Seq, stage: &Stage) -> bool {
    !matches!(stage, Stage::InFlight(_)) || eligible(messages).contains(&seq)
}

fn eligible(messages: &Messages) -> BTreeSet<Seq> {
    let Some(index) = messages.index(QUEUE) else { return BTreeSet::new() };
    let lanes = index.lanes.by_key.values().flat_map(|lane| &lane.by_priority);
    let eligible: BTreeSet<Seq> = lanes.flat_map(|(_, seqs)| seqs.iter()).collect();
    assert_eq!(index.lanes.len(), eligible.len() as u64);
    eligible
}

fn by_the_rule(messages: &Messages) -> BTreeSet<Seq> {
    let comes_first = |seq: Seq, row: &Row| {
        let mut others = messages.rows().filter(|(_, other)| other.ordering == row.ordering);
        !others.any(|(other, row)| match row.stage {
            Stage::InFlight(_) => true,
            Stage::Ready | Stage::Delayed { .. } => other < seq,
            Stage::Dead { .. } => false,
        })
    };
    let is_eligible =
        |seq, row: &Row| row.stage == Stage::Ready && (row.ordering.is_none() || comes_first(seq, row));
    messages.rows().filter(|(seq, row)| is_eligible(*seq, row)).map(|(seq, _)| seq).collect()
}

/// Promise: a message takes one turn, and one more for each whole unit of its body.
#[test]
fn debt_is_a_turn_per_unit() {
    for (bytes, turns) in [(0, 1), (1, 1), (UNIT_BYTES - 1, 1), (UNIT_BYTES, 2), (16 << 20, 257)] {
        let small = (0..300).map(|_| row(2, 1));
        let mut messages = stored([row(1, bytes), row(1, bytes)].into_iter().chain(small));
        assert_eq!(take(&mut messages).map(|row| tenant(&row)), Some(1));
        let between = std::iter::from_fn(|| take(&mut messages)).take_while(|row| tenant(row) == 2).count();
        assert_eq!(between, turns, "{bytes} bytes");
    }
}

/// Promise: what comes before a message is counted over all priorities of its fairness key, up to a bound.
#[test]
fn ahead_counts_its_own_key_by_rank() {
    let prio = |level, row| Row { priority: Priority::new(level).unwrap(), ..row };
    let rows = [row(1, 1), prio(9, row(1, 1)), prio(0, row(1, 1)), row(2, 1), row(1, 1)];
    let messages = stored(rows);
    assert!(messages.is_next(Seq(2), AGEING) && !messages.is_next(Seq(1), AGEING));
    let ahead = |n| messages.ahead(Seq(n), AGEING, 10);
    assert_eq!([1, 2, 3, 4, 5].map(ahead), [1, 0, 3, 0, 2]);
    assert_eq!(messages.ahead(Seq(3), AGEING, 2), 2);
}
