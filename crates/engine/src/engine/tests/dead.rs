//! Dead messages: retention, peek, redrive.

use super::story::check;

#[test]
fn dead_message_is_kept_for_its_retention() {
    check(
        "
        set dead=1h
        send a
        receive 1
        reject a#1
        wakeup -> 3600s
        +3599s
        peek -> a:dead(REJECTED)*1
        +1s
        stats -> nothing
        wakeup -> never
    ",
    );
}

/// Promise: retention 0 keeps Dead messages until they are redriven.
#[test]
fn retention_of_zero_is_for_ever() {
    check(
        "
        set dead=0s
        send a
        receive 1
        reject a#1 -> dead
        +3000d
        restart
        +1s
        peek -> a:dead(REJECTED)*1
        redrive -> 1 of 1
    ",
    );
}

#[test]
fn changed_retention_holds_for_the_dead_of_before() {
    check(
        "
        set dead=1h
        send a
        receive 1
        reject a#1
        +10s
        set dead=1m
        wakeup -> 50s
        set dead=0s
        wakeup -> never
        set dead=5s
        wakeup -> 0s
        +0s
        stats -> nothing
    ",
    );
}

#[test]
fn redriven_message_starts_anew_in_its_old_place() {
    check(
        "
        set attempts=1
        send a ttl=5s
        send b
        receive 1
        nack a#1 why=first
        peek -> a:dead(MAX_ATTEMPTS)*1 b:ready
        redrive dry -> 0 of 1
        stats -> ready=1 dead=1 bytes=2
        +10s
        redrive -> 1 of 1
        peek -> a:ready b:ready
        history a -> 0s..0s nack first ;
        receive 1 -> a#2
        nack a#2 -> dead
        restart
        peek -> a:dead(MAX_ATTEMPTS)*1 b:ready
    ",
    );
}

#[test]
fn redrive_takes_what_its_filter_names_up_to_its_maximum() {
    check(
        "
        send a b c d
        send e header=kind:x
        receive 5
        reject a#1 b#1 why=poison
        reject c#1 d#1 e#1 why=bug
        redrive why=bug max=1 -> 1 of 1
        peek state=ready -> c:ready
        redrive why=bug header=kind:x -> 1 of 1
        redrive id=b -> 1 of 1
        redrive why=nothing -> 0 of 0
        redrive tried=2 -> 0 of 0
        redrive max=1 dry -> 0 of 1
        redrive after=a -> 1 of 1
        peek state=dead -> a:dead(REJECTED)*1
        redrive why=REJECTED -> 1 of 1
        stats -> ready=5 bytes=5
    ",
    );
}

#[test]
fn peek_pages_in_stored_order_and_filters() {
    check(
        "
        send a b c
        +1s
        send d e
        receive 1
        nack a#1 why=slow-disk
        peek limit=2 -> a:delayed*1 b:ready more
        peek limit=2 after=b -> c:ready d:ready more
        peek limit=2 after=d -> e:ready
        peek state=delayed -> a:delayed*1
        peek why=disk -> a:delayed*1
        peek tried=1 -> a:delayed*1
        peek from=0s -> d:ready e:ready
        peek to=1s -> a:delayed*1 b:ready c:ready
        peek id=c -> c:ready
        peek id=c state=dead -> nothing
        peek id=c after=c -> nothing
        receive 9 -> b#1 c#1 d#1 e#1
    ",
    );
}

/// Promise: a page of large bodies ends before it fills the memory.
#[test]
fn page_of_large_bodies_is_cut_and_goes_on() {
    check(
        "
        set body=2097152
        send x body=2097152
        send xx body=2097152
        send xxx body=3
        peek -> x:ready xx:ready more
        peek after=xx -> xxx:ready
    ",
    );
}
