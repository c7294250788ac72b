//! Every row survives the round trip; every damaged or shortened one is refused, never misread.

use super::*;
use crate::command::{Sent, Settled};
use crate::memory::{Ended, Memorized, MemoryKey, OutcomeKind, Remembered};
use crate::message::{
    Attempt, AttemptOutcome, DeadReason, Epoch, Hold, KeyId, Location, MessageId, Priority, QueueId, Row,
    Seq, Stage, State,
};
use crate::messages::Summary;
use crate::moving::{Arrival, Departure, Moves, OnTheWay, Origin, Placement};
use crate::settings::Settings;
use crate::slots::Slot;
use crate::task::{Order, Record, TaskId, Tasks, Work};
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
        location: Location { segment: 3, offset: 4096, len: 60, crc: 0x0102_0304 },
    };
    let hold = Hold {
        epoch: Epoch(8),
        started: Timestamp(9),
        deadline: Timestamp(10),
        ack_timeout_ms: 11,
        consumer: "".into(),
        is_handed: true,
    };
    vec![
        row(Stage::Ready),
        row(Stage::Delayed { until: Timestamp(6) }),
        row(Stage::InFlight(hold)),
        row(Stage::Dead { reason: DeadReason::Corrupt, since: Timestamp(1), until: Timestamp(2) }),
    ]
}

/// From slot 3 on.
fn page<V>(values: Vec<V>) -> Page<V> {
    (3..).zip(values).collect()
}

fn endeds() -> Vec<Ended> {
    let settled = Settled { state: Some(State::Delayed), delayed_until: Some(Timestamp(4)) };
    let (queue, until) = (QueueId(7), Timestamp(6));
    vec![
        Ended { queue, until, kind: OutcomeKind::Nack, settled },
        Ended { queue, until, kind: OutcomeKind::Ack, settled: Settled { state: None, delayed_until: None } },
    ]
}

/// Promise: a page has every number once, in order.
#[test]
fn page_with_a_number_twice_is_refused() {
    let mut out = Writer::default();
    out.list(&endeds(), |out, ended| write_ended(out.u8(3), ended));
    assert!(decode_page(&out.seal(), read_ended).is_none());
}

fn queue_state() -> QueueState {
    let record = QueueRecord {
        name: "shop/orders".into(),
        generation: 3,
        settings: Settings::default(),
        is_paused: true,
        is_closed: false,
        moves: moves().into(),
        tasks: tasks().into(),
    };
    let turns = Turns { served: Some(KeyId(6)), debts: vec![(None, 2), (Some(KeyId(5)), 1)] };
    QueueState { record, turns }
}

fn moves() -> Moves {
    let slot = |number| Slot::new(number).unwrap();
    let on_the_way = OnTheWay { target: 1, transfer: 2, seqs: vec![Seq(4), Seq(3)] };
    Moves {
        placement: Placement { generation: 1, ordinal: 2, from: 3, to: 4 },
        arrivals: vec![Arrival {
            generation: 5,
            source: 6,
            salt: 7,
            first: Seq(8),
            at: Seq(9),
            places: 10,
            accepts: true,
            held: vec![slot(11), slot(4095)],
        }],
        received: [(12, 13), (14, 15)].into(),
        origins: vec![Origin { at: Seq(16), places: 17, salt: 18, first: Seq(19) }],
        departure: Departure {
            since: Timestamp(26),
            scanned: 20,
            end: 21,
            behind: [Seq(22), Seq(23)].into(),
            transfers: [(24, 25)].into(),
            on_the_way: Some(on_the_way),
        },
    }
}

fn tasks() -> Tasks {
    let id = |created: u64, uid: &str| TaskId { created: Timestamp(created), uid: uid.to_owned() };
    let order = Order {
        work: Work::Purge(vec![State::Ready, State::Dead]),
        stored_before: Some(Timestamp(27)),
        max_messages: 28,
        max_per_second: 29,
    };
    let record = Record {
        order: order.clone(),
        started: Timestamp(30),
        end: 31,
        scanned: 32,
        total: 33,
        processed: 34,
        failed: 35,
        second: Timestamp(36),
        in_second: 37,
        is_over: true,
    };
    let redrive = Order { work: Work::Redrive, stored_before: None, ..order };
    let other = Record { order: redrive, is_over: false, ..record.clone() };
    Tasks { known: [(id(38, "t1"), record), (id(38, "t2"), other)].into(), forgotten: Some(id(39, "t0")) }
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
    let decoded = decode_page(&encode_page(&page(rows()), write_row), read_row).unwrap();
    assert_eq!(
        decoded.iter().map(|(slot, row)| (slot, row.clone())).collect::<Vec<_>>(),
        (3..).zip(rows()).collect::<Vec<_>>()
    );
    let decoded = decode_page(&encode_page(&page(endeds()), write_ended), read_ended).unwrap();
    assert_eq!(format!("{decoded:?}"), format!("{:?}", page(endeds())));
    let summary = Summary::of(&page(rows()));
    assert_eq!(decode_summary(&encode_summary(&summary)), Some(summary));
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
fn queue_meta_and_position_survive_the_round_trip() {
    let queue = queue_state();
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
    let position = Position { segment: 1, offset: 2, lsn: 3, chain: 4 };
    assert_eq!(decode_position(&encode_position(&position)), Some(position));
}

/// Promise: a corrupt record is refused, never served.
#[test]
fn damaged_row_is_refused() {
    for row in rows() {
        let encoded = encode_page(&page(vec![row]), write_row);
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_page(&damaged, read_row).is_none(), "bit {bit}");
        }
        for len in 0..encoded.len() {
            assert!(decode_page(&encoded[..len], read_row).is_none(), "length {len}");
        }
    }
}

/// Promise: the document is true, and a changed layout does not go unnoticed. Whoever changes one raises `FORMAT`.
#[test]
fn examples_of_the_document_are_what_is_written() {
    let document = include_str!("../../../../../docs/storage-format.md");
    let queue = queue_state();
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
        ("applied", encode_position(&Position { segment: 1, offset: 4096, lsn: 9, chain: 0x0a0b_0c0d })),
        ("queues", encode_queue(&queue)),
        ("messages", encode_page(&page(vec![rows()[2].clone()]), write_row)),
        ("index", encode_summary(&Summary::of(&page(rows())))),
        ("deliveries", encode_page(&page(endeds()), write_ended)),
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
