//! Every row survives the round trip; every damaged or shortened one is refused, never misread.

use bytes::Bytes;

use super::*;
use crate::command::{Sent, Settled};
use crate::memory::{Memorized, MemoryKey, OutcomeKind, Remembered};
use crate::message::{
    Attempt, AttemptOutcome, DeadReason, Epoch, Hold, KeyId, MessageId, Payload, Priority, QueueId, Row, Seq,
    Stage, State,
};
use crate::settings::Settings;
use crate::time::Timestamp;

fn rows() -> Vec<Row> {
    let row = |stage| Row {
        queue: QueueId(7),
        stored_at: Timestamp(1),
        stage,
        attempts: 2,
        deliveries: 3,
        history: vec![Attempt {
            started: Timestamp(4),
            ended: Timestamp(5),
            outcome: AttemptOutcome::ConsumerLost,
            reason: "gone".into(),
            consumer: "worker-é".into(),
        }],
        expires_at: Some(Timestamp(99)),
        max_attempts: None,
        body_bytes: 12,
        priority: Priority::default(),
        ordering: Some(KeyId(0x0102_0304)),
        fairness: None,
    };
    let hold = Hold {
        epoch: Epoch(8),
        started: Timestamp(9),
        deadline: Timestamp(10),
        ack_timeout_ms: 11,
        consumer: String::new(),
        is_handed: true,
    };
    vec![
        row(Stage::Ready),
        row(Stage::Delayed { until: Timestamp(6) }),
        row(Stage::InFlight(hold)),
        row(Stage::Dead { reason: DeadReason::Corrupt, since: Timestamp(1), until: Timestamp(2) }),
    ]
}

fn queue_record() -> QueueRecord {
    QueueRecord {
        name: "shop/orders".into(),
        generation: 3,
        settings: Settings::default(),
        is_paused: true,
        is_closed: false,
    }
}

fn memories() -> Vec<Memorized> {
    let id = MessageId::new(Timestamp(1), 2, Seq(3));
    let settled = Settled { state: Some(State::Dead), delayed_until: Some(Timestamp(4)) };
    let whats = [
        Remembered::Settled(OutcomeKind::Lost, settled),
        Remembered::Sent(vec![Some(Sent { id, duplicate: true }), None]),
        Remembered::Received(vec![(Seq(1), Epoch(2))]),
        Remembered::Stored(id),
        Remembered::Committed(vec![vec![settled], vec![]], vec![vec![Sent { id, duplicate: false }]]),
    ];
    whats.into_iter().map(|what| Memorized { until: Timestamp(5), what }).collect()
}

#[test]
fn rows_and_memories_survive_the_round_trip() {
    for row in rows() {
        assert_eq!(decode_row(&encode_row(&row)).as_ref(), Some(&row));
    }
    for entry in memories() {
        assert_eq!(decode_memorized(&encode_memorized(&entry)).as_ref(), Some(&entry));
    }
    for key in [
        MemoryKey::Delivery(QueueId(1), Epoch(1)),
        MemoryKey::Request(QueueId(1), "r".into()),
        MemoryKey::Dedup(QueueId(2), "d".into()),
    ] {
        assert_eq!(decode_memory_key(&encode_memory_key(&key)).as_ref(), Some(&key));
    }
}

#[test]
fn queue_meta_and_payload_survive_the_round_trip() {
    let queue = queue_record();
    assert_eq!(decode_queue(&encode_queue(&queue)), Some(queue));
    let meta = Meta {
        receipt_key: [1; 16],
        salt: 2,
        next_seq: 3,
        next_epoch: 4,
        next_queue: 6,
        clock: Timestamp(5),
    };
    assert_eq!(decode_meta(&encode_meta(&meta)), Some(meta));
    let payload = Payload {
        body: Bytes::from_static(b"\0\xff"),
        headers: vec![("k".into(), "v".into())],
        content_type: "text/plain".into(),
        dedup_id: String::new(),
        ordering_key: "o".into(),
        fairness_key: "f".into(),
    };
    assert_eq!(decode_payload(&encode_payload(&payload)), Some(payload));
}

/// Promise: a corrupt record is refused, never served.
#[test]
fn damaged_row_is_refused() {
    for row in rows() {
        let encoded = encode_row(&row);
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_row(&damaged), None, "bit {bit}");
        }
        for len in 0..encoded.len() {
            assert_eq!(decode_row(&encoded[..len]), None, "length {len}");
        }
    }
}

/// Promise: the document is true, and a changed layout does not go unnoticed. Whoever changes one raises `FORMAT`.
#[test]
fn examples_of_the_document_are_what_is_written() {
    let document = include_str!("../../../../../docs/storage-format.md");
    let queue = queue_record();
    let payload = Payload {
        body: Bytes::from_static(b"hello"),
        headers: vec![("k".into(), "v".into())],
        content_type: "text/plain".into(),
        dedup_id: "d1".into(),
        ordering_key: "customer-7".into(),
        fairness_key: String::new(),
    };
    let meta = Meta {
        receipt_key: [1; 16],
        salt: 2,
        next_seq: 3,
        next_epoch: 4,
        next_queue: 6,
        clock: Timestamp(5),
    };
    let examples = [
        ("meta", encode_meta(&meta)),
        ("queues", encode_queue(&queue)),
        ("messages", encode_row(&rows()[2])),
        ("payloads", encode_payload(&payload)),
        ("memory-key", encode_memory_key(&MemoryKey::Dedup(QueueId(2), "d1".into()))),
        ("memory", encode_memorized(&memories()[1])),
    ];
    for (table, bytes) in examples {
        let written = bytes.chunks(32).map(hex).collect::<Vec<_>>().join("\n");
        assert!(document.contains(&format!("```hex {table}\n{written}\n```")), "{table} is\n{written}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
