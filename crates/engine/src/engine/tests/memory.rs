//! The bounds of what is remembered.

use crate::command::Settled;
use crate::memory::{MAX_DEDUP_IDS, MAX_ITEMS, Memory, MemoryKey, OutcomeKind, Remembered};
use crate::message::{Epoch, MessageId, QueueId, Seq};
use crate::time::Timestamp;

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
    let request = |n: u64| MemoryKey::Request(QueueId(1), n.to_string());
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
    assert_eq!(memory.changes().collect::<Vec<_>>(), [(&key, None)]);
}
