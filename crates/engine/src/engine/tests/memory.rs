//! The bounds of what is remembered and kept.

use std::collections::BTreeMap;

use super::super::placement::AtHome;
use super::super::send::Room;
use super::story::check;
use crate::command::Settled;
use crate::memory::{FrozenMemory, MAX_DEDUP_IDS, MAX_ITEMS, Memory, MemoryKey, OutcomeKind, Remembered};
use crate::message::{Epoch, MessageId, Payload, QueueId, Seq};
use crate::messages::Counts;
use crate::time::Timestamp;
use crate::{Refusal, Settings};

const SETTLED: Remembered =
    Remembered::Settled(OutcomeKind::Ack, Settled { state: None, delayed_until: None });

/// Promise: memory is bounded; the oldest requests go first, settled deliveries and dedup ids stay.
#[test]
fn oldest_requests_make_room() {
    let mut memory = Memory::default();
    let id = MessageId::new(Timestamp(1), 1, Seq(1));
    let (delivery, dedup) =
        (MemoryKey::Delivery(QueueId(1), Epoch(1)), MemoryKey::Dedup(QueueId(1), "d".into()));
    memory.put(delivery.clone(), Timestamp(1), SETTLED);
    memory.put(dedup.clone(), Timestamp(1), Remembered::Stored(id));
    let request = |n: u64| MemoryKey::Request(QueueId(1), n.to_string().into());
    for n in 0..3 {
        let third = vec![(Seq(n), Epoch(n)); MAX_ITEMS / 3 + 1];
        memory.put(request(n), Timestamp(10 + n), Remembered::Received(third));
    }
    let known = [request(0), request(1), request(2), delivery, dedup]
        .map(|key| memory.get(&key, Timestamp(0)).is_some());
    assert_eq!(known, [false, true, true, true, true]);
    assert_eq!(memory.dedup_room(QueueId(1)), MAX_DEDUP_IDS - 1);
}

#[test]
fn entry_is_forgotten_at_its_end_even_before_it_is_swept() {
    let mut memory = Memory::default();
    let key = MemoryKey::Delivery(QueueId(1), Epoch(1));
    memory.put(key.clone(), Timestamp(10), SETTLED);
    assert!(memory.get(&key, Timestamp(9)).is_some());
    assert!(memory.get(&key, Timestamp(10)).is_none());
    memory.sweep(Timestamp(10), 5);
    assert_eq!(memory.entries().count(), 0);
}

/// Promise: a busy queue takes nothing of what another one is remembered by.
#[test]
fn oldest_requests_make_room_in_their_own_queue_only() {
    let mut memory = Memory::default();
    let key = |queue, n: usize| MemoryKey::Request(QueueId(queue), n.to_string().into());
    let full = || Remembered::Received(vec![(Seq(1), Epoch(1)); MAX_ITEMS]);
    memory.put(key(1, 0), Timestamp(10), full());
    memory.put(key(2, 0), Timestamp(11), full());
    memory.put(key(2, 1), Timestamp(12), full());
    let known = [key(1, 0), key(2, 0), key(2, 1)].map(|key| memory.get(&key, Timestamp(0)).is_some());
    assert_eq!(known, [true, false, true]);
}

/// Promise: settled deliveries are bounded too, the newest stay.
#[test]
fn oldest_settled_deliveries_make_room() {
    let mut memory = Memory::default();
    let key = |n: u64| MemoryKey::Delivery(QueueId(1), Epoch(n));
    (0..=MAX_ITEMS as u64).for_each(|n| memory.put(key(n), Timestamp(10 + n), SETTLED));
    let known = [key(0), key(1), key(MAX_ITEMS as u64)].map(|key| memory.get(&key, Timestamp(0)).is_some());
    assert_eq!(known, [false, true, true]);
}

/// Promise: nothing is remembered of a queue that is gone, and nothing else is forgotten with it.
#[test]
fn forgotten_queue_leaves_nothing() {
    let mut memory = Memory::default();
    let (mine, other) =
        (MemoryKey::Request(QueueId(1), "r".into()), MemoryKey::Request(QueueId(2), "r".into()));
    memory.put(mine.clone(), Timestamp(10), Remembered::Received(Vec::new()));
    memory.put(other.clone(), Timestamp(10), Remembered::Received(Vec::new()));
    memory.freeze();
    memory.forget(QueueId(1));
    assert_eq!(memory.entries().map(|(key, _)| key).collect::<Vec<_>>(), [other]);
    assert_eq!(memory.freeze().texts, [(mine, None)]);
}

/// Promise: what was frozen is what there is, and behaves in the same way when it is loaded.
#[test]
fn frozen_memory_is_the_memory() {
    let mut memory = Memory::default();
    let delivery = |n: u64| MemoryKey::Delivery(QueueId(1 + u32::from(n < 300)), Epoch(n));
    let request = |n: u64| MemoryKey::Request(QueueId(1), n.to_string().into());
    for n in 0..600 {
        memory.put(delivery(n), Timestamp(10 + n / 3), SETTLED);
        memory.put(request(n), Timestamp(10 + n), Remembered::Received(Vec::new()));
    }
    let (mut pages, mut texts) = (BTreeMap::new(), BTreeMap::new());
    for now in [0, 80, 140] {
        memory.sweep(Timestamp(now), 1000);
        let FrozenMemory { deliveries, texts: changed } = memory.freeze();
        pages.extend(deliveries);
        texts.extend(changed);
        let pages = pages.iter().filter_map(|(no, page)| Some((*no, page.clone()?)));
        let texts = texts
            .iter()
            .filter_map(|(key, entry): (&MemoryKey, &Option<_>)| Some((key.clone(), entry.clone()?)));
        let mut loaded = Memory::load(pages.collect(), texts.collect());
        assert!(loaded.entries().eq(memory.entries()));
        loaded.sweep(Timestamp(100), 1000);
        assert!(loaded.settled(QueueId(1), Epoch(268), Timestamp(0)).is_none());
        assert!(loaded.entries().all(|(_, entry)| entry.until > Timestamp(100)));
    }
    assert_eq!(memory.entries().count(), 600 - 131 * 3 + 600 - 131);
}

/// Promise: dedup ids are exact, so that one which cannot be remembered is refused rather than forgotten.
#[test]
fn dedup_id_without_room_is_refused() {
    let named = |dedup_id: &str| Payload { dedup_id: dedup_id.into(), ..Payload::default() };
    let (settings, x, y, none) = (Settings::default(), named("x"), named("y"), named(""));
    let mut room = Room::of(settings, Counts::default(), 1, AtHome::None);
    assert_eq!([room.take(&x), room.take(&x), room.take(&none)], [Ok(()), Ok(()), Ok(())]);
    assert!(matches!(room.take(&y), Err(Refusal::QueueFull { .. })));
}

/// Promise: of each message the newest 16 attempts are kept.
#[test]
fn history_keeps_the_newest_sixteen() {
    let failures: Vec<String> =
        (1..=18).map(|n| format!("receive 1 as=w\nnack a#{n} why=no{n} delay=0s\n")).collect();
    let newest: Vec<String> = (3..=18).rev().map(|n| format!("0s..0s nack no{n} w;")).collect();
    let (failures, newest) = (failures.concat(), newest.join(" "));
    check(&format!("set attempts=100\nsend a\n{failures}history a -> {newest}\npeek -> a:ready*18"));
}
