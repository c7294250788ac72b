//! The command line as people use it: real processes, a real broker, real exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "process/harness.rs"]
mod harness;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::{Dev, Ended, ackwell, run};
use serde_json::{Value, json};

/// The main job: what goes in by lines comes out by lines, and nothing is left.
#[test]
fn lines_that_are_sent_are_received_and_gone() {
    let dev = Dev::start();
    let sent = dev.run(&["send", "orders", "--output", "json"], "one\ntwo\nthree\n");
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(sent.json().len(), 3);
    assert!(sent.json().iter().all(|line| line["id"].is_string() && line["duplicate"] == false));
    assert_eq!(dev.counts(), [3, 0, 0, 0]);

    let received = dev.run(&["receive", "orders", "--max", "10", "--wait", "0s"], "");
    assert_eq!((received.code, received.stdout.as_str()), (0, "one\ntwo\nthree\n"));
    assert_eq!(dev.counts(), [0, 0, 0, 0]);

    let nothing = dev.run(&["receive", "orders", "--wait", "0s"], "");
    assert_eq!((nothing.code, nothing.stdout.as_str()), (3, ""));
    assert!(nothing.stderr.contains("no message came within 0s"), "{nothing:?}");
}

/// Stored means stored: neither a stop nor a kill of the broker loses a message.
#[test]
fn messages_survive_a_restart_of_dev() {
    let mut dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "kept"], "").code, 0);
    assert_eq!(dev.stop(), 0, "SIGTERM is a graceful end");
    dev.restart();
    assert_eq!(dev.run(&["send", "orders", "--body", "kept too"], "").code, 0);
    dev.kill();
    dev.restart();
    let received = dev.run(&["receive", "orders", "--max", "2"], "");
    assert_eq!(received.stdout, "kept\nkept too\n", "{received:?}");
}

/// A broker that restarts is a pause for a sender, not an error, and stores nothing twice.
#[test]
fn send_outlasts_a_restart_of_the_broker() {
    let mut dev = Dev::start();
    let mut sender = dev.sender();
    sender.write("before");
    sender.wait_until_stored();
    dev.kill();
    sender.write("while it is away");
    dev.restart();
    sender.wait_until_stored();
    assert_eq!(sender.end(), 0);
    assert_eq!(dev.counts(), [2, 0, 0, 0]);
}

/// The life of a poison message: it fails until it is Dead, is looked at, and comes back with redrive.
#[test]
fn message_that_keeps_failing_is_dead_visible_and_redrivable() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "poison", "--header", "kind=test"], "").code, 0);
    for _ in 0..2 {
        let nacked =
            dev.run(&["receive", "orders", "--settle", "nack", "--reason", "no stock", "--wait", "30s"], "");
        assert_eq!((nacked.code, nacked.stdout.as_str()), (0, "poison\n"), "{nacked:?}");
    }
    assert_eq!(dev.counts(), [0, 0, 0, 1]);

    let dead = dev.run(&["peek", "orders", "--state", "dead", "--body", "--output", "json"], "").json();
    let [message] = &dead[..] else { panic!("{dead:?}") };
    let shown = ["state", "deadReason", "attempts", "body"].map(|field| message[field].clone());
    assert_eq!(shown, [json!("Dead"), json!("MAX_ATTEMPTS"), json!(2), json!("poison")]);
    assert_eq!(message["history"][0]["reason"], "no stock");
    assert_eq!(message["history"][0]["consumer"], "ackwell receive");
    let table = dev.run(&["peek", "orders"], "").stdout;
    assert!(table.contains("MAX_ATTEMPTS: nack: no stock"), "{table}");

    let redrive =
        |more: &[&str]| dev.run(&[&["redrive", "orders", "--output", "json"], more].concat(), "").json();
    assert_eq!(redrive(&["--dry-run"]), [json!({"matched": 1, "redriven": 0, "dryRun": true})]);
    assert_eq!(
        redrive(&["--reason-contains", "other"]),
        [json!({"matched": 0, "redriven": 0, "dryRun": false})]
    );
    assert_eq!(redrive(&["--header", "kind=test"]), [json!({"matched": 1, "redriven": 1, "dryRun": false})]);
    let again = dev.run(&["receive", "orders", "--output", "json"], "").json();
    assert_eq!((&again[0]["id"], &again[0]["attempts"]), (&message["id"], &json!(0)));
}

#[test]
fn released_message_keeps_its_place_and_costs_no_attempt() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders"], "first\nsecond\n").code, 0);
    assert_eq!(dev.run(&["receive", "orders", "--settle", "release"], "").stdout, "first\n");
    let again = dev.run(&["receive", "orders", "--output", "json"], "").json();
    assert_eq!((&again[0]["body"], &again[0]["attempts"]), (&json!("first"), &json!(0)));
}

/// An ack means that somebody has the message: not when nobody reads.
#[test]
fn message_that_could_not_be_printed_is_not_acked() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "precious"], "").code, 0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(ackwell())
        .args(["receive", "orders", "--address", dev.address()])
        .stdout(writer)
        .status();
    assert_eq!(status.unwrap().code(), Some(0), "a closed pipe ends quietly");
    let again = dev.run(&["receive", "orders", "--output", "json"], "").json();
    assert_eq!((&again[0]["body"], &again[0]["attempts"]), (&json!("precious"), &json!(0)));
}

/// More than a batch by count and by bytes, in order, byte for byte.
#[test]
fn large_file_is_sent_and_received_unchanged() {
    let dev = Dev::start();
    let line = |number: u32| format!("{number} {}\n", "x".repeat(usize::try_from(number % 4000).unwrap()));
    let content: String = (0..5000).map(line).collect();
    let file = dev.folder().join("lines.txt");
    fs::write(&file, &content).unwrap();
    let sent = dev.run(&["send", "orders", "--file", file.to_str().unwrap()], "");
    assert_eq!(sent.code, 0, "{sent:?}");
    assert!(sent.stderr.contains("sent to orders: 5000 messages"), "{sent:?}");
    let received = dev.run(&["receive", "orders", "--max", "0", "--wait", "0s"], "");
    assert_eq!(received.code, 0);
    assert!(received.stdout == content, "{} bytes of {}", received.stdout.len(), content.len());
}

#[test]
fn whole_files_are_messages_and_bytes_survive() {
    let dev = Dev::start();
    let file = dev.folder().join("picture");
    fs::write(&file, b"\x89PNG\n\x00\xff").unwrap();
    let sent = dev.run(&["send", "orders", "--whole", "--file", file.to_str().unwrap()], "");
    assert_eq!(sent.code, 0, "{sent:?}");
    let received = dev.run(&["receive", "orders", "--output", "json"], "").json();
    assert_eq!(received[0]["bodyBase64"], "iVBORwoA/w==");
}

/// A file with a line that is too long: the person learns which, and what is stored.
#[test]
fn refused_line_is_named_and_ends_the_send() {
    let dev = Dev::start();
    let lines = format!("a\n{}\n{}", "x".repeat(8001), "b\n".repeat(5000));
    let sent = dev.run(&["send", "orders"], &lines);
    assert_eq!(sent.code, 1, "{sent:?}");
    assert!(sent.stderr.contains("error: stdin:2 was refused: "), "{sent:?}");
    assert!(sent.stderr.contains("[MESSAGE_TOO_LARGE]"), "{sent:?}");
    assert!(sent.stderr.contains("sent to orders: "), "{sent:?}");
    // The refused line is in one of the first two batches, of at most 1000.
    assert!(dev.counts()[0] < 2000, "{:?}", dev.counts());
}

#[test]
fn delayed_message_is_not_ready() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "later", "--delay", "1h"], "").code, 0);
    assert_eq!(dev.counts(), [0, 1, 0, 0]);
}

#[test]
fn dedup_id_sent_twice_stores_once() {
    let dev = Dev::start();
    let send =
        || dev.run(&["send", "orders", "--body", "x", "--dedup-id", "1", "--output", "json"], "").json();
    let (first, second) = (send(), send());
    assert_eq!((&first[0]["duplicate"], &second[0]["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first[0]["id"], second[0]["id"]);
    assert_eq!(dev.counts(), [1, 0, 0, 0]);
}

/// The next command that `dev` prints works as it is printed.
#[test]
fn printed_command_sends_and_receives() {
    let dev = Dev::start();
    let tried = Command::new("sh").args(["-c", dev.suggested()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tried.stdout), "hello\n", "{tried:?}");
}

#[test]
fn unknown_queue_fails_with_its_reason() {
    let dev = Dev::start();
    for command in ["send", "receive", "peek", "stats", "redrive"] {
        let ended = dev.run(&[command, "nowhere"], "x\n");
        assert_eq!(ended.code, 1, "{command}: {ended:?}");
        assert!(ended.stderr.contains("[QUEUE_NOT_FOUND]"), "{command}: {ended:?}");
    }
}

#[test]
fn nobody_at_the_address_fails_with_advice() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let ended = run(&["stats", "orders", "--address", &address], "");
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("Connection refused"), "{ended:?}");
    assert!(ended.stderr.contains("start one with `ackwell dev FILE`"), "{ended:?}");
}

#[test]
fn wrong_command_line_is_code_2() {
    for arguments in [
        &["send"][..],
        &["receive", "Orders"],
        &["receive", "orders", "--settle", "release", "--max", "0"],
        &["receive", "orders", "--reason", "nobody would keep it"],
    ] {
        let ended = run(arguments, "");
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn address_in_use_is_told_with_advice() {
    let (first, second) = (Dev::start(), Dev::prepare());
    let ended = second.refused(first.address());
    assert!(ended.stderr.contains("choose another with --listen"), "{ended:?}");
}

/// Two brokers on one store would destroy it.
#[test]
fn data_folder_in_use_is_refused() {
    let dev = Dev::start();
    let ended = dev.refused("127.0.0.1:0");
    assert!(ended.stderr.contains("in use by another process"), "{ended:?}");
    assert!(ended.stderr.contains("--data"), "{ended:?}");
}

#[test]
fn wrong_manifest_is_refused_before_anything_is_made() {
    let dev = Dev::prepare();
    dev.write_manifest(
        "apiVersion: ackwell.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders}\nspec: {storage: {}}\n",
    );
    let ended = dev.refused("127.0.0.1:0");
    assert!(ended.stderr.contains("spec.storage.size: is required"), "{ended:?}");
    assert!(!dev.data().exists());
}

impl Dev {
    /// Ready, delayed, in flight, dead.
    fn counts(&self) -> [u64; 4] {
        let stats: Vec<Value> = self.run(&["stats", "orders", "--output", "json"], "").json();
        ["ready", "delayed", "inFlight", "dead"].map(|state| stats[0][state].as_u64().unwrap())
    }

    /// `dev` that must fail to start.
    fn refused(&self, listen: &str) -> Ended {
        let ended = run(&self.arguments(listen), "");
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
        ended
    }
}

/// Promise: each look at a queue is a line for programs, and a rate needs two.
#[test]
fn top_shows_counts_and_rates() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "one"], "").code, 0);
    let args = ["top", "orders", "--count", "2", "--interval", "100ms"];
    let rows = dev.run(&[&args[..], &["--output", "json"]].concat(), "").json();
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&first["ready"], &first["sentPerSecond"]), (&json!(1), &Value::Null));
    assert_eq!((&second["ready"], &second["sentPerSecond"]), (&json!(1), &json!(0.0)));
    let table = dev.run(&args, "").stdout;
    assert_eq!(table.matches("QUEUE").count(), 2, "{table}");
    let yaml: Value =
        serde_yaml_ng::from_str(&dev.run(&["stats", "orders", "-o", "yaml"], "").stdout).unwrap();
    assert_eq!(yaml["ready"], 1);
}

/// Promise: shells and man pages know every command.
#[test]
fn completion_and_man_pages_are_written() {
    let script = run(&["completion", "bash"], "").stdout;
    assert!(script.contains("debug-bundle") && script.contains("--dry-run"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    assert_eq!(run(&["man".as_ref(), pages.as_os_str()], "").code, 0);
    for page in ["ackwell.1", "ackwell-send.1", "ackwell-debug-bundle.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}

/// Promise: a person at a terminal is asked before messages go, and any answer but yes leaves them; a script is not asked.
#[test]
fn people_are_asked_before_messages_go() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["send", "orders", "--body", "one"], "").code, 0);
    let purge = format!("{} purge orders --all --address {}", ackwell(), dev.address());
    let answered = |answer: &str| {
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &purge, "/dev/null"]).stdin(Stdio::piped());
        let terminal = terminal.stdout(Stdio::piped()).spawn().unwrap();
        terminal.stdin.as_ref().unwrap().write_all(answer.as_bytes()).unwrap();
        let ended = terminal.wait_with_output().unwrap();
        (ended.status.code().unwrap(), String::from_utf8(ended.stdout).unwrap())
    };
    let (code, shown) = answered("n\n");
    assert!(code == 1 && shown.contains("Remove 1 message for good? [y/N]"), "{code}: {shown}");
    assert_eq!(dev.counts(), [1, 0, 0, 0]);
    let (code, shown) = answered("yes\n");
    assert!(code == 0 && shown.contains("1 of 1"), "{code}: {shown}");
    assert_eq!(dev.counts(), [0, 0, 0, 0]);
    assert_eq!(dev.run(&["purge", "orders", "--all"], "").code, 0);
}

/// Promise: a person without a cluster is told, in one line, what was looked for and where it is named.
#[test]
fn cluster_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let status = || {
        let mut status = Command::new(ackwell());
        let output =
            status.args(["status", "orders"]).env("KUBECONFIG", &kubeconfig).env("NO_PROXY", "*").output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = status();
    assert!(
        told.contains(kubeconfig.to_str().unwrap()) && told.contains("KUBECONFIG or ~/.kube/config"),
        "{told}"
    );
    assert_eq!((told.lines().count(), told.matches("No such file").count()), (1, 1), "{told}");

    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let told = status();
    assert!(told.contains("Connection refused") && told.contains("kubectl cluster-info"), "{told}");
}
