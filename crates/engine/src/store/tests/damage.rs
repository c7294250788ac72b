//! What is damaged is named, and the rest goes on.

use super::*;
use crate::command::{Commit, Delivery, Handover, Outcome, Outgoing, Oversized, Receive, Reply, Settle};
use crate::message::State;
use crate::task::{Order, Task, TaskId, Work};

const FIRST: &str = "0000000000000001.log";

fn open(disk: &Arc<MemoryDisk>) -> Engine {
    try_open(disk).unwrap()
}

fn try_open(disk: &Arc<MemoryDisk>) -> Result<Engine, StoreError> {
    // Checkpoints come by themselves only where a queue is made.
    let options = Options { checkpoint_bytes: 1 << 30, ..SMALL };
    let store = Store::on_disk(Arc::<MemoryDisk>::clone(disk), ENTROPY, options)?;
    Engine::open(store, Timestamp(3))
}

/// A store with a queue, whose record is the second.
fn with_queue() -> (Arc<MemoryDisk>, Engine, QueueId) {
    let disk = Arc::<MemoryDisk>::default();
    let mut engine = open(&disk);
    let queue = made(&mut engine);
    (disk, engine, queue)
}

/// Where the records of the first segment start.
fn starts(disk: &MemoryDisk) -> Vec<usize> {
    let file = disk.open(FIRST).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"AWL4").map(|(at, _)| at).collect()
}

/// Turns a bit of a record over.
fn flip(disk: &MemoryDisk, record: usize, byte: usize) {
    let at = starts(disk)[record - 1] + byte;
    let file = disk.open(FIRST).unwrap();
    let mut bytes = [0];
    file.read_at(at as u64, &mut bytes).unwrap();
    file.write_at(at as u64, &[bytes[0] ^ 4]).unwrap();
}

fn receive(engine: &mut Engine, queue: QueueId) -> Delivery {
    let mut replies = engine.apply(Timestamp(2), vec![take_one(queue)]).unwrap().replies;
    match replies.pop() {
        Some(Reply::Received(mut deliveries)) => deliveries.pop().expect("there is one"),
        other => panic!("{other:?}"),
    }
}

fn ack(queue: QueueId, delivery: &Delivery) -> Settle {
    Settle { queue, settlements: vec![(delivery.receipt.clone(), Outcome::Ack)] }
}

fn ready(engine: &Engine, queue: QueueId) -> Vec<u8> {
    let messages = engine.peek(queue, &Filter::default(), None, 1000).unwrap().0;
    messages.iter().map(|message| message.payload.body[0]).collect()
}

/// Promise: a record that was confirmed and cannot be read is named, wherever in it the damage is; all others count.
#[test]
fn damaged_record_is_named_and_what_follows_is_salvaged() {
    for byte in 0..record::HEADER_BYTES + 10 {
        let (disk, mut engine, queue) = with_queue();
        for fill in 1..4 {
            engine.apply(Timestamp(2), vec![send(queue, fill, 100)]).unwrap();
        }
        drop(engine);
        flip(&disk, 4, byte);
        let engine = open(&disk);
        let [LogDamage { what: Harm::Records { first_lsn: 4, last_lsn: 4, .. }, segment: 1, .. }] =
            engine.log_damage()
        else {
            panic!("byte {byte}: {:?}", engine.log_damage())
        };
        assert_eq!(ready(&engine, queue), [1, 3], "byte {byte}");
        assert!(disk.list().unwrap().contains(&"0000000000000001.damaged".to_owned()));
    }
}

/// Promise: what was salvaged is salvaged once, and then the store is like any other.
#[test]
fn salvaged_store_is_opened_without_damage() {
    let (disk, mut engine, queue) = with_queue();
    for fill in 1..4 {
        engine.apply(Timestamp(2), vec![send(queue, fill, 100)]).unwrap();
    }
    drop(engine);
    flip(&disk, 4, 20);
    let mut engine = open(&disk);
    engine.apply(Timestamp(4), vec![send(queue, 4, 100)]).unwrap();
    let before = engine.digest();
    drop(engine);
    let engine = open(&disk);
    assert_eq!(engine.log_damage(), []);
    assert_eq!(engine.digest(), before);
    assert_eq!(ready(&engine, queue), [1, 3, 4]);
}

/// Promise: a delivery that was given out behind the damage is not honoured, nor one that may be mixed up with it; those of
/// before are.
#[test]
fn deliveries_behind_the_damage_are_made_anew() {
    let (disk, mut engine, queue) = with_queue();
    for fill in 1..4 {
        engine.apply(Timestamp(2), vec![send(queue, fill, 100)]).unwrap();
    }
    let before = receive(&mut engine, queue);
    engine.apply(Timestamp(2), vec![send(queue, 4, 100)]).unwrap();
    let behind = receive(&mut engine, queue);
    let acked = receive(&mut engine, queue);
    engine.apply(Timestamp(2), vec![Command::Settle(ack(queue, &acked))]).unwrap();
    drop(engine);
    flip(&disk, 7, 20);
    let mut engine = open(&disk);
    assert_eq!(ready(&engine, queue), [1, 2, 3]);
    assert_eq!(engine.stats(queue).counts.in_flight, 1);
    let again = receive(&mut engine, queue);
    assert_eq!(again.message.id, behind.message.id);
    let settle = |delivery| Command::Settle(ack(queue, delivery));
    let replies =
        engine.apply(Timestamp(4), vec![settle(&behind), settle(&before), settle(&again)]).unwrap().replies;
    let oks = replies.iter().map(|reply| matches!(reply, Reply::Settled(results) if results[0].is_ok()));
    assert_eq!(oks.collect::<Vec<_>>(), [false, true, true]);
}

/// Promise: a confirmed message is not given up because of what is missing before it: neither for want of room nor because the
/// rest of its Commit cannot be done.
#[test]
fn confirmed_messages_behind_the_damage_are_stored() {
    let disk = Arc::<MemoryDisk>::default();
    let mut engine = open(&disk);
    let settings = Settings { max_messages: 1, ..Settings::default() };
    let configure = Configure { name: "shop/orders".into(), generation: 1, settings };
    engine.apply(Timestamp(1), vec![Command::Configure(configure)]).unwrap();
    let queue = engine.queue("shop/orders").unwrap();
    engine.apply(Timestamp(2), vec![send(queue, 1, 100)]).unwrap();
    let held = receive(&mut engine, queue);
    let Command::Send(Send { messages, .. }) = send(queue, 2, 100) else { panic!("it sends") };
    let send = vec![Outgoing { queue, messages }];
    let commit = Commit { settle: vec![ack(queue, &held)], send, request_id: String::new() };
    let replies = engine.apply(Timestamp(2), vec![Command::Commit(commit)]).unwrap().replies;
    assert!(matches!(&replies[0], Reply::Committed(committed) if committed.sent[0][0].is_ok()));
    drop(engine);
    flip(&disk, 4, 20);
    assert_eq!(ready(&open(&disk), queue), [1, 2]);
}

/// Promise: an id that was given out behind the damage names no other message.
#[test]
fn ids_of_before_the_damage_are_not_used_again() {
    let (disk, mut engine, queue) = with_queue();
    for fill in 1..4 {
        engine.apply(Timestamp(2), vec![send(queue, fill, 100)]).unwrap();
    }
    let given: Vec<_> = engine.peek(queue, &Filter::default(), None, 10).unwrap().0;
    drop(engine);
    flip(&disk, 3, 20);
    let mut engine = open(&disk);
    let ids = given.iter().map(|message| message.id).collect();
    engine.apply(Timestamp(4), vec![Command::Cancel(Cancel { queue, ids })]).unwrap();
    assert_eq!(ready(&engine, queue), [2, 3]);
}

/// Promise: a missing file of the log is named, and all that is elsewhere is there; so are messages of which only the body is
/// gone.
#[test]
fn missing_segment_is_named() {
    for is_in_checkpoint in [false, true] {
        let (disk, mut engine, queue) = with_queue();
        for fill in 1..30 {
            engine.apply(Timestamp(2), vec![send(queue, fill, 1000)]).unwrap();
        }
        if is_in_checkpoint {
            engine.close().unwrap();
        } else {
            drop(engine);
        }
        disk.remove("0000000000000003.log").unwrap();
        let mut engine = open(&disk);
        let named = engine.log_damage().iter().any(|damage| damage.segments().contains(&3));
        assert!(named, "{:?}", engine.log_damage());
        let left = engine.stats(queue).counts.ready;
        assert!(if is_in_checkpoint { left == 29 } else { (20..29).contains(&left) }, "{left}");
        (0..left).for_each(|_| _ = engine.apply(Timestamp(4), vec![take_one(queue)]).unwrap());
        assert!(engine.stats(queue).counts.dead <= 4 && engine.stats(queue).counts.ready == 0);
    }
}

fn take_one(queue: QueueId) -> Command {
    Command::Receive(Receive {
        queue,
        max_messages: 1,
        max_bytes: 10_000,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "c".into(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    })
}

/// Promise: a last record that is not whole is named as what it may be.
#[test]
fn torn_tail_is_named() {
    let (disk, mut engine, queue) = with_queue();
    engine.apply(Timestamp(2), vec![send(queue, 1, 100)]).unwrap();
    drop(engine);
    flip(&disk, 3, 20);
    let engine = open(&disk);
    assert!(
        matches!(engine.log_damage(), [LogDamage { what: Harm::Tail { lsn: 3 }, .. }]),
        "{:?}",
        engine.log_damage()
    );
    assert!(!engine.log_damage()[0].is_certain());
    drop(engine);
    assert_eq!(open(&disk).log_damage(), [], "it was overwritten");
}

/// Promise: a clean shutdown leaves nothing that could be taken for damage.
#[test]
fn sound_store_has_no_damage() {
    let (disk, mut engine, queue) = with_queue();
    for fill in 1..30 {
        engine.apply(Timestamp(2), vec![send(queue, fill, 1000)]).unwrap();
    }
    drop(engine);
    let engine = open(&disk);
    assert_eq!(engine.log_damage(), []);
    engine.close().unwrap();
    assert_eq!(open(&disk).log_damage(), []);
}

/// Promise: no more than a few copies of damaged segments are kept.
#[test]
fn copies_of_damaged_segments_are_bounded() {
    let (disk, mut engine, queue) = with_queue();
    for fill in 1..60 {
        engine.apply(Timestamp(2), vec![send(queue, fill, 1000)]).unwrap();
    }
    drop(engine);
    for removed in [2..5, 6..9] {
        removed.for_each(|segment| disk.remove(&format!("{segment:016x}.log")).unwrap());
        drop(open(&disk));
    }
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".damaged"));
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names[3].ends_with("8.damaged"), "{names:?}");
}

/// Promise: which queue is which does not depend on a record once the queue is there.
#[test]
fn queue_outlives_the_record_that_made_it() {
    let (disk, mut engine, queue) = with_queue();
    engine.apply(Timestamp(2), vec![send(queue, 1, 100)]).unwrap();
    drop(engine);
    flip(&disk, 2, 20);
    let engine = open(&disk);
    assert_eq!(engine.log_damage(), []);
    assert_eq!(ready(&engine, queue), [1]);
}

/// Promise: messages for a queue that nobody knows any more are named, and go to no other queue.
#[test]
fn messages_for_an_unknown_queue_are_named() {
    let (disk, mut engine, queue) = with_queue();
    let other = QueueId(queue.0 + 1);
    for name in ["shop/lost", "shop/other"] {
        let settings = Settings::default();
        let configure = Configure { name: name.into(), generation: 1, settings };
        engine.submit(Timestamp(2), vec![Command::Configure(configure)]).unwrap();
    }
    engine.submit(Timestamp(2), vec![send(other, 1, 100)]).unwrap();
    drop(engine);
    flip(&disk, 3, 20);
    let engine = open(&disk);
    let named = Harm::Unplaced { queue: other.0, messages: 1 };
    assert!(engine.log_damage().iter().any(|damage| damage.what == named), "{:?}", engine.log_damage());
    assert!(ready(&engine, engine.queue("shop/other").unwrap()).is_empty());
}

/// Promise: whatever is damaged in the state, the store opens and names it, or is refused by name: nothing panics, and nothing is
/// missing in silence.
#[test]
fn damaged_state_is_made_anew_or_refused() {
    let mut made_anew = 0;
    for page in 0..24 {
        let (disk, mut engine, queue) = with_queue();
        for fill in 1..30 {
            engine.apply(Timestamp(2), vec![send(queue, fill, 10)]).unwrap();
        }
        engine.close().unwrap();
        let file = disk.open(FILE).unwrap();
        let at = page * 4096 + 9;
        let mut bytes = [0; 8];
        file.read_at(at, &mut bytes).unwrap();
        file.write_at(at, &bytes.map(|byte| byte ^ 0x41)).unwrap();
        let opened = (0..3).find_map(|_| try_open(&disk).ok());
        let Some(engine) = opened else { continue };
        let is_named = !engine.damage().unwrap().is_empty();
        assert!(is_named || ready(&engine, queue).len() == 29, "page {page}");
        made_anew += u32::from(is_named);
    }
    assert!(made_anew > 0);
}

/// Promise: a task whose beginning is missing does not begin anew behind the damage, and one that had begun before goes on.
#[test]
fn tasks_behind_the_damage_go_on_and_do_not_begin_anew() {
    for (missing, left) in [(4, vec![1, 2]), (5, vec![])] {
        let (disk, mut engine, queue) = with_queue();
        for command in [send(queue, 1, 100), purge(queue, false), send(queue, 2, 100), purge(queue, true)] {
            engine.apply(Timestamp(2), vec![command]).unwrap();
        }
        assert_eq!(ready(&engine, queue), [2]);
        drop(engine);
        flip(&disk, missing, 20);
        assert_eq!(ready(&open(&disk), queue), left, "without record {missing}");
    }
}

fn purge(queue: QueueId, has_begun: bool) -> Command {
    let work = Work::Purge(vec![State::Ready]);
    let order = Order { work, stored_before: None, max_messages: 0, max_per_second: 0 };
    let id = TaskId { created: Timestamp(1), uid: "t".into() };
    Command::Task(Task { queue, id, order, has_begun, cancel: false })
}
