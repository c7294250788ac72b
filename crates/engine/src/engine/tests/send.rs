//! Sending: limits, atomic batches, duplicates, request ids.

use super::super::send::Room;
use super::story::check;
use crate::message::Payload;
use crate::messages::Counts;
use crate::{Refusal, Settings};

#[test]
fn sent_message_is_ready_or_delayed() {
    check(
        "
        send a
        send b delay=5s
        send c at=5s
        send d at=0s
        stats -> ready=2 delayed=2 bytes=4
        wakeup -> 5s
        peek -> a:ready b:delayed c:delayed d:ready
    ",
    );
}

/// Promise: a second send with the same `dedup_id` within the window stores nothing and is answered with the first one's id.
#[test]
fn duplicate_is_answered_with_the_original() {
    check(
        "
        set dedup=10m
        send a dedup=x
        send b dedup=x -> duplicate-of-a
        stats -> ready=1 bytes=1
        receive 1 -> a#1
        ack a#1 -> gone
        send b dedup=x -> duplicate-of-a
        restart
        send b dedup=x -> duplicate-of-a
        z+599999ms
        send b dedup=x -> duplicate-of-a
        z+1ms
        send b dedup=x -> b
    ",
    );
}

#[test]
fn dedup_ids_of_two_queues_are_apart_and_empty_ones_are_none() {
    check(
        "
        send a dedup=x
        send b
        send c
        queue shop/other
        send d dedup=x -> d
        queue shop/orders
        stats -> ready=3 bytes=3
    ",
    );
}

#[test]
fn dedup_window_of_zero_remembers_nothing() {
    check(
        "
        set dedup=0s
        send a dedup=x
        send b dedup=x -> b
    ",
    );
}

/// Promise: limits count what will be stored, so that a duplicate within a batch needs no room.
#[test]
fn duplicate_needs_no_room() {
    check(
        "
        set messages=1
        send a b dedup=x -> a duplicate-of-a
        send c dedup=x -> duplicate-of-a
        send d dedup=y -> QueueFull!
    ",
    );
    check(
        "
        set messages=1
        send a b atomic dedup=x -> a duplicate-of-a
    ",
    );
}

#[test]
fn limits_refuse_what_is_beyond_them() {
    check(
        "
        set messages=2 body=10
        send a body=11 -> MessageTooLarge!
        send b body=10
        send c d -> c QueueFull!
        stats -> ready=2 bytes=11
        receive 1 -> b#1
        send d -> QueueFull!
        ack b#1
        send d -> d
    ",
    );
    check(
        "
        set bytes=10
        send a body=6
        send b c body=4 -> b QueueFull!
        send d body=0 -> d
    ",
    );
}

/// Promise: an atomic batch is stored whole or not at all, and a refused one leaves no trace.
#[test]
fn atomic_batch_is_all_or_none() {
    check(
        "
        set messages=2
        send a b c atomic dedup=x request=r -> a duplicate-of-a duplicate-of-a
        send d e atomic request=s -> BatchRefused! QueueFull!
        stats -> ready=1 bytes=1
        set messages=3
        send d e atomic request=s -> d e
    ",
    );
}

/// Promise: a repeated call with the same `request_id` stores nothing and gets the first one's answer.
#[test]
fn repeated_request_gets_the_first_answer() {
    check(
        "
        send a b request=r -> a b
        send x y request=r -> a b
        send c dedup=k
        send d dedup=k request=s -> duplicate-of-c
        send d dedup=k request=s -> duplicate-of-c
        restart
        send x y request=r -> a b
        receive 1 -> a#1
        ack a#1
        send x y request=r -> a b
        stats -> ready=2 bytes=2
        z+120s
        send x y request=r -> x y
    ",
    );
}

#[test]
fn refused_item_of_a_request_is_tried_again() {
    check(
        "
        set messages=1
        send a b request=r -> a QueueFull!
        set messages=2
        send a b request=r -> a b
        send a b request=r -> a b
        stats -> ready=2 bytes=2
    ",
    );
}

#[test]
fn request_id_of_another_call_is_refused() {
    check(
        "
        send a request=r
        receive 1 request=r -> RequestIdReused!
        receive 1 request=q -> a#1
        send b request=q -> RequestIdReused!
    ",
    );
}

/// Promise: dedup ids are exact, so that one which cannot be remembered is refused rather than forgotten.
#[test]
fn dedup_id_without_room_is_refused() {
    let named = |dedup_id: &str| Payload { dedup_id: dedup_id.into(), ..Payload::default() };
    let (settings, x, y, none) = (Settings::default(), named("x"), named("y"), named(""));
    let mut room = Room::of(settings, Counts::default(), 1);
    assert_eq!([room.take(&x), room.take(&x), room.take(&none)], [Ok(()), Ok(()), Ok(())]);
    assert!(matches!(room.take(&y), Err(Refusal::QueueFull { .. })));
}
