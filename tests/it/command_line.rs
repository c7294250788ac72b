//! The CLI on one machine: what the README shows, with its exit codes and its JSON.

use std::path::{Path, PathBuf};

use ackwell_tests::processes::{CommandLine, Dev};
use serde_json::json;
use tempfile::TempDir;

/// `ackwell dev` with a queue `orders` of two attempts and a queue `logs`.
struct Laptop {
    dev: Option<Dev>,
    folder: TempDir,
}

const MANIFEST: &str = "\
apiVersion: ackwell.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec:
  storage: {size: 1Gi}
  delivery: {maxAttempts: 2, backoff: {policy: Constant, minSeconds: 1, maxSeconds: 1}}
---
apiVersion: ackwell.dev/v1alpha1
kind: Queue
metadata: {name: logs}
spec:
  storage: {size: 1Gi}
";

impl Laptop {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("queues.yaml"), MANIFEST).unwrap();
        let mut laptop = Self { dev: None, folder };
        laptop.restart();
        laptop
    }

    fn restart(&mut self) {
        let (manifest, data) = (self.path("queues.yaml"), self.path("data"));
        self.dev = Some(Dev::start(&[&manifest], &data));
    }

    fn run(&self, args: &[&str], input: &[u8]) -> CommandLine {
        CommandLine::run(self.dev.as_ref().unwrap().address(), args, input)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Promise: lines go in and come out, byte for byte, and are gone.
#[test]
fn lines_that_are_sent_are_received() {
    let laptop = Laptop::start();
    let _ = laptop.run(&["send", "orders"], b"one\ntw\xff\xfeo\n\nthree").exits(0);
    let received = laptop.run(&["receive", "orders", "--max", "10", "--wait", "1s"], b"").exits(0);
    assert_eq!(received.bytes(), b"one\ntw\xff\xfeo\n\nthree\n");
    let nothing = laptop.run(&["receive", "orders", "--wait", "0s"], b"").exits(3);
    assert!(nothing.stderr().contains("no message"), "{}", nothing.stderr());
    assert_eq!(nothing.stdout(), "");
}

/// Promise: counts are readable by programs, and short names and other queues are kept apart.
#[test]
fn stats_in_json_count_by_state() {
    let laptop = Laptop::start();
    let _ = laptop.run(&["send", "orders"], b"a\nb\n").exits(0);
    let _ = laptop.run(&["send", "logs"], b"c\n").exits(0);
    let _ = laptop.run(&["receive", "orders", "--settle", "reject"], b"").exits(0);
    let stats = laptop.run(&["stats", "orders", "--output", "json"], b"").exits(0).json();
    let counts = ["ready", "delayed", "inFlight", "dead"].map(|name| stats[0][name].clone());
    assert_eq!(counts, [json!(1), json!(0), json!(0), json!(1)]);
}

/// Promise: poison is visible with its reason, and redriven whole.
#[test]
fn dead_message_is_peeked_and_redriven() {
    let laptop = Laptop::start();
    let _ = laptop.run(&["send", "orders"], b"poison\n").exits(0);
    for _ in 0..2 {
        let nack = ["receive", "orders", "--wait", "10s", "--settle", "nack", "--reason", "no stock"];
        let _ = laptop.run(&nack, b"").exits(0);
    }
    let peek = ["peek", "orders", "--state", "dead", "--body", "--output", "json"];
    let dead = laptop.run(&peek, b"").exits(0).json();
    assert_eq!(
        (dead.len(), &dead[0]["deadReason"], &dead[0]["body"]),
        (1, &json!("MAX_ATTEMPTS"), &json!("poison"))
    );
    assert_eq!(dead[0]["history"][0]["reason"], "no stock");

    let dry = laptop.run(&["redrive", "orders", "--dry-run", "--output", "json"], b"").exits(0).json();
    assert_eq!((&dry[0]["matched"], &dry[0]["redriven"]), (&json!(1), &json!(0)));
    let redriven = laptop.run(&["redrive", "orders", "--output", "json"], b"").exits(0).json();
    assert_eq!(redriven[0]["redriven"], 1);
    assert_eq!(laptop.run(&["receive", "orders"], b"").exits(0).stdout(), "poison\n");
}

/// Promise: people look after single messages, and remove many only when they say which.
#[test]
fn messages_are_explained_cancelled_and_purged() {
    let laptop = Laptop::start();
    let json = |args: &[&str]| laptop.run(&[args, &["--output", "json"]].concat(), b"").exits(0).json();
    let send =
        ["send", "orders", "--body", "x", "--ordering-key", "k", "--fairness-key", "acme", "--priority", "9"];
    let (first, second) = (json(&send), json(&send));
    let id = |sent: &[serde_json::Value]| sent[0]["id"].as_str().unwrap().to_owned();
    let got = json(&["get", "orders", &id(&first)]);
    assert_eq!(
        (&got[0]["orderingKey"], &got[0]["priority"], &got[0]["body"]),
        (&json!("k"), &json!(9), &json!("x"))
    );
    let explained = json(&["explain", "orders", &id(&second)]);
    assert_eq!(explained[0]["reasons"][0]["blockedBy"], id(&first));
    let text = laptop.run(&["explain", "orders", &id(&second)], b"").exits(0).stdout();
    assert!(text.contains("BEHIND_KEY") && text.contains("NO_CONSUMER"), "{text}");

    assert_eq!(json(&["cancel", "orders", &id(&first)])[0]["id"], id(&first));
    let again = laptop.run(&["cancel", "orders", &id(&first)], b"").exits(1);
    assert!(again.stderr().contains("MESSAGE_NOT_FOUND"), "{}", again.stderr());
    assert!(laptop.run(&["get", "orders", &id(&first)], b"").exits(1).stderr().contains("MESSAGE_NOT_FOUND"));

    let careless = laptop.run(&["purge", "orders"], b"").exits(2);
    assert!(careless.stderr().contains("--all"), "{}", careless.stderr());
    assert_eq!(json(&["purge", "orders", "--fairness-key", "other"])[0]["purged"], 0);
    let dry = json(&["purge", "orders", "--state", "ready", "--ordering-key", "k", "--dry-run"]);
    assert_eq!((&dry[0]["matched"], &dry[0]["purged"]), (&json!(1), &json!(0)));
    assert_eq!(json(&["purge", "orders", "--all"])[0]["purged"], 1);
}

/// Promise: a paused queue says so, and goes on when told.
#[test]
fn paused_queue_is_shown_and_resumed() {
    let laptop = Laptop::start();
    let _ = laptop.run(&["send", "orders"], b"x\n").exits(0);
    let _ = laptop.run(&["pause", "orders"], b"").exits(0);
    assert_eq!(laptop.run(&["stats", "orders", "--output", "json"], b"").exits(0).json()[0]["paused"], true);
    let _ = laptop.run(&["receive", "orders", "--wait", "0s"], b"").exits(3);
    let _ = laptop.run(&["resume", "orders"], b"").exits(0);
    assert_eq!(laptop.run(&["receive", "orders"], b"").exits(0).stdout(), "x\n");
}

/// Promise: what a laptop stored is there after a crash and after Ctrl-C.
#[test]
fn messages_stay_in_the_data_folder() {
    let mut laptop = Laptop::start();
    let _ = laptop.run(&["send", "orders"], b"before the crash\n").exits(0);
    laptop.dev.take().unwrap().into_process().kill();
    laptop.restart();
    let _ = laptop.run(&["send", "orders"], b"after it\n").exits(0);
    let process = laptop.dev.take().unwrap().into_process();
    process.terminate();
    assert!(process.wait().success());
    laptop.restart();
    let received = laptop.run(&["receive", "orders", "--max", "0", "--wait", "1s"], b"").exits(0);
    assert_eq!(received.stdout(), "before the crash\nafter it\n");
}

/// Promise: what goes wrong is said in a sentence, with the exit code that says whose mistake it was.
#[test]
fn mistakes_are_told_with_their_exit_code() {
    let laptop = Laptop::start();
    let unknown = laptop.run(&["send", "oders"], b"x\n").exits(1);
    assert!(
        unknown.stderr().contains("oders") && unknown.stderr().contains("QUEUE_NOT_FOUND"),
        "{}",
        unknown.stderr()
    );
    let malformed = laptop.run(&["send", "Orders"], b"x\n").exits(2);
    assert!(malformed.stderr().contains("queue name"), "{}", malformed.stderr());
    let _ = laptop.run(&["peek", "orders", "--state", "gone"], b"").exits(2);

    let address = ackwell_tests::ports::free().to_string();
    let nobody = CommandLine::run(&address, &["stats", "orders"], b"").exits(1);
    assert!(nobody.stderr().contains(&address), "{}", nobody.stderr());
}

/// Promise: a manifest that Kubernetes would refuse is refused here, by field.
#[test]
fn bad_manifest_is_refused_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("queue.yaml");
    std::fs::write(&manifest, MANIFEST.replace("maxAttempts: 2", "maxAttempts: 0")).unwrap();
    let refused = serve(&manifest, folder.path()).exits(1);
    assert!(refused.stderr().contains("maxAttempts"), "{}", refused.stderr());
    let missing = serve(&folder.path().join("none.yaml"), folder.path()).exits(1);
    assert!(missing.stderr().contains("none.yaml"), "{}", missing.stderr());
}

fn serve(manifest: &Path, folder: &Path) -> CommandLine {
    let (manifest, data) = (manifest.to_str().unwrap(), folder.join("data"));
    CommandLine::run(
        "127.0.0.1:1",
        &["dev", manifest, "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()],
        b"",
    )
}
