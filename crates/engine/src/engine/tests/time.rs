//! What happens by itself: delays, ack timeouts, ttls; and clocks that misbehave.

use super::story::check;

#[test]
fn ack_timeout_counts_an_attempt_and_tells_whose_receipt_expired() {
    check(
        "
        set ack=10s backoff=constant,1s,1s
        send a b
        receive 2 as=w -> a#1 b#1
        wakeup -> 10s
        +9999ms
        ack b#1
        +1ms -> expired a#1
        peek -> a:delayed*1
        history a -> 0s..10s ack-timeout ack timeout w;
        +2s
        receive 1 -> a#2
    ",
    );
}

#[test]
fn last_ack_timeout_is_death() {
    check(
        "
        set ack=10s attempts=1
        send a
        receive 1
        +10s -> expired a#1
        peek -> a:dead(MAX_ATTEMPTS)*1
    ",
    );
}

#[test]
fn receive_may_set_its_own_ack_timeout() {
    check(
        "
        send a
        receive 1 ack=3s
        wakeup -> 3s
        +3s -> expired a#1
    ",
    );
}

/// Promise: ttls are found by their time, not only at the head of the queue.
#[test]
fn expired_message_is_dead_or_dropped_wherever_it_stands() {
    check(
        "
        send a
        send b ttl=5s
        send c ttl=5s delay=9s
        wakeup -> 5s
        +4999ms
        stats -> ready=2 delayed=1 bytes=3
        +1ms
        peek -> a:ready b:dead(EXPIRED) c:dead(EXPIRED)
    ",
    );
    check(
        "
        set expired=drop
        send a
        send b ttl=5s
        +5s
        peek -> a:ready
        stats -> ready=1 bytes=1
    ",
    );
}

/// Promise: a message in flight does not expire; it does when it comes back.
#[test]
fn ttl_that_passed_in_flight_holds_on_return() {
    check(
        "
        send a b c d ttl=5s
        receive 4
        +6s
        ack a#1 -> gone
        nack b#1 delay=1s -> dead
        release c#1 -> dead
        lost d#1 -> dead
        peek -> b:dead(EXPIRED)*1 c:dead(EXPIRED) d:dead(EXPIRED)*1
    ",
    );
    check(
        "
        set ack=10s expired=drop
        send a ttl=5s
        receive 1
        +10s -> expired a#1
        peek -> nothing
    ",
    );
}

#[test]
fn last_attempt_after_the_ttl_died_of_its_attempts() {
    check(
        "
        set attempts=1
        send a ttl=5s
        receive 1
        +6s
        nack a#1 -> dead
        peek -> a:dead(MAX_ATTEMPTS)*1
    ",
    );
}

#[test]
fn backoff_past_the_ttl_ends_with_the_ttl() {
    check(
        "
        send a ttl=5s
        receive 1
        nack a#1 delay=1h -> delayed 3600s
        wakeup -> 5s
        +5s
        peek -> a:dead(EXPIRED)*1
    ",
    );
}

/// Promise: time never steps back, whatever the clock does, not even across a restart.
#[test]
fn clock_that_steps_back_changes_nothing() {
    check(
        "
        set ack=10s
        send a delay=5s
        +5s
        receive 1 -> a#1
        -1h
        send b
        peek -> a:inflight b:ready
        restart
        extend a#1 -> 3610s
        peek from=4s -> b:ready
    ",
    );
}

#[test]
fn nothing_to_do_is_no_wakeup() {
    check(
        "
        set dead=0s
        wakeup -> never
        send a
        wakeup -> never
        receive 1
        reject a#1 -> dead
        wakeup -> never
    ",
    );
}
