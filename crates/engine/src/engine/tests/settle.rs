//! Settling and extending: exact outcomes, safe to repeat.

use super::story::check;

#[test]
fn ack_ends_a_message_and_may_be_repeated() {
    check(
        "
        send a
        receive 1 -> a#1
        ack a#1 -> gone
        ack a#1 -> gone
        restart
        ack a#1 -> gone
        stats -> nothing
        z+120s
        ack a#1 -> ReceiptExpired!
    ",
    );
}

#[test]
fn another_outcome_for_a_settled_delivery_is_refused() {
    check(
        "
        send a b
        receive 2 -> a#1 b#1
        nack a#1 delay=5s -> delayed 5s
        nack a#1 delay=9s -> delayed 5s
        ack a#1 -> SettledOtherwise!
        ack b#1
        nack b#1 -> SettledOtherwise!
        reject b#1 -> SettledOtherwise!
        release b#1 -> SettledOtherwise!
        lost b#1 -> SettledOtherwise!
        peek -> a:delayed*1
    ",
    );
}

/// Promise: forged and stale receipts change nothing.
#[test]
fn forged_and_stale_receipts_change_nothing() {
    check(
        "
        set ack=10s
        send a
        receive 1 -> a#1
        ack made-up -> InvalidReceipt!
        extend made-up -> InvalidReceipt!
        +10s -> expired a#1
        ack a#1 -> ReceiptExpired!
        extend a#1 -> ReceiptExpired!
        +2s
        receive 1 -> a#2
        nack a#1 -> ReceiptExpired!
        extend a#1 -> ReceiptExpired!
        stats -> in_flight=1 bytes=1
        ack a#2 -> gone
    ",
    );
}

#[test]
fn batch_of_settlements_is_answered_item_by_item() {
    check(
        "
        send a b
        receive 2 -> a#1 b#1
        ack a#1 forged b#1 a#1 -> gone InvalidReceipt! gone gone
    ",
    );
}

#[test]
fn nack_waits_for_its_delay_or_the_backoff() {
    check(
        "
        set backoff=exponential,1s,4s
        send a
        receive 1
        nack a#1 delay=7s -> delayed 7s
        wakeup -> 7s
        +6999ms
        receive 1 -> nothing
        +1ms
        receive 1 -> a#2
        nack a#2 -> delayed ~2s
        +3s
        receive 1 -> a#3
        nack a#3 -> delayed ~4s
        +5s
        receive 1 -> a#4
        nack a#4 -> delayed ~4s
        peek -> a:delayed*4
    ",
    );
}

#[test]
fn backoff_policies_grow_as_they_say() {
    check(
        "
        set backoff=constant,3s,9s
        send a
        receive 1
        nack a#1 -> delayed ~3s
        +4s
        receive 1
        nack a#2 -> delayed ~3s
    ",
    );
    check(
        "
        set backoff=linear,2s,5s
        send a
        receive 1
        nack a#1 -> delayed ~2s
        +3s
        receive 1
        nack a#2 -> delayed ~4s
        +5s
        receive 1
        nack a#3 -> delayed ~5s
    ",
    );
}

#[test]
fn nack_of_no_delay_is_ready_at_once() {
    check(
        "
        send a
        receive 1
        nack a#1 delay=0s -> ready
        wakeup -> never
        receive 1 -> a#2
    ",
    );
}

#[test]
fn release_is_free_and_a_lost_consumer_counts() {
    check(
        "
        send a
        receive 1 as=w
        release a#1 -> ready
        peek -> a:ready
        receive 1 as=w
        lost a#2 why=stream -> ready
        peek -> a:ready*1
        history a -> 0s..0s consumer-lost stream w;
    ",
    );
}

#[test]
fn last_attempt_is_death_however_it_fails() {
    check(
        "
        set attempts=2
        send a b
        receive 2
        lost a#1 -> ready
        nack b#1 delay=0s -> ready
        receive 2 -> a#2 b#2
        lost a#2 -> dead
        nack b#2 delay=0s -> dead
        peek why=MAX_ATT -> a:dead(MAX_ATTEMPTS)*2 b:dead(MAX_ATTEMPTS)*2
    ",
    );
}

#[test]
fn sender_may_only_lower_the_attempts() {
    check(
        "
        set attempts=2
        send a attempts=1
        send b attempts=9
        receive 2
        nack a#1 delay=0s -> dead
        nack b#1 delay=0s -> ready
        receive 1 -> b#2
        nack b#2 -> dead
    ",
    );
}

#[test]
fn reject_is_death_at_once() {
    check(
        "
        send a
        receive 1 as=w
        reject a#1 why=poison -> dead
        reject a#1 -> dead
        peek -> a:dead(REJECTED)*1
        history a -> 0s..0s reject poison w;
        receive 1 -> nothing
    ",
    );
}

/// Promise: an extension counts from now, and never reaches past `max_processing` since delivery.
#[test]
fn extension_is_absolute_and_capped() {
    check(
        "
        set ack=10s processing=25s
        send a
        receive 1
        extend a#1 -> 10s
        extend a#1 -> 10s
        +5s
        extend a#1 ack=3s -> 3s
        extend a#1 ack=1h -> 20s
        +20s -> expired a#1
    ",
    );
}

#[test]
fn extension_keeps_the_delivery_s_own_timeout() {
    check(
        "
        set ack=10s processing=60s
        send a
        receive 1 ack=20s
        wakeup -> 20s
        +5s
        extend a#1 -> 20s
    ",
    );
}

/// Promise: extending never takes away time that was already granted.
#[test]
fn extension_after_a_restart_or_lowered_limit_keeps_what_was_granted() {
    check(
        "
        set ack=10s processing=20s
        send a
        receive 1
        z+1h
        restart
        extend a#1 -> 10s
        +9s
        extend a#1 -> 1s
        ack a#1 -> gone
    ",
    );
    check(
        "
        set ack=10s processing=60s
        send a
        receive 1
        +5s
        extend a#1 ack=40s -> 40s
        set ack=1s processing=1s
        +10s
        extend a#1 ack=1h -> 30s
    ",
    );
}

#[test]
fn history_keeps_the_newest_sixteen() {
    let failures: Vec<String> =
        (1..=18).map(|n| format!("receive 1 as=w\nnack a#{n} why=no{n} delay=0s\n")).collect();
    let newest: Vec<String> = (3..=18).rev().map(|n| format!("0s..0s nack no{n} w;")).collect();
    let (failures, newest) = (failures.concat(), newest.join(" "));
    check(&format!("set attempts=100\nsend a\n{failures}history a -> {newest}\npeek -> a:ready*18"));
}
