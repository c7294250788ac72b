//! The table of `docs/delivery.md`, cell by cell, against the engine.

use super::story::check;
use crate::message::State;

const DOCUMENT: &str = include_str!("../../../../../docs/delivery.md");
const STATES: [State; 4] = [State::Ready, State::Delayed, State::InFlight, State::Dead];

fn table() -> Vec<Vec<&'static str>> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with("| event |"));
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    rows.take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|---"))
        .map(cells)
        .collect()
}

/// Promise: the columns are the states, all of them, in their order.
#[test]
fn columns_are_the_states() {
    let names: Vec<String> = STATES.iter().map(|state| format!("{state:?}")).collect();
    assert_eq!(table()[0][1..], names);
    for (index, state) in STATES.into_iter().enumerate() {
        // A new state does not compile here before it has its column.
        let column = match state {
            State::Ready => 0,
            State::Delayed => 1,
            State::InFlight => 2,
            State::Dead => 3,
        };
        assert_eq!((column, state as usize), (index, index));
    }
}

/// Promise: each event leads from each state to where the table says, and nowhere where it says nothing.
#[test]
fn every_cell_is_what_the_engine_does() {
    for row in &table()[1..] {
        let (event, sent, held) = play(row[0]);
        for (state, cell) in STATES.into_iter().zip(&row[1..]) {
            let after = match *cell {
                "-" => format!("a:{}", format!("{state:?}").to_lowercase()),
                "gone" => "nothing".to_owned(),
                state => format!("a:{}", state.to_lowercase()),
            };
            let stored = set_up(state, sent, held);
            check(&format!("set ack=20s dead=1h\n{stored}\n{event}\npeek bare -> {after}"));
        }
    }
}

fn set_up(state: State, sent: &str, held: &str) -> String {
    // A delay is only for the Delayed.
    let (delay, sent) = if sent.starts_with("delay") { (sent, "") } else { ("delay=2h", sent) };
    match state {
        State::Ready => format!("send a {sent}"),
        State::Delayed => format!("send a {delay} {sent}"),
        State::InFlight => format!("send a {sent}\nreceive 1 ack=3h {held}"),
        State::Dead => format!("send a {sent}\nreceive 1\nreject a#1"),
    }
}

/// The event as lines of a story, and how the message is sent and received for it.
fn play(event: &str) -> (&'static str, &'static str, &'static str) {
    match event {
        "receive" => ("receive 1", "", ""),
        "receive, paused" => ("pause\nreceive 1 -> nothing", "", ""),
        "delay over" => ("+9s", "delay=9s", ""),
        "ack" => ("try ack a#1", "", ""),
        "nack" => ("try nack a#1", "", ""),
        "nack, delay 0" => ("try nack a#1 delay=0s", "", ""),
        "nack, last attempt" => ("try nack a#1", "attempts=1", ""),
        "release" => ("try release a#1", "", ""),
        "reject" => ("try reject a#1", "", ""),
        "lost" => ("try lost a#1", "", ""),
        "lost, last attempt" => ("try lost a#1", "attempts=1", ""),
        "lost, not handed over" => ("try lost a#0", "attempts=1", "unhanded"),
        "ack timeout" => ("+20s", "", "ack=20s"),
        "ack timeout, last attempt" => ("+20s", "attempts=1", "ack=20s"),
        "ack timeout, not handed over" => ("+20s", "attempts=1", "unhanded ack=20s"),
        "ttl passes" => ("+5s", "ttl=5s", ""),
        "ttl passes, expired: Drop" => ("set expired=drop\n+5s", "ttl=5s", ""),
        "retention over" => ("+1h", "", ""),
        "redrive" => ("redrive", "", ""),
        "purge" => ("purge", "", ""),
        "cancel" => ("try cancel a", "", ""),
        "delete" => ("delete", "", ""),
        "restart" => ("restart", "", ""),
        other => panic!("docs/delivery.md has an event {other:?} that no test plays"),
    }
}
