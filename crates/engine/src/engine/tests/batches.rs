//! What several commands in one batch mean for each other, and what a batch leaves on disk.

use crate::command::{
    Batch, Command, Configure, Delete, Filter, Mode, NewMessage, Outcome, Receive, Reply, Selected,
    Selection, Send, Settle,
};
use crate::message::{Payload, QueueId};
use crate::settings::Settings;
use crate::store::tests::ENTROPY;
use crate::{Engine, Store, Timestamp};

#[test]
fn store_on_disk_serves_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let open = |at| Engine::open(Store::open(folder.path(), ENTROPY).unwrap(), Timestamp(at)).unwrap();
    let mut engine = open(1000);
    let queue = configure(&mut engine);
    engine.apply(Timestamp(1000), vec![send(queue, "kept")]).unwrap();
    drop(engine);
    let mut engine = open(2000);
    let Reply::Received(got) = one(&mut engine, 2000, receive(queue, "")) else { panic!() };
    assert_eq!(got[0].message.payload.body, "kept");
}

/// Promise: two consumers never get the same receipt. Here one batch repeats a call, ends its delivery, and hands the
/// message to another consumer.
#[test]
fn repeated_receive_in_a_batch_with_the_next_delivery_gets_nothing() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = configure(&mut engine);
    engine.apply(Timestamp(1), vec![send(queue, "a")]).unwrap();
    let Reply::Received(first) = one(&mut engine, 1, receive(queue, "r")) else { panic!() };
    let release = Settle { queue, settlements: vec![(first[0].receipt.clone(), Outcome::Release)] };
    let batch = vec![receive(queue, "r"), Command::Settle(release), receive(queue, "")];
    let replies = engine.apply(Timestamp(2), batch).unwrap().replies;
    let [Reply::Received(repeated), Reply::Settled(_), Reply::Received(next)] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert!(repeated.is_empty());
    assert_eq!(next[0].epoch.0, first[0].epoch.0 + 1);
}

/// Promise: commands of a batch come one after the other: what one stored the next one finds, its headers too, and nothing of
/// what is removed again reaches the disk.
#[test]
fn purge_finds_by_header_what_its_batch_has_stored() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = configure(&mut engine);
    let headers = vec![("kind".to_owned(), "x".to_owned())];
    let payload = Payload { body: "a".into(), headers: headers.clone(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    let marked = Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() });
    let filter = Filter { headers, ..Filter::default() };
    let purge = Selection { queue, filter, after: None, max_messages: 9, mode: Mode::Apply };
    let batch = vec![marked, send(queue, "b"), Command::Purge(purge)];
    let replies = engine.apply(Timestamp(2), batch).unwrap().replies;
    let Reply::Purged(Selected { changed: 1, .. }) = replies[2] else { panic!("{replies:?}") };
    let mut engine = engine.reopen(Timestamp(3));
    let Reply::Received(got) = one(&mut engine, 3, receive(queue, "")) else { panic!() };
    assert_eq!(got[0].message.payload.body, "b");
}

/// Promise: a queue may be deleted and made anew in one batch; the new one has another id and none of the messages.
#[test]
fn queue_deleted_and_made_in_one_batch_is_a_new_one() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = configure(&mut engine);
    let name = "shop/orders".to_owned();
    let anew = Command::Configure(Configure { name, generation: 1, settings: Settings::default() });
    let delete = Command::Delete(Delete { queue, max_messages: 9 });
    one(&mut engine, 1, with_ids(queue));
    let replies = engine.apply(Timestamp(2), vec![send(queue, "a"), delete, anew]).unwrap().replies;
    let Reply::Configured(anew, 1) = replies[2] else { panic!("{replies:?}") };
    assert_ne!(anew, queue);
    let mut engine = engine.reopen(Timestamp(3));
    assert_eq!(engine.queue("shop/orders"), Some(anew));
    assert_eq!(engine.memory.entries().count(), 0, "nothing is remembered of a queue that is gone");
    let Reply::Received(got) = one(&mut engine, 3, receive(anew, "")) else { panic!() };
    assert!(got.is_empty());
}

/// Promise: a flood of due timers is worked off in bounded batches, and nothing expired is served meanwhile.
#[test]
fn expired_message_is_not_served_before_its_timer_fires() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = flood(&mut engine);
    let Reply::Received(got) = one(&mut engine, 11, receive(queue, "")) else { panic!() };
    assert!(got.is_empty());
    assert_eq!(engine.stats(queue).counts.dead, super::super::MAX_SWEPT as u64 + 2);
}

/// Promise: what is left of the flood comes with the next batches, without waiting.
#[test]
fn rest_of_a_flood_is_due_at_once() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = flood(&mut engine);
    engine.apply(Timestamp(11), Vec::new()).unwrap();
    assert_eq!(engine.stats(queue).counts.ready, 2);
    assert_eq!(engine.next_wakeup(), Some(Timestamp(11)));
    engine.apply(Timestamp(11), Vec::new()).unwrap();
    assert_eq!(engine.stats(queue).counts.ready, 0);
}

/// Two messages more than one batch expires, all due at 11.
fn flood(engine: &mut Engine) -> QueueId {
    let queue = configure(engine);
    let message = NewMessage { ttl_ms: Some(10), ..NewMessage::default() };
    let messages = vec![message; super::super::MAX_SWEPT + 2];
    let flood = Send { queue, messages, batch: Batch::Each, request_id: String::new() };
    engine.apply(Timestamp(1), vec![Command::Send(flood)]).unwrap();
    queue
}

fn configure(engine: &mut Engine) -> QueueId {
    let settings = Settings::default();
    let command = Configure { name: "shop/orders".into(), generation: 1, settings };
    let Reply::Configured(queue, 1) = one(engine, 1, Command::Configure(command)) else { panic!() };
    queue
}

fn send(queue: QueueId, body: &'static str) -> Command {
    let payload = Payload { body: body.into(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() })
}

/// A Send that is remembered twice.
fn with_ids(queue: QueueId) -> Command {
    let payload = Payload { dedup_id: "d".into(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    Command::Send(Send { queue, messages, batch: Batch::Each, request_id: "r".into() })
}

fn receive(queue: QueueId, request_id: &str) -> Command {
    Command::Receive(Receive {
        queue,
        max_messages: 1,
        max_bytes: 1 << 20,
        oversized: crate::command::Oversized::Comes,
        ack_timeout_ms: None,
        consumer: String::new(),
        request_id: request_id.into(),
        handover: crate::command::Handover::AtOnce,
    })
}

fn one(engine: &mut Engine, now: u64, command: Command) -> Reply {
    engine.apply(Timestamp(now), vec![command]).unwrap().replies.remove(0)
}
