//! KEDA scales consumers by what waits for them: asked by the client that KEDA publishes, as KEDA asks.
//!
//! `tests/keda` is that client; it is built by Go, once for all tests. Without Go these tests say so and end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use ackwell_proto::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use ackwell_proto::v1::{QueueSettings, Verb};
use ackwell_tests::caller::{Caller, ack, failure};
use ackwell_tests::certificates::{Authority, Shown, replace, text};
use ackwell_tests::processes::{Broker, Certificates, NAMESPACE, QUEUE, placement, settings};
use ackwell_tests::tokens::{Signer, access, grant};
use ackwell_tests::wait::{now, until_async};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// The longest that Receive may be told to wait.
const WAIT: Duration = Duration::from_mins(1);
/// Instead of a file with an authority.
const PLAIN: &str = "-";

/// Where the client is; `None` where there is no Go.
fn client() -> Option<&'static Path> {
    static CLIENT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let client = CLIENT.get_or_init(build).as_deref();
    if client.is_none() {
        println!("skipped: there is no Go to build KEDA's client with");
    }
    client
}

fn build() -> Option<PathBuf> {
    Command::new("go").arg("version").output().ok()?;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/keda");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keda-{}", std::process::id()));
    let status = Command::new("go").args(["build", "-o"]).arg(&built).arg(".").current_dir(folder).status();
    assert!(status.is_ok_and(|status| status.success()), "go build in {folder}");
    Some(built)
}

/// A scaler of KEDA's, and what it hears.
struct Keda {
    process: Child,
    heard: Receiver<String>,
}

impl Keda {
    fn ask(client: &Path, broker: &Broker, ca: &str, trigger: &[&str]) -> Self {
        let mut command = Command::new(client);
        command.args([&broker.address().to_string(), ca]).args(trigger);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
        let lines = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
        let (tell, heard) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { process, heard }
    }

    /// The next thing that it hears.
    fn hears(&self) -> Value {
        let line = self.heard.recv_timeout(SOON).expect("it hears something");
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

/// Nothing times out meanwhile.
fn patient() -> QueueSettings {
    QueueSettings { ack_timeout_seconds: 1000, ..settings() }
}

/// The shards of one queue.
fn shards<const N: usize>() -> [Broker; N] {
    let mut brokers: [Broker; N] = std::array::from_fn(|_| Broker::prepare(patient()));
    let addresses = brokers.each_ref().map(Broker::address);
    for broker in &mut brokers {
        broker.is_among(&addresses);
        broker.restart();
    }
    brokers
}

fn plain(client: &Path, broker: &Broker, trigger: &[&str]) -> Keda {
    Keda::ask(client, broker, PLAIN, trigger)
}

/// Receives and acks everything that is ready.
async fn work_off(caller: &Caller, messages: u32) {
    let held = caller.receive(messages, WAIT).await.unwrap();
    caller.settle(held.iter().map(ack).collect()).await.unwrap();
}

/// Promise: KEDA hears of the messages of all shards, those at consumers included, whichever shard it asks.
#[tokio::test(flavor = "multi_thread")]
async fn keda_scales_by_the_messages_of_all_shards() {
    let Some(client) = client() else { return };
    let brokers: [Broker; 2] = shards();
    for (broker, messages) in brokers.iter().zip([2, 5]) {
        for _ in 0..messages {
            broker.caller().await.send_body("x").await;
        }
    }
    let held = brokers[1].caller().await.receive(4, WAIT).await.unwrap();
    assert_eq!(held.len(), 4);
    for broker in &brokers {
        let keda = plain(client, broker, &["queue=orders", "messagesPerReplica=2.5"]);
        assert_eq!(keda.hears(), json!({"metric": "messages", "target": 2.5, "value": 7, "active": true}));
        assert_eq!(keda.hears(), json!({"pushed": true}));
    }
    brokers[1].caller().await.settle(held.iter().map(ack).collect()).await.unwrap();
    let trigger = ["queue=shop/orders", "activationMessages=3"];
    until_async("the sum to be a new one", SOON, async || {
        let heard = plain(client, &brokers[0], &trigger).hears();
        let expected = json!({"metric": "messages", "target": 10, "value": 3, "active": false});
        anyhow::ensure!(heard == expected, "{heard}");
        Ok(())
    })
    .await;
}

/// Promise: a consumer is woken up without waiting for the next poll, by whichever shard has something.
#[tokio::test(flavor = "multi_thread")]
async fn keda_is_told_when_there_is_something_to_do() {
    let Some(client) = client() else { return };
    let brokers: [Broker; 2] = shards();
    let keda = plain(client, &brokers[0], &["queue=orders"]);
    assert_eq!(keda.hears()["active"], false);
    assert_eq!(keda.hears(), json!({"pushed": false}));
    let caller = brokers[1].caller().await;
    caller.send_body("x").await;
    assert_eq!(keda.hears(), json!({"pushed": true}));
    work_off(&caller, 1).await;
    assert_eq!(keda.hears(), json!({"pushed": false}));
}

/// Promise: what is unknown is an error, on which KEDA leaves the consumers alone; it is never zero.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_is_away_is_an_error_and_not_zero() {
    let Some(client) = client() else { return };
    let mut brokers: [Broker; 2] = shards();
    brokers[1].kill();
    let refused = plain(client, &brokers[0], &["queue=orders"]).hears();
    assert_eq!(refused["refused"], "Unavailable", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(&brokers[1].address().to_string()), "{refused}");
    assert_eq!(plain(client, &brokers[0], &["queue=oders"]).hears()["refused"], "NotFound");
    let wrong = ["queue=orders", "messagesPerReplica=0"];
    assert_eq!(plain(client, &brokers[0], &wrong).hears()["refused"], "InvalidArgument");
}

/// Promise: a broker of a cluster, which knows its callers and has a certificate, answers KEDA, which has no token and the
/// authority as its trigger's `caCert`; KEDA believes nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn keda_needs_the_authority_and_no_token() {
    let Some(client) = client() else { return };
    let (folder, signer) = (tempfile::tempdir().unwrap(), Signer::new("a"));
    let (shown, ours, other) =
        (Shown::in_folder(folder.path()), Authority::new("ours"), Authority::new("other"));
    ours.issue("127.0.0.1", Duration::from_hours(1), &shown);
    let known = access(&[&signer], &[grant(NAMESPACE, &[Verb::Send])]);
    let broker = Broker::prepare(patient()).for_known(known).with(&shown.flags());
    let mut broker = broker.with(&["--plain-loopback"]);
    broker.restart();
    let caller = broker.caller().await;
    let refused = failure(&caller.send(vec![ackwell_tests::caller::message("x")]).await.unwrap_err());
    assert_eq!(refused.reason, Reason::Unauthenticated, "whoever sends shows a token");
    caller.with_token(&signer.token("shop/app")).send_body("x").await;

    let (ca, wrong) = (folder.path().join("ca.crt"), folder.path().join("wrong.crt"));
    replace(&ca, ours.pem());
    replace(&wrong, other.pem());
    let keda = Keda::ask(client, &broker, text(&ca), &["queue=orders"]);
    assert_eq!(keda.hears(), json!({"metric": "messages", "target": 10, "value": 1, "active": true}));
    assert_eq!(keda.hears(), json!({"pushed": true}));
    let refused = Keda::ask(client, &broker, text(&wrong), &["queue=orders"]).hears();
    assert_eq!(refused["refused"], "Unavailable", "{refused}");
}

/// Promise: in a cluster, too, any shard tells KEDA of all of them: shards show each other who they are.
#[tokio::test(flavor = "multi_thread")]
async fn shards_that_know_each_other_tell_keda_of_all() {
    let Some(client) = client() else { return };
    let certificates = Certificates::new();
    let mut shards = certificates.shards(2, patient(), placement(1, 2, 2));
    for (ordinal, messages) in [(0, 2), (1, 5)] {
        for _ in 0..messages {
            shards.broker(ordinal).caller().await.send_body("x").await;
        }
    }
    let keda = Keda::ask(client, shards.broker(0), text(&certificates.bundle()), &["queue=orders"]);
    assert_eq!(keda.hears(), json!({"metric": "messages", "target": 10, "value": 7, "active": true}));
}

fn trigger() -> ScaledObjectRef {
    let scaler_metadata = [("queue".to_owned(), QUEUE.to_owned())].into();
    ScaledObjectRef { scaler_metadata, ..ScaledObjectRef::default() }
}

type Scaler = ExternalScalerClient<Channel>;

async fn scaler(broker: &Broker) -> Scaler {
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address())).unwrap();
    ExternalScalerClient::new(endpoint.connect().await.unwrap())
}

async fn watch(scaler: &mut Scaler) -> Result<Streaming<IsActiveResponse>, Status> {
    Ok(scaler.stream_is_active(trigger()).await?.into_inner())
}

/// Promise: whoever reaches the port cannot make a broker look without end: streams have a limit, and places come back.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_limited() {
    let [broker] = shards();
    let mut scaler = scaler(&broker).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = watch(&mut scaler).await.unwrap();
        assert!(!stream.message().await.unwrap().unwrap().result);
        streams.push(stream);
    }
    assert_eq!(failure(&watch(&mut scaler).await.unwrap_err()).reason, Reason::Busy);
    streams.pop();
    until_async("the place to be free", SOON, async || Ok(watch(&mut scaler).await?)).await;
}

/// Promise: many calls to one shard are few to the others.
#[tokio::test(flavor = "multi_thread")]
async fn other_shards_are_asked_twice_a_second_at_most() {
    let brokers: [Broker; 2] = shards();
    let (mut scaler, begun) = (scaler(&brokers[0]).await, now());
    for _ in 0..200 {
        let request =
            GetMetricsRequest { scaled_object_ref: Some(trigger()), ..GetMetricsRequest::default() };
        scaler.get_metrics(request).await.unwrap();
    }
    let most = 2.0 + 2.0 * begun.elapsed().as_secs_f64();
    let metrics = brokers[1].metrics();
    let counted =
        metrics.lines().find(|line| line.starts_with("ackwell_calls_total{method=\"other\",result=\"OK\"}"));
    let counted: f64 = counted.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1.0..=most).contains(&counted), "{counted} of at most {most}");
}
