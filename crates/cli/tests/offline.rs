//! The folder of a stopped broker, as people look at it: real processes, a real store, real exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "process/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Dev, Ended, run};
use serde_json::{Value, json};

/// A broker that was used and is stopped: of 8 messages one is acked, one is dead, one is delayed.
fn stopped() -> Dev {
    let mut dev = used();
    assert_eq!(dev.stop(), 0);
    dev
}

fn used() -> Dev {
    let dev = Dev::start();
    let lines: Vec<String> = (0..6).map(|n| format!("body number {n}\n")).collect();
    let send = ["send", "orders", "--header", "kind=test", "--fairness-key", "acme"];
    assert_eq!(dev.run(&send, &lines.concat()).code, 0);
    let later =
        ["send", "orders", "--body", "later", "--delay", "1h", "--dedup-id", "own", "--priority", "9"];
    assert_eq!(dev.run(&later, "").code, 0);
    assert_eq!(dev.run(&["receive", "orders"], "").code, 0);
    assert_eq!(dev.run(&["receive", "orders", "--settle", "reject", "--reason", "broken"], "").code, 0);
    dev
}

fn offline(dev: &Dev, command: &str, more: &[&str]) -> Ended {
    let data = dev.data();
    run(&[&[command, data.to_str().unwrap()], more].concat(), "")
}

/// Of the lines of an export.
fn fields(lines: &[Value], field: &str) -> Vec<Value> {
    lines.iter().map(|line| line[field].clone()).collect()
}

fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    content.sort();
    content
}

/// Flips a bit of the first place where the file has these bytes.
fn damage(file: &Path, wanted: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Promise: a queue that is not there is told from one that is empty.
#[test]
fn export_of_an_unknown_queue_says_where_the_names_are() {
    let ended = offline(&stopped(), "export", &["--queue", "nope"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert!(ended.stderr.contains("there is none of nope; `ackwell inspect` lists"), "{}", ended.stderr);
}

/// Promise: what a broker left is whole, also one that was killed, and no command changes a byte of it.
#[test]
fn stopped_and_killed_brokers_leave_what_is_whole() {
    let mut killed = used();
    killed.kill();
    for dev in [stopped(), killed] {
        let before = content(&dev.data());
        let verified = offline(&dev, "verify", &[]);
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{verified:?}");
        assert!(verified.stdout.starts_with("nothing is wrong; read "), "{verified:?}");
        assert_eq!(offline(&dev, "inspect", &[]).code, 0);
        assert_eq!(offline(&dev, "export", &["--from", "log"]).code, 0);
        assert!(content(&dev.data()) == before);
    }
}

/// Promise: inspect shows queues and segments, and neither bodies nor headers.
#[test]
fn inspect_shows_what_is_there_and_no_bodies() {
    let dev = stopped();
    let shown = offline(&dev, "inspect", &["--output", "json"]).json();
    let [overview] = &shown[..] else { panic!("{shown:?}") };
    let queue = &overview["queues"][0];
    let counts = ["ready", "delayed", "inFlight", "dead"].map(|state| queue[state].as_u64().unwrap());
    assert_eq!((queue["queue"].as_str().unwrap(), counts), ("default/orders", [4, 1, 0, 1]));
    assert_eq!((&overview["current"], &overview["flaws"]), (&json!(true), &json!(0)));
    assert_eq!(queue["settings"]["maxAttempts"], 2);
    let segment = overview["segments"][0].clone();
    assert_eq!(segment["segment"], "0000000000000001");
    let records = offline(&dev, "inspect", &["--segment", "1", "--output", "json"]);
    assert_eq!(records.json().len() as u64, segment["records"].as_u64().unwrap());
    let text = [
        offline(&dev, "inspect", &[]).stdout,
        records.stdout,
        offline(&dev, "inspect", &["--segment", "1"]).stdout,
    ];
    assert!(!text.concat().contains("body number") && !text.concat().contains("kind"), "{text:?}");
    let none = offline(&dev, "inspect", &["--record", "4711"]);
    assert_eq!((none.code, none.stderr.as_str()), (1, "error: there is no such record\n"));
}

/// Promise: what was exported is stored again elsewhere as it was, and importing it twice stores it once.
#[test]
fn exported_messages_are_imported_once() {
    let dev = stopped();
    let file = dev.folder().join("messages.jsonl");
    let exported = offline(&dev, "export", &["--queue", "orders", "--to", file.to_str().unwrap()]);
    assert_eq!((exported.code, exported.stdout.as_str()), (0, ""), "{exported:?}");
    assert_eq!(exported.stderr, "exported 6 messages\n");
    let again = offline(&dev, "export", &["--to", file.to_str().unwrap()]);
    assert_eq!(again.code, 1, "a file that is there is not overwritten");

    let other = Dev::start();
    let import = |more: &[&str]| {
        other.run(&[&["import", file.to_str().unwrap(), "--queue", "orders"], more].concat(), "")
    };
    let dry = import(&["--dry-run"]);
    assert_eq!((dry.code, dry.stderr.as_str()), (0, "would be imported to orders: 6 messages\n"), "{dry:?}");
    let first = import(&["--output", "json"]);
    assert_eq!((first.code, first.json().len()), (0, 6), "{first:?}");
    let second = import(&[]);
    assert_eq!(
        (second.code, second.stderr.as_str()),
        (0, "imported to orders: 0 messages, 6 were there already\n")
    );

    let peeked = other.run(&["peek", "orders", "--limit", "0", "--body", "--output", "json"], "").json();
    let lines: Vec<Value> =
        fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for field in ["headers", "fairnessKey", "priority", "bodyBytes"] {
        assert_eq!(fields(&peeked, field), fields(&lines, field), "{field}");
    }
    assert_eq!(fields(&peeked, "body")[..2], [json!("body number 1"), json!("body number 2")]);
    assert_eq!(fields(&lines, "state")[..2], [json!("Dead"), json!("Ready")]);
    assert_eq!(lines[0]["history"][0]["reason"], "broken");
    let dedup_ids = (fields(&peeked, "dedupId"), fields(&lines, "id"));
    assert_eq!((&dedup_ids.0[..5], &dedup_ids.0[5]), (&dedup_ids.1[..5], &json!("own")));
}

/// Promise: a damaged body is named with its message, exported as damaged, and not imported; code 1 says that something is wrong.
#[test]
fn damaged_body_is_named_and_not_imported() {
    let dev = stopped();
    damage(&dev.data().join("0000000000000001.log"), b"body number 3");
    let verified = offline(&dev, "verify", &["--output", "json"]);
    let lines = verified.json();
    assert_eq!((verified.code, lines.len()), (1, 2), "{verified:?}");
    let finding = ["severity", "kind", "file"].map(|field| lines[0][field].as_str().unwrap());
    assert_eq!(finding, ["damage", "payload", "0000000000000001.log"]);
    assert_eq!(lines[1]["findings"], 1);

    let exported = offline(&dev, "export", &[]);
    assert_eq!((exported.code, exported.json().len()), (1, 6), "{exported:?}");
    let damaged: Vec<Value> = exported.json().into_iter().filter(|line| line["damaged"] == true).collect();
    assert_eq!((damaged.len(), &damaged[0]["id"]), (1, &lines[0]["messages"][0]["id"]));
    let other = Dev::start();
    let imported = other.run(&["import", "-", "--queue", "orders"], &exported.stdout);
    assert_eq!(imported.code, 1);
    assert!(imported.stderr.contains("line 3 is left out: its body is damaged"), "{imported:?}");
    assert!(
        imported.stderr.contains("imported to orders: 5 messages, 1 left out with a damaged body"),
        "{imported:?}"
    );
}

/// Promise: without a state, the log gives back what was sent, and importing that is as safe.
#[test]
fn lost_state_is_had_back_from_the_log() {
    let dev = stopped();
    fs::remove_file(dev.data().join("state.redb")).unwrap();
    assert_eq!(offline(&dev, "verify", &[]).code, 1);
    let exported = offline(&dev, "export", &["--from", "log"]);
    assert_eq!((exported.code, exported.json().len()), (1, 7), "{exported:?}");
    assert!(exported.stderr.contains("7 of them not in the state"), "{exported:?}");
    let other = Dev::start();
    for expected in ["7 messages\n", "0 messages, 7 were there already\n"] {
        let imported = other.run(&["import", "-", "--queue", "orders"], &exported.stdout);
        assert_eq!((imported.code, imported.stderr), (0, format!("imported to orders: {expected}")));
    }
}

/// Promise: a broker's folder is left alone while it has it, and what is no store is told apart from a damaged one.
#[test]
fn folder_in_use_or_without_a_store_is_code_2() {
    let dev = used();
    for command in ["inspect", "verify", "export"] {
        let refused = offline(&dev, command, &[]);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{refused:?}");
        assert!(refused.stderr.contains("is in use by a broker (process "), "{refused:?}");
        let empty = run(&[command, dev.folder().to_str().unwrap()], "");
        assert_eq!(empty.code, 2, "{empty:?}");
        assert!(empty.stderr.contains("has no store in it"), "{empty:?}");
        assert_eq!(run(&[command, "/nowhere"], "").code, 2);
    }
}

/// Promise: what is refused stops the import, and the line to go on with is said.
#[test]
fn refused_import_says_where_to_go_on() {
    let dev = Dev::start();
    let line = |id: &str, bytes: usize| {
        json!({"id": id, "body": "x".repeat(bytes), "bodyBytes": bytes}).to_string() + "\n"
    };
    let input = [line("a", 1), line("b", 9000), line("c", 1)].concat();
    let refused = dev.run(&["import", "-", "--queue", "orders"], &input);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("error: line 2 was refused: "), "{refused:?}");
    assert!(refused.stderr.contains("stopped; go on with --from-line 1"), "{refused:?}");
    let rest = dev.run(&["import", "-", "--queue", "orders", "--from-line", "3"], &input);
    assert_eq!(
        (rest.code, rest.stderr.as_str()),
        (0, "imported to orders: 0 messages, 1 were there already\n")
    );
    let nonsense = dev.run(&["import", "-", "--queue", "orders"], "{}\n");
    assert!(nonsense.stderr.starts_with("imported to orders: 0 messages\nerror: line 1: "), "{nonsense:?}");
    assert_eq!(nonsense.code, 1);
}
