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
        let (event, options) = play(row[0]);
        for (state, cell) in STATES.into_iter().zip(&row[1..]) {
            let after = match *cell {
                "-" => format!("a:{}", format!("{state:?}").to_lowercase()),
                "gone" => "nothing".to_owned(),
                state => format!("a:{}", state.to_lowercase()),
            };
            let stored = set_up(state, options);
            check(&format!("set ack=20s dead=1h\n{stored}\n{event}\npeek bare -> {after}"));
        }
    }
}

fn set_up(state: State, options: &str) -> String {
    // A delay is only for the Delayed, an ack timeout only for those in flight.
    let sent = if options.starts_with("delay") { "" } else { options };
    let held = if options.starts_with("ack") { options } else { "" };
    match state {
        State::Ready => format!("send a {sent}"),
        State::Delayed => format!("send a delay=2h {options}"),
        State::InFlight => format!("send a {sent}\nreceive 1 ack=3h {held}"),
        State::Dead => format!("send a {sent}\nreceive 1\nreject a#1"),
    }
}

/// The event as a line of a story, and what differs in the story's other lines for it.
fn play(event: &str) -> (&'static str, &'static str) {
    match event {
        "receive" => ("receive 1", ""),
        "delay over" => ("+9s", "delay=9s"),
        "ack" => ("try ack a#1", ""),
        "nack" => ("try nack a#1", ""),
        "release" => ("try release a#1", ""),
        "lost" => ("try lost a#1", ""),
        "reject" => ("try reject a#1", ""),
        "ack timeout" => ("+20s", "ack=20s"),
        "nack, last attempt" => ("try nack a#1", "attempts=1"),
        "ttl passes" => ("+5s", "ttl=5s"),
        "retention over" => ("+1h", ""),
        "redrive" => ("redrive", ""),
        other => panic!("docs/delivery.md has an event {other:?} that no test plays"),
    }
}
