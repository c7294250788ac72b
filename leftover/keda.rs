//! KEDA scales consumers by what waits for them: asked by the client that KEDA publishes, as KEDA asks.
//!
//! `tests/keda` is that client; it is built by Go once for all tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ackwell_tests::caller::ack;
use ackwell_tests::processes::{Broker, settings};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// Where the client is; `None` where there is no Go.
fn client() -> Option<&'static Path> {
    static CLIENT: OnceLock<Option<PathBuf>> = OnceLock::new();
    CLIENT.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    Command::new("go").arg("version").output().ok()?;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/keda");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keda-client");
    let status = Command::new("go").args(["build", "-o"]).arg(&built).arg(".").current_dir(folder).status();
    assert!(status.is_ok_and(|status| status.success()), "go build in {folder}");
    Some(built)
}

/// A scaler that KEDA has, with what it was told so far.
struct Keda {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Keda {
    fn ask(client: &Path, broker: &Broker, trigger: &[&str]) -> Self {
        let mut command = Command::new(client);
        command.arg(broker.address().to_string()).args(trigger).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it was built");
        let lines = BufReader::new(process.stdout.take().expect("it is a pipe"));
        Self { process, lines }
    }

    /// The next thing that it hears.
    fn hears(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it is a pipe");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Keda {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Promise: KEDA hears of the messages of all shards, those at consumers included, whichever shard it asks.
#[tokio::test(flavor = "multi_thread")]
async fn keda_scales_by_the_messages_of_all_shards() {
    let Some(client) = client() else { return };
    let brokers = Broker::start_shards(settings(), 2);
    for (broker, messages) in brokers.iter().zip([2, 5]) {
        for _ in 0..messages {
            broker.caller().await.send_body("x").await;
        }
    }
    let held = brokers[1].caller().await.receive(4, SOON).await.unwrap();
    for broker in &brokers {
        let mut keda = Keda::ask(client, broker, &["queue=orders", "messagesPerReplica=2.5"]);
        assert_eq!(keda.hears(), json!({"metric": "messages", "target": 2.5, "value": 7, "active": true}));
        assert_eq!(keda.hears(), json!({"pushed": true}));
    }
    brokers[1].caller().await.settle(held.iter().map(ack).collect()).await.unwrap();
    let mut keda = Keda::ask(client, &brokers[0], &["queue=shop/orders", "activationMessages=3"]);
    assert_eq!(keda.hears(), json!({"metric": "messages", "target": 10, "value": 3, "active": false}));
    assert_eq!(keda.hears(), json!({"pushed": false}));
}

/// Promise: a consumer is woken up without waiting for the next poll, by whichever shard has something.
#[tokio::test(flavor = "multi_thread")]
async fn keda_is_told_at_once_when_there_is_something_to_do() {
    let Some(client) = client() else { return };
    let brokers = Broker::start_shards(settings(), 2);
    let mut keda = Keda::ask(client, &brokers[0], &["queue=orders"]);
    assert_eq!(keda.hears()["active"], false);
    assert_eq!(keda.hears(), json!({"pushed": false}));
    brokers[1].caller().await.send_body("x").await;
    assert_eq!(keda.hears(), json!({"pushed": true}));
    let held = brokers[1].caller().await.receive(1, SOON).await.unwrap();
    brokers[1].caller().await.settle(held.iter().map(ack).collect()).await.unwrap();
    assert_eq!(keda.hears(), json!({"pushed": false}));
}

/// Promise: what is unknown is an error, on which KEDA leaves the consumers alone; it is never zero.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_is_away_is_an_error_and_not_zero() {
    let Some(client) = client() else { return };
    let mut brokers = Broker::start_shards(settings(), 2);
    brokers[1].kill();
    let mut keda = Keda::ask(client, &brokers[0], &["queue=orders"]);
    let refused = keda.hears();
    assert_eq!(refused["refused"], "Unavailable", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(&brokers[1].address().to_string()), "{refused}");
    let mut keda = Keda::ask(client, &brokers[0], &["queue=oders"]);
    assert_eq!(keda.hears()["refused"], "NotFound");
    let mut keda = Keda::ask(client, &brokers[0], &["queue=orders", "messagesPerReplica=0"]);
    assert_eq!(keda.hears()["refused"], "InvalidArgument");
}
