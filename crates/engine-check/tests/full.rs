//! A volume without room: what makes room still works, and nothing is lost.

use std::sync::Arc;

use ackwell_engine::command::{
    Batch, Configure, Handover, NewMessage, Outcome, Oversized, Receive, Send, Settle,
};
use ackwell_engine::message::{Payload, QueueId};
use ackwell_engine::store::disk::Disk;
use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Command, Engine, Reply, Settings, Store, StoreError, Timestamp};
use ackwell_engine_check::disk::{Faults, SimDisk};
use bytes::Bytes;

const SEGMENT: u64 = 16 << 10;
const OPTIONS: Options = Options {
    segment_bytes: SEGMENT,
    checkpoint_bytes: SEGMENT,
    max_rows: 1000,
    reserve_bytes: 8 * SEGMENT,
    threads: Threads::One,
};
const NO_RESERVE: Options = Options { reserve_bytes: 0, ..OPTIONS };
const NOW: Timestamp = Timestamp(1000);
const ROOM: u64 = 2 << 20;
const BODY: usize = 1000;

/// Promise: on a full volume everything can be received and acked without opening the store anew, that makes room, and then
/// messages are stored again, with a reserve as before.
#[test]
fn full_volume_is_drained_and_filled_again() {
    let disk = small_disk();
    let (mut engine, queue) = opened(&disk, OPTIONS);
    assert!(disk.content("reserve").is_ok(), "it is made when there is room");
    fill(&mut engine, queue, ROOM / 10);
    let sent = engine.stats(queue).counts.ready;
    fill_from_outside(&disk);
    while drain(&mut engine, queue, 7).expect("acks are taken") > 0 {}
    assert_eq!(engine.stats(queue).counts.ready, 0);
    give_room(&disk);
    fill(&mut engine, queue, ROOM / 10);
    let again = engine.stats(queue).counts.ready;
    assert!(again * 10 > sent * 9, "{again} messages, not {sent}: all room is back");
    while drain(&mut engine, queue, 50).expect("acks are taken") > 0 {}
    assert!(disk.content("reserve").is_ok(), "it is made again");
}

/// Promise: acks on a volume that is short of room, less than a fifth of it free, make some, though they fill too little of the
/// log to make a checkpoint due.
#[test]
fn acks_on_a_nearly_full_volume_make_room() {
    let disk = small_disk();
    let (mut engine, queue) =
        opened(&disk, Options { checkpoint_bytes: ROOM / 4, max_rows: 100_000, ..NO_RESERVE });
    fill(&mut engine, queue, ROOM / 10);
    while drain(&mut engine, queue, 100).expect("there is room") > 0 {}
    let free_bytes = engine.space().expect("nothing is wrong with this disk").free_bytes;
    assert!(free_bytes > ROOM / 5, "{free_bytes} of {ROOM} are free");
}

/// Promise: messages that find no room are as if they had never been sent; what needs less goes on.
#[test]
fn batch_without_room_changes_nothing() {
    let disk = small_disk();
    let (mut engine, queue) = opened(&disk, NO_RESERVE);
    fill(&mut engine, queue, ROOM / 2);
    fill_from_outside(&disk);
    let before = engine.digest();
    let full =
        (0..100).find_map(|_| engine.apply(NOW, vec![send(queue, 5 * BODY)]).err()).expect("it is full");
    assert!(matches!(full, StoreError::Full(_)) && full.is_disk_full(), "{full:?}");
    assert_ne!(engine.digest(), before, "what fitted into the segment was stored");
    let before = engine.digest();
    engine.apply(NOW, vec![send(queue, 20 * BODY)]).expect_err("it is full");
    assert_eq!(engine.digest(), before);
    drop(engine);
    let (engine, _) = opened(&disk, NO_RESERVE);
    assert_eq!(engine.digest(), before, "and after a restart");
}

/// Promise: a batch with a new queue is either done, or refused and as if it had never been asked for, though there is no room for
/// the checkpoint that a new queue brings about.
#[test]
fn new_queue_without_room_is_made_or_refused() {
    let disk = small_disk();
    let (mut engine, queue) = opened(&disk, NO_RESERVE);
    // There is room in the log's segment, and none for the state to grow.
    fill_from_outside(&disk);
    let (mut made, mut refused) = (0, 0);
    for no in 0..100 {
        let before = engine.digest();
        match engine.apply(NOW, vec![configure(&format!("shop/new-{no}")), send(queue, BODY)]) {
            Ok(_) => made += 1,
            Err(StoreError::Full(_)) => {
                refused += 1;
                assert_eq!(engine.digest(), before, "what was refused is not done");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused: this test needs both");
}

/// Promise: what is stored on a full volume is there after a restart, where an earlier process left a segment that is too short for
/// a record which then finds no room.
#[test]
fn segment_that_cannot_grow_is_kept() {
    let disk = small_disk();
    let earlier = disk.create("0000000000000002.log").expect("there is room");
    earlier.write_at(0, &vec![0; 20 << 10]).and_then(|()| earlier.sync()).expect("there is room");
    let (mut engine, queue) = opened(&disk, NO_RESERVE);
    fill_from_outside(&disk);
    engine.apply(NOW, vec![send(queue, 10 * BODY)]).expect("it fits into the first segment");
    let full = engine.apply(NOW, vec![send(queue, 30 * BODY)]).expect_err("it fits into neither");
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    engine.apply(NOW, vec![send(queue, 11 * BODY)]).expect("it fits into the second segment");
    drop(engine);
    let (mut engine, queue) = opened(&disk.crash(1), NO_RESERVE);
    assert!(engine.log_damage().is_empty(), "{:?}", engine.log_damage());
    assert_eq!(drain(&mut engine, queue, 10).expect("acks are taken"), 2);
}

/// Promise: a checkpoint without room neither ends the store nor loses anything; it is written once there is room.
#[test]
fn checkpoint_without_room_is_written_later() {
    let disk = small_disk();
    let (mut engine, queue) = opened(&disk, NO_RESERVE);
    fill(&mut engine, queue, ROOM / 2);
    // So many checkpoints would be due that each would need room.
    fill_from_outside(&disk);
    let mut full = 0;
    for round in 0..200 {
        match drain(&mut engine, queue, 1 + round % 3) {
            Ok(_) => {}
            Err(StoreError::Full(_)) => full += 1,
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(engine.stats(queue).counts, engine.recount(queue));
    }
    assert!(full > 0, "this test needs a fuller volume");
    let (before, segments) = (engine.digest(), segments(&disk));
    let (reopened, _) = opened(&disk.crash(3), NO_RESERVE);
    assert_eq!(reopened.digest(), before, "what was answered is durable");
    give_room(&disk);
    while drain(&mut engine, queue, 50).expect("there is room") > 0 {}
    assert!(self::segments(&disk) < segments, "the checkpoint has let go of segments");
}

fn small_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    give_room(&disk);
    disk
}

fn give_room(disk: &SimDisk) {
    disk.set_faults(Faults { room_bytes: Some(ROOM), ..Faults::default() });
}

fn fill_from_outside(disk: &SimDisk) {
    disk.set_faults(Faults { room_bytes: Some(disk.used_bytes()), ..Faults::default() });
}

fn opened(disk: &SimDisk, options: Options) -> (Engine, QueueId) {
    let entropy = Entropy { receipt_key: [7; 16], salt: 1 };
    let store =
        Store::on_disk(Arc::new(disk.clone()), entropy, options).expect("nothing is wrong with this disk");
    let mut engine = Engine::open(store, NOW).expect("nothing is wrong with this disk");
    if engine.queue("shop/orders").is_none() {
        engine.apply(NOW, vec![configure("shop/orders")]).expect("nothing is wrong with this disk");
    }
    let queue = engine.queue("shop/orders").expect("nothing is wrong with this disk");
    (engine, queue)
}

fn configure(name: &str) -> Command {
    Command::Configure(Configure { name: name.into(), generation: 1, settings: Settings::default() })
}

/// As a broker does: until no more than that is free.
fn fill(engine: &mut Engine, queue: QueueId, free_bytes: u64) {
    while engine.space().expect("nothing is wrong with this disk").free_bytes > free_bytes {
        engine.apply(NOW, vec![send(queue, BODY)]).expect("nothing is wrong with this disk");
    }
}

fn send(queue: QueueId, len: usize) -> Command {
    let payload = Payload { body: vec![7; len].into(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() })
}

/// Receives so many and acks them; how many there were.
fn drain(engine: &mut Engine, queue: QueueId, max_messages: u32) -> Result<usize, StoreError> {
    let receive = Receive {
        queue,
        max_messages,
        max_bytes: 1 << 20,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: String::new(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    };
    let receipts: Vec<Bytes> = match engine.apply(NOW, vec![Command::Receive(receive)])?.replies.pop() {
        Some(Reply::Received(deliveries)) => {
            deliveries.into_iter().map(|delivery| delivery.receipt).collect()
        }
        other => panic!("{other:?}"),
    };
    let settlements: Vec<_> = receipts.into_iter().map(|receipt| (receipt, Outcome::Ack)).collect();
    let count = settlements.len();
    engine.apply(NOW, vec![Command::Settle(Settle { queue, settlements })])?;
    Ok(count)
}

fn segments(disk: &SimDisk) -> usize {
    disk.list()
        .expect("nothing is wrong with this disk")
        .iter()
        .filter(|name| name.strip_suffix(".log").is_some())
        .count()
}
