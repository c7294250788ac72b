//! Who may do what: callers prove who they are by a token of their ServiceAccount, and what is not granted is refused.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ackwell_proto::v1::produce_request::Frame as Produced;
use ackwell_proto::v1::{
    Access, ArriveRequest, CancelRequest, CommitRequest, ExplainRequest, ExtendRequest, GetRequest, Grant,
    ImportRequest, PauseRequest, PeekRequest, ProduceOpen, ProduceRequest, PurgeRequest, RedriveRequest,
    RouteRequest, RunTaskRequest, SendRequest, SettleRequest, StatsRequest, Verb,
};
use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, failure, message};
use ackwell_tests::certificates::{Authority, Shown, replace, text};
use ackwell_tests::processes::{Broker, CommandLine, NAMESPACE, QUEUE, Sidecar, settings};
use ackwell_tests::tokens::{OPERATOR, Signer, access, grant, seconds};
use ackwell_tests::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::consume::Stream;

/// Everything here comes well within this: a process looks at its files every 5 s.
const SOON: Duration = Duration::from_secs(40);
const NOBODY: &str = "0199d3a8-0000-7000-8000-000000000001";
const OWN: [Verb; 2] = [Verb::Send, Verb::Consume];

fn own() -> Vec<Grant> {
    vec![grant(NAMESPACE, &OWN)]
}

fn guarded(access: Access) -> Broker {
    let mut broker = Broker::prepare(settings()).for_known(access);
    broker.restart();
    broker
}

async fn caller(broker: &Broker, token: &str) -> Caller {
    broker.caller().await.with_token(token)
}

/// A call of the API by its name, as small as it can be; what it answers does not matter.
async fn call(caller: &Caller, name: &str) -> Result<(), Status> {
    let queue = || QUEUE.to_owned();
    let (mut queues, mut admin, id) = (caller.queues.clone(), caller.admin.clone(), NOBODY.to_owned());
    let settle = SettleRequest { queue: queue(), settlements: Vec::new() };
    let send = SendRequest { queue: queue(), messages: vec![message("x")], ..SendRequest::default() };
    let stats = StatsRequest { queue: queue(), interval: None };
    match name {
        "Send" => queues.send(send).await.map(drop),
        "Produce" => {
            let open = ProduceOpen { queue: queue(), ..ProduceOpen::default() };
            let open = ProduceRequest { frame: Some(Produced::Open(open)) };
            queues.produce(tokio_stream::iter([open])).await.map(drop)
        }
        "Commit sends" => {
            queues.commit(CommitRequest { send: vec![send], ..CommitRequest::default() }).await.map(drop)
        }
        "Receive" => caller.receive(1, Duration::ZERO).await.map(drop),
        "Consume" => consume(caller).await,
        "Settle" => queues.settle(settle).await.map(drop),
        "Extend" => {
            queues.extend(ExtendRequest { queue: queue(), ..ExtendRequest::default() }).await.map(drop)
        }
        "Commit settles" => {
            let commit = CommitRequest { settle: vec![settle], send: vec![send], ..CommitRequest::default() };
            queues.commit(commit).await.map(drop)
        }
        "Peek" => admin.peek(PeekRequest { queue: queue(), ..PeekRequest::default() }).await.map(drop),
        "Get" => admin.get(GetRequest { queue: queue(), id }).await.map(drop),
        "Explain" => admin.explain(ExplainRequest { queue: queue(), id }).await.map(drop),
        "Redrive" => {
            admin.redrive(RedriveRequest { queue: queue(), ..RedriveRequest::default() }).await.map(drop)
        }
        "Purge" => admin.purge(PurgeRequest { queue: queue(), ..PurgeRequest::default() }).await.map(drop),
        "Cancel" => admin.cancel(CancelRequest { queue: queue(), ids: vec![id] }).await.map(drop),
        "Pause" => admin.pause(PauseRequest { queue: queue(), paused: false }).await.map(drop),
        "Stats" => admin.stats(stats).await.map(drop),
        "WatchStats" => admin.watch_stats(stats).await.map(drop),
        "Route" => caller.shard.clone().route(RouteRequest { queue: queue() }).await.map(drop),
        "Arrive" => {
            let arrive = ArriveRequest { queue: queue(), ..ArriveRequest::default() };
            caller.shard.clone().arrive(arrive).await.map(drop)
        }
        "RunTask" => {
            let run = RunTaskRequest { queue: queue(), ..RunTaskRequest::default() };
            caller.shard.clone().run_task(run).await.map(drop)
        }
        "Import" => {
            let import = ImportRequest { queue: queue(), ..ImportRequest::default() };
            caller.shard.clone().import(import).await.map(drop)
        }
        other => panic!("there is no call {other}"),
    }
}

async fn consume(caller: &Caller) -> Result<(), Status> {
    use ackwell_proto::v1::consume_request::Frame;
    use ackwell_proto::v1::{ConsumeRequest, Open};
    let open = Open { queue: QUEUE.to_owned(), ..Open::default() };
    let open = ConsumeRequest { frame: Some(Frame::Open(open)) };
    caller.queues.clone().consume(tokio_stream::iter([open])).await.map(drop)
}

/// Every call, and who may make it. `Commit` needs both verbs where it does both.
const CALLS: [(&str, &[&str]); 21] = [
    ("Send", &["send", "both"]),
    ("Produce", &["send", "both"]),
    ("Commit sends", &["send", "both"]),
    ("Receive", &["consume", "both"]),
    ("Consume", &["consume", "both"]),
    ("Settle", &["consume", "both"]),
    ("Extend", &["consume", "both"]),
    ("Commit settles", &["both"]),
    ("Peek", &["peek"]),
    ("Get", &["peek"]),
    ("Explain", &["peek"]),
    ("Redrive", &["admin"]),
    ("Purge", &["admin"]),
    ("Cancel", &["admin"]),
    ("Pause", &["admin"]),
    ("Stats", &["send", "consume", "both", "peek", "admin", "operator"]),
    ("WatchStats", &["send", "consume", "both", "peek", "admin", "operator"]),
    ("Route", &["send", "consume", "both", "peek", "admin", "operator"]),
    ("RunTask", &["operator"]),
    // Of other shards, which no token proves.
    ("Arrive", &[]),
    ("Import", &[]),
];

fn refused_as_denied(status: &Status) -> bool {
    Failure::from_status(status).is_some_and(|failure| failure.reason == Reason::PermissionDenied)
}

/// Promise: a verb opens its own calls and no others; who has none, or lives in another namespace, can do nothing.
#[tokio::test]
async fn each_verb_opens_its_own_calls_and_no_others() {
    let signer = Signer::new("1");
    let grants = [
        grant("shop/send", &[Verb::Send]),
        grant("shop/consume", &[Verb::Consume]),
        grant("shop/both", &OWN),
        grant("shop/peek", &[Verb::Peek]),
        grant("shop/admin", &[Verb::Admin]),
    ];
    let broker = guarded(access(&[&signer], &grants));
    let accounts = ["send", "consume", "both", "peek", "admin", "other", "operator", "stranger"];
    for account in accounts {
        let full = match account {
            "operator" => OPERATOR.to_owned(),
            "stranger" => "elsewhere/both".to_owned(),
            own => format!("shop/{own}"),
        };
        let caller = caller(&broker, &signer.token(&full)).await;
        for (name, may) in CALLS {
            let answer = call(&caller, name).await;
            let is_denied = answer.as_ref().is_err_and(refused_as_denied);
            assert_eq!(is_denied, !may.contains(&account), "{full} calls {name}: {answer:?}");
        }
        let configured = caller.configure(broker.config().clone()).await;
        assert_eq!(configured.is_ok(), account == "operator", "{full} configures: {configured:?}");
    }
}

/// Promise: without a token, and with one that is not good, nothing can be done, by none of the calls; what is wrong is said.
#[tokio::test]
async fn who_proves_nothing_is_refused() {
    let (signer, forger) = (Signer::new("1"), Signer::new("1"));
    let broker = guarded(access(
        &[&signer],
        &[grant(NAMESPACE, &[Verb::Send, Verb::Consume, Verb::Peek, Verb::Admin])],
    ));
    let bad = [
        (String::new(), "no token"),
        (forger.token("shop/api"), "InvalidSignature"),
        (
            signer.edited("shop/api", |claims| claims["aud"] = json!(["https://kubernetes"])),
            "InvalidAudience",
        ),
        (signer.edited("shop/api", |claims| claims["exp"] = json!(seconds() - 30)), "ExpiredSignature"),
        (signer.edited("shop/api", |claims| claims["iss"] = json!("https://another")), "InvalidIssuer"),
        (Signer::new("2").token("shop/api"), "does not publish"),
    ];
    for (token, says) in bad {
        let nobody = broker.caller().await;
        let caller = if token.is_empty() { nobody } else { nobody.with_token(&token) };
        // Few enough not to be an attack: all of them come from one address.
        let of_tokens = CALLS.iter().filter(|(_, may)| !may.is_empty());
        for (name, _) in of_tokens.filter(|_| says == "no token").chain(&CALLS[..2]) {
            let status = call(&caller, name).await.expect_err(says);
            let refused = failure(&status);
            assert_eq!((refused.reason, status.code()), (Reason::Unauthenticated, Code::Unauthenticated));
            assert!(refused.message.contains(says), "{name}: {refused}");
        }
        for name in ["Arrive", "Import"] {
            let status = call(&caller, name).await.expect_err(says);
            assert!(refused_as_denied(&status), "{name}: {status:?}");
        }
        assert!(caller.configure(broker.config().clone()).await.is_err(), "{says}");
    }
    caller(&broker, &signer.token("shop/api")).await.send_body("a good one").await;
}

/// Promise: curl is asked who it is like everybody else, and no queue is named to those who do not say.
#[tokio::test]
async fn json_is_guarded_like_grpc() {
    let signer = Signer::new("1");
    let broker = guarded(access(&[&signer], &[grant("shop/api", &[Verb::Send])]));
    let send = r#"{"messages": [{"body": "eA=="}]}"#;
    for (path, body) in [
        ("POST /v1/queues/orders/messages", send),
        ("POST /v1/queues/orders/receive", "{}"),
        ("POST /v1/queues/orders/settle", "{}"),
        ("POST /v1/queues/orders/peek", "{}"),
        ("GET /v1/queues/orders/messages", ""),
        ("GET /v1/queues/orders/stats", ""),
    ] {
        let answer = http(broker.address(), path, body, None).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("UNAUTHENTICATED"), "{path}: {answer}");
    }
    let token = signer.token("shop/api");
    let stored = http(broker.address(), "POST /v1/queues/orders/messages", send, Some(&token)).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let denied = http(broker.address(), "POST /v1/queues/orders/receive", "{}", Some(&token)).await;
    assert!(denied.starts_with("HTTP/1.1 403") && denied.contains("PERMISSION_DENIED"), "{denied}");
    let unknown = http(broker.address(), "GET /v1/queues/oders/stats", "", None).await;
    assert!(unknown.starts_with("HTTP/1.1 404") && !unknown.contains("orders"), "{unknown}");
}

async fn http(address: SocketAddr, call: &str, body: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "{call} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n{token}\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Promise: a message says who sent it, as the broker saw it; nobody says it of themselves.
#[tokio::test]
async fn sender_is_stamped_and_cannot_be_forged() {
    let signer = Signer::new("1");
    let broker = guarded(access(&[&signer], &[grant(NAMESPACE, &OWN)]));
    let (api, web) = (signer.token("shop/api"), signer.token("shop/web"));
    let (api, web) = (caller(&broker, &api).await, caller(&broker, &web).await);
    api.send_body("x").await;
    let delivery = web.receive_one().await;
    assert_eq!(delivered(&delivery).headers["ackwell-sender"], "shop/api");
    let mut forged = message("x");
    forged.headers.insert("ackwell-sender".to_owned(), "shop/api".to_owned());
    assert_eq!(web.try_send(forged).await.unwrap_err().reason, Reason::InvalidArgument);
    let send =
        SendRequest { queue: QUEUE.to_owned(), messages: vec![message("y")], ..SendRequest::default() };
    let settle = SettleRequest { queue: QUEUE.to_owned(), settlements: vec![ack(&delivery)] };
    let commit = CommitRequest { settle: vec![settle], send: vec![send], ..CommitRequest::default() };
    web.queues.clone().commit(commit).await.unwrap();
    assert_eq!(delivered(&api.receive_one().await).headers["ackwell-sender"], "shop/web");
}

/// Streams of all kinds, and a call that waits, of one caller.
struct Open {
    consume: Stream,
    calls: Vec<(&'static str, tokio::task::JoinHandle<Status>)>,
}

impl Open {
    async fn all(caller: &Caller) -> Self {
        let consume = Stream::open(caller, 1, Vec::new()).await;
        let (produce, watch, receive) = (caller.clone(), caller.clone(), caller.clone());
        let (asks, requests) = tokio::sync::mpsc::channel(1);
        let open = ProduceOpen { queue: QUEUE.to_owned(), ..ProduceOpen::default() };
        asks.send(ProduceRequest { frame: Some(Produced::Open(open)) }).await.unwrap();
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut produced = produce.queues.clone().produce(requests).await.unwrap().into_inner();
        let produce = async move {
            let _open = asks;
            ended(&mut produced).await
        };
        let stats = StatsRequest { queue: QUEUE.to_owned(), interval: None };
        let mut watched = watch.admin.clone().watch_stats(stats).await.unwrap().into_inner();
        let watch = async move { ended(&mut watched).await };
        // The stream's consumer came first and takes what there is.
        let receive =
            async move { receive.receive(1, Duration::from_mins(1)).await.expect_err("it is ended") };
        let calls = vec![
            ("Produce", tokio::spawn(produce)),
            ("WatchStats", tokio::spawn(watch)),
            ("Receive", tokio::spawn(receive)),
        ];
        Self { consume, calls }
    }

    /// Why each of them was ended.
    async fn ended(mut self, reason: Reason) {
        let refused = failure(&self.consume.refused().await);
        assert_eq!(refused.reason, reason, "Consume: {refused}");
        for (name, call) in self.calls {
            let status =
                tokio::time::timeout(SOON, call).await.unwrap_or_else(|_| panic!("{name} goes on")).unwrap();
            assert_eq!(failure(&status).reason, reason, "{name}: {status:?}");
        }
    }
}

async fn ended<T>(stream: &mut tonic::Streaming<T>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("ended without a word"),
            Err(status) => return status,
        }
    }
}

/// Promise: when a grant is taken away, what was opened by it ends at once, and what its holder held is free for others.
#[tokio::test]
async fn streams_end_with_their_grant() {
    let signer = Signer::new("1");
    let both = [grant("shop/api", &OWN), grant("shop/web", &OWN)];
    let mut broker = guarded(access(&[&signer], &both));
    let operator = caller(&broker, &signer.token(OPERATOR)).await;
    let (api, web) =
        (caller(&broker, &signer.token("shop/api")).await, caller(&broker, &signer.token("shop/web")).await);
    let id = web.send_body("held").await;
    let mut open = Open::all(&api).await;
    let held = open.consume.deliveries(1).await;
    assert_eq!(delivered(&held[0]).id, id);
    // Who keeps its grant keeps its streams, whatever else changes.
    let mut kept = Stream::open(&web, 1, Vec::new()).await;
    broker.let_in(&operator, access(&[&signer], &both[1..])).await;
    open.ended(Reason::PermissionDenied).await;
    assert_eq!(failure(&call(&api, "Send").await.unwrap_err()).reason, Reason::PermissionDenied);
    let next = kept.deliveries(1).await;
    assert_eq!((delivered(&next[0]).id.as_str(), delivered(&next[0]).attempts), (id.as_str(), 0));
    kept.settle(1, vec![ack(&next[0])]).await;
}

/// Promise: a stream outlives its token by no more than the leeway of clocks; what is held waits for its consumer, who may
/// have another one.
#[tokio::test]
async fn streams_end_with_their_token() {
    let signer = Signer::new("1");
    let broker = guarded(access(&[&signer], &own()));
    // Of the ten seconds in which an expired one is still taken, some are left.
    let expiry = seconds() - 4;
    let short = signer.edited("shop/api", |claims| claims["exp"] = json!(expiry));
    let web = caller(&broker, &signer.token("shop/api")).await;
    web.send_body("held").await;
    let mut open = Open::all(&caller(&broker, &short).await).await;
    let held = open.consume.deliveries(1).await;
    open.ended(Reason::TokenExpired).await;
    assert!(seconds() >= expiry + 10, "not before");
    assert_eq!(
        failure(&call(&caller(&broker, &short).await, "Send").await.unwrap_err()).reason,
        Reason::Unauthenticated
    );
    let receipts = held.iter().map(|delivery| delivery.receipt.to_vec()).collect();
    let mut resumed = Stream::open(&web, 1, receipts).await;
    resumed.settle(1, vec![ack(&held[0])]).await;
}

/// A pod whose sidecar shows the token in a file.
struct Pod {
    folder: TempDir,
    sidecar: Sidecar,
}

impl Pod {
    fn start(broker: &Broker, authority: &Authority, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        replace(&file("ca.crt"), authority.pem());
        replace(&file("token"), token);
        let (bundle, token) = (file("ca.crt"), file("token"));
        let sidecar =
            Sidecar::start_with(broker, &["--broker-ca", text(&bundle), "--token-file", text(&token)]);
        Self { folder, sidecar }
    }

    /// As the kubelet does; returns once it is taken.
    fn renew(&self, token: &str) {
        let seen = || self.sidecar.log().matches("token replaced").count();
        let before = seen();
        replace(&self.folder.path().join("token"), token);
        until("the sidecar to take the new token", SOON, || {
            if seen() > before { Ok(()) } else { Err(anyhow::anyhow!("still the old one")) }
        });
    }
}

fn secured(folder: &Path, authority: &Authority, access: Access) -> Broker {
    let shown = Shown::in_folder(folder);
    authority.issue("127.0.0.1", Duration::from_hours(1), &shown);
    let broker = Broker::prepare(settings()).with(&shown.flags()).with(&["--plain-loopback"]);
    let mut broker = broker.for_known(access);
    broker.restart();
    broker
}

/// Promise: the cluster changes its keys, and pods their tokens, while messages flow, and no application notices: not by
/// calls, and not on a stream that stays open through all of it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_messages_flow() {
    let (old, new) = (Signer::new("1"), Signer::new("2"));
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let mut broker = secured(folder.path(), &authority, access(&[&old], &own()));
    let pod = Pod::start(&broker, &authority, &old.token("shop/api"));
    let caller = pod.sidecar.caller().await;
    let mut stream = Stream::open(&caller, 1, Vec::new()).await;
    let mut operator = broker.caller().await.with_token(&old.token(OPERATOR));
    let mut seq = 0;
    for step in 0..3 {
        match step {
            0 => broker.let_in(&operator, access(&[&old, &new], &own())).await,
            1 => {
                pod.renew(&new.token("shop/api"));
                operator = operator.with_token(&new.token(OPERATOR));
            }
            _ => broker.let_in(&operator, access(&[&new], &own())).await,
        }
        for _ in 0..20 {
            seq += 1;
            let id = caller.send_body("on its way").await;
            let delivery = stream.deliveries(1).await;
            assert_eq!(delivered(&delivery[0]).id, id, "each once, in step {step}");
            stream.settle(seq, vec![ack(&delivery[0])]).await;
        }
    }
    let gone = broker.caller().await.with_token(&old.token("shop/api"));
    assert_eq!(failure(&call(&gone, "Send").await.unwrap_err()).reason, Reason::Unauthenticated);
    assert_eq!(caller.stats().await.in_flight, 0);
}

/// Promise: an application hears from its sidecar that it may not do something, at once and with the broker's own words.
#[tokio::test(flavor = "multi_thread")]
async fn sidecar_passes_on_what_its_pod_may_not_do() {
    let signer = Signer::new("1");
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let mut broker = secured(folder.path(), &authority, access(&[&signer], &own()));
    let pod = Pod::start(&broker, &authority, &signer.token("shop/api"));
    let caller = pod.sidecar.caller().await;
    let mut stream = Stream::open(&caller, 1, Vec::new()).await;
    assert!(refused_as_denied(&call(&caller, "Purge").await.unwrap_err()));
    let operator = broker.caller().await.with_token(&signer.token(OPERATOR));
    broker.let_in(&operator, access(&[&signer], &[grant("shop/web", &OWN)])).await;
    let ended = stream.refused().await;
    assert!(refused_as_denied(&ended) && ended.message().contains("shop/api"), "{ended:?}");
    for name in ["Send", "Receive", "Commit settles", "Peek"] {
        let status = tokio::time::timeout(SOON, call(&caller, name)).await.expect("at once").unwrap_err();
        assert!(refused_as_denied(&status), "{name}: {status:?}");
    }
    assert!(refused_as_denied(&Stream::open(&caller, 1, Vec::new()).await.refused().await));
}

/// Promise: every admin act is in the log, with who did it and how many messages it changed; no body ever is, nor a token.
#[tokio::test]
async fn admin_acts_are_in_the_log_and_bodies_and_tokens_are_not() {
    let signer = Signer::new("1");
    let all = [Verb::Send, Verb::Consume, Verb::Peek, Verb::Admin];
    let broker = guarded(access(&[&signer], &[grant("shop/people", &all)]));
    let token = signer.token("shop/people");
    let caller = caller(&broker, &token).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(caller.send_body("secret-of-the-sender").await);
    }
    assert_eq!(caller.peek(&[]).await.len(), 3);
    for name in ["Pause", "Redrive"] {
        call(&caller, name).await.unwrap();
    }
    let cancel = CancelRequest { queue: QUEUE.to_owned(), ids: vec![ids.remove(0), NOBODY.to_owned()] };
    caller.admin.clone().cancel(cancel).await.unwrap();
    for dry_run in [true, false] {
        let purge = PurgeRequest { queue: QUEUE.to_owned(), dry_run, ..PurgeRequest::default() };
        caller.admin.clone().purge(purge).await.unwrap();
    }
    let log = broker.log();
    let acts: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let acts: Vec<_> = acts.iter().filter(|line| line["message"] == "audit").collect();
    for (act, says) in [
        ("resume", json!({})),
        ("redrive", json!({"dry_run": false, "matched": 0, "changed": 0})),
        ("cancel", json!({"matched": 2, "changed": 1})),
        ("purge", json!({"dry_run": true, "matched": 2, "changed": 0})),
        ("purge", json!({"dry_run": false, "matched": 2, "changed": 2})),
    ] {
        let mut says = says.as_object().unwrap().clone();
        says.extend([
            ("act".into(), act.into()),
            ("who".into(), "shop/people".into()),
            ("queue".into(), "shop/orders".into()),
        ]);
        let is_it = |line: &&Value| says.iter().all(|(name, value)| &line[name] == value);
        assert!(acts.iter().any(is_it), "no line says {says:?} in\n{log}");
    }
    let signature = token.rsplit('.').next().unwrap();
    assert!(!log.contains("secret-of-the-sender") && !log.contains(signature), "{log}");
}

/// Promise: people show a token by a variable, which goes to no other machine unencrypted.
#[tokio::test(flavor = "multi_thread")]
async fn command_line_shows_a_token() {
    let signer = Signer::new("1");
    let broker = guarded(access(&[&signer], &[grant("shop/people", &[Verb::Peek])]));
    let address = broker.address().to_string();
    let stats = ["stats", QUEUE, "--output", "json"];
    let refused = CommandLine::run(&address, &stats, b"").exits(1);
    assert!(refused.stderr().contains("UNAUTHENTICATED"), "{}", refused.stderr());
    let token = signer.token("shop/people");
    let _ = CommandLine::run_as(&address, &stats, b"", &token).exits(0);
    let denied = CommandLine::run_as(&address, &["send", QUEUE, "--body", "x"], b"", &token).exits(1);
    assert!(denied.stderr().contains("PERMISSION_DENIED"), "{}", denied.stderr());
}
