//! Receiving: order, windows, limits, repeated calls.

use super::story::check;

#[test]
fn oldest_comes_first_and_a_returned_message_keeps_its_place() {
    check(
        "
        send a b c
        receive 2 -> a#1 b#1
        release a#1 -> ready
        receive 2 -> a#2 c#1
    ",
    );
    check(
        "
        send a b
        receive 1 -> a#1
        nack a#1 delay=1s
        send c
        +1s
        receive 3 -> a#2 b#1 c#1
    ",
    );
}

#[test]
fn window_of_bytes_ends_a_batch_and_lets_a_larger_message_come_alone() {
    check(
        "
        send a b c body=10
        receive 9 bytes=20 -> a#1 b#1
        receive 9 bytes=9 -> c#1
    ",
    );
    check(
        "
        send a b c d body=0
        receive 9 bytes=1 -> a#1 b#1 c#1 d#1
    ",
    );
    check(
        "
        send a body=50
        send b body=1
        receive 9 bytes=20 -> a#1
        receive 9 bytes=20 -> b#1
    ",
    );
}

#[test]
fn in_flight_limit_holds_and_a_settlement_makes_room() {
    check(
        "
        set in_flight=2
        send a b c
        receive 9 -> a#1 b#1
        receive 9 -> nothing
        ack a#1
        receive 9 -> c#1
        release b#1
        receive 9 -> b#2
    ",
    );
}

/// Promise: a repeated Receive with the same `request_id` gets the same deliveries, their time starting anew.
#[test]
fn repeated_receive_gets_the_same_deliveries() {
    check(
        "
        set ack=10s
        send a b c
        receive 2 request=r -> a#1 b#1
        +8s
        receive 2 request=r -> a#1 b#1
        +8s
        ack a#1 -> gone
        receive 2 request=r -> b#1
        restart
        receive 2 request=r -> b#1
        +10s -> expired b#1
        receive 2 request=r -> nothing
        ack b#1 -> ReceiptExpired!
    ",
    );
}

#[test]
fn receive_that_found_nothing_is_not_remembered() {
    check(
        "
        receive 1 request=r -> nothing
        send a
        receive 1 request=r -> a#1
    ",
    );
}

#[test]
fn queues_do_not_see_each_other() {
    check(
        "
        send a
        receive 1 -> a#1
        queue shop/other
        stats -> nothing
        receive 1 -> nothing
        ack a#1 -> InvalidReceipt!
        extend a#1 -> InvalidReceipt!
        peek -> nothing
        send b
        redrive -> 0 of 0
        queue shop/orders
        ack a#1 -> gone
        stats -> nothing
    ",
    );
}

/// Promise: a corrupt message is buried and named, never served; its neighbours are.
#[test]
fn corrupt_message_is_buried_and_named() {
    check(
        "
        send a b
        damage a
        peek -> a:ready(CORRUPT) b:ready
        receive 2 -> b#1
        peek state=dead -> a:dead(CORRUPT)
        stats -> in_flight=1 dead=1 bytes=2
        redrive -> 0 of 0
        restart
        peek why=CORR -> a:dead(CORRUPT)
    ",
    );
    check(
        "
        send a
        lose a
        receive 1 -> nothing
        peek -> a:dead(CORRUPT)
    ",
    );
}
