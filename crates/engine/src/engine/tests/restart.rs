//! What a restart keeps, what it gives, and what a batch leaves behind.

use super::story::check;
use crate::command::{Batch, Command, Configure, NewMessage, Outcome, Receive, Reply, Send, Settle};
use crate::message::{Payload, QueueId};
use crate::settings::Settings;
use crate::store::tests::ENTROPY;
use crate::{Engine, Store, Timestamp};

#[test]
fn everything_stored_survives() {
    check(
        "
        set dead=1h
        send a b c d
        receive 3 as=w
        nack b#1 why=no delay=1m
        reject c#1 why=never
        restart
        stats -> ready=1 delayed=1 in_flight=1 dead=1 bytes=4
        peek -> a:inflight b:delayed*1 c:dead(REJECTED)*1 d:ready
        history b -> 0s..0s nack no w;
        ack a#1 -> gone
    ",
    );
}

/// Promise: while the process was away nobody could extend, so that every delivery gets one ack timeout more.
#[test]
fn holds_get_one_ack_timeout_more() {
    check(
        "
        set ack=10s processing=60s
        send a b
        receive 1 -> a#1
        receive 1 ack=50s -> b#1
        z+1h
        restart
        wakeup -> 10s
        +9999ms
        ack a#1 -> gone
        +40001ms -> expired b#1
    ",
    );
    check(
        "
        set ack=10s
        send a
        receive 1
        extend a#1 ack=60s
        restart
        wakeup -> 60s
    ",
    );
}

#[test]
fn what_fell_due_while_away_happens_at_once() {
    check(
        "
        send a delay=5s
        send b ttl=5s
        z+1h
        restart
        +0s
        peek -> a:ready b:dead(EXPIRED)
    ",
    );
}

/// Promise: receipts and ids are never made twice, also across a restart.
#[test]
fn receipts_of_before_do_not_fit_later_deliveries() {
    check(
        "
        send a
        receive 1
        release a#1
        restart
        receive 1 -> a#2
        release a#1 -> ready
        ack a#1 -> SettledOtherwise!
        stats -> in_flight=1 bytes=1
        ack a#2 -> gone
    ",
    );
}

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
    let mut engine = Engine::open(Store::in_memory(ENTROPY).unwrap(), Timestamp(1)).unwrap();
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

/// Promise: a flood of due timers is worked off in bounded batches, and nothing expired is served meanwhile.
#[test]
fn due_timers_are_worked_off_in_bounded_batches() {
    let mut engine = Engine::open(Store::in_memory(ENTROPY).unwrap(), Timestamp(1)).unwrap();
    let queue = configure(&mut engine);
    let message = NewMessage { ttl_ms: Some(10), ..NewMessage::default() };
    let messages = vec![message; super::super::MAX_SWEPT + 2];
    let flood = Send { queue, messages, batch: Batch::Each, request_id: String::new() };
    engine.apply(Timestamp(1), vec![Command::Send(flood)]).unwrap();
    engine.apply(Timestamp(11), Vec::new()).unwrap();
    assert_eq!(engine.stats(queue).counts.ready, 2);
    assert_eq!(engine.next_wakeup(), Some(Timestamp(11)));
    let Reply::Received(got) = one(&mut engine, 11, receive(queue, "")) else { panic!() };
    assert!(got.is_empty());
    assert_eq!(engine.stats(queue).counts.ready, 0);
    assert_eq!(engine.stats(queue).counts.dead, super::super::MAX_SWEPT as u64 + 2);
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
