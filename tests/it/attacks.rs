//! Attacks on a broker: it goes on serving others, and its memory stays bounded.
//!
//! Attackers call from another address of the loopback, as they would from another machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ackwell_proto::v1::{PeekRequest, StatsRequest, Verb};
use ackwell_tests::caller::{Caller, ack, delivered};
use ackwell_tests::certificates::{Authority, Shown};
use ackwell_tests::processes::{Broker, QUEUE, settings};
use ackwell_tests::tokens::{Signer, access, grant};
use ackwell_tests::wait::{now, until_async};
use anyhow::ensure;
use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tonic::codegen::http::{Request, Response};

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// What a call may take while the broker is attacked on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// An idle broker has about 20 MiB; no attack here may take more than this.
const MAX_MEMORY: u64 = 256 << 20;
/// More than one address may have open.
const CONNECTIONS: usize = 1100;

async fn attack(broker: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((ATTACKER, 0)))?;
    socket.connect(broker).await
}

async fn attack_h2(broker: SocketAddr) -> anyhow::Result<SendRequest<bytes::Bytes>> {
    let (client, connection) = h2::client::handshake(attack(broker).await?).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A call that anybody may make, with more headers.
fn call(headers: usize) -> Request<()> {
    let request =
        Request::post("http://broker/ackwell.v1.Queues/Send").header("content-type", "application/grpc");
    let more = (0..headers).map(|number| (format!("x-{number}"), "y".repeat(1000)));
    more.fold(request, |request, (name, value)| request.header(name, value)).body(()).unwrap()
}

/// That another caller is served now, and that the broker has not grown.
async fn assert_serves(broker: &Broker) {
    let served = async {
        let caller = broker.caller().await;
        let id = caller.send_body("through an attack").await;
        let delivery = caller.receive_one().await;
        assert_eq!(delivered(&delivery).id, id);
        caller.settle_one(ack(&delivery)).await.unwrap();
    };
    timeout(PATIENCE, served).await.expect("others are served");
    assert!(broker.memory() < MAX_MEMORY, "{} bytes", broker.memory());
}

/// Promise: who opens connections and says nothing takes no place from others, and loses them soon.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end() {
    let folder = tempfile::tempdir().unwrap();
    let shown = Shown::in_folder(folder.path());
    Authority::new("authority").issue("127.0.0.1", Duration::from_hours(1), &shown);
    let mut broker = Broker::prepare(settings()).with(&shown.flags()).with(&["--plain-loopback"]);
    broker.restart();
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = attack(broker.address()).await.unwrap();
        // Half of them begin a handshake, half say nothing at all.
        if number % 2 == 0 {
            _ = connection.write_all(&[0x16, 3, 1]).await;
        }
        held.push(connection);
    }
    assert_serves(&broker).await;
    for connection in &mut held {
        // Closed in peace or not: it is over.
        _ = timeout(PATIENCE, connection.read_to_end(&mut Vec::new())).await.expect("it is closed");
    }
}

/// Promise: one address has at most 1024 connections; another is served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_end() {
    let broker = Broker::start(settings());
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(attack(broker.address()).await.unwrap());
    }
    assert_serves(&broker).await;
    let mut refused = 0;
    for connection in &mut held {
        let read = timeout(Duration::from_millis(20), connection.read(&mut [0])).await;
        refused += usize::from(read.is_ok_and(|read| !read.is_ok_and(|bytes| bytes > 0)));
    }
    assert!(refused >= CONNECTIONS - 1024, "{refused} refused");
}

/// Promise: who opens calls and takes them back at once, thousands a second, is cut off (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset() {
    let broker = Broker::start(settings());
    let mut cut = 0;
    for _ in 0..10 {
        let mut client = attack_h2(broker.address()).await.unwrap();
        for _ in 0..2000 {
            let Ok(ready) = client.clone().ready().await else { break };
            client = ready;
            let Ok((_, mut stream)) = client.send_request(call(0), false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
        }
        cut += usize::from(client.ready().await.is_err());
        assert_serves(&broker).await;
    }
    assert!(cut > 0, "no connection was cut off");
}

/// Promise: headers beyond 64 KiB are refused before anything is done with them.
#[tokio::test(flavor = "multi_thread")]
async fn huge_header_lists() {
    let broker = Broker::start(settings());
    for _ in 0..20 {
        let mut client = attack_h2(broker.address()).await.unwrap().ready().await.unwrap();
        let refused = match client.send_request(call(1000), true) {
            Err(_) => true,
            Ok((response, _)) => !response.await.is_ok_and(|response| response.status().is_success()),
        };
        assert!(refused, "a megabyte of headers was taken");
    }
    assert_serves(&broker).await;
}

/// Promise: streams that are opened and say nothing are bounded in number, and in what they take.
#[tokio::test(flavor = "multi_thread")]
async fn endless_small_streams() {
    let broker = Broker::start(settings());
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut client = attack_h2(broker.address()).await.unwrap();
        for _ in 0..3000 {
            let Ok(Ok(ready)) = timeout(Duration::from_millis(50), client.clone().ready()).await else {
                break;
            };
            client = ready;
            let Ok(stream) = client.send_request(call(0), false) else { break };
            held.push(stream);
        }
    }
    assert!(held.len() >= 8 * 100, "{} streams are open", held.len());
    assert_serves(&broker).await;
    drop(held);
    until_async("the broker to forget them", PATIENCE, async || {
        let caller = Caller::connect(broker.address(), QUEUE).await;
        ensure!(caller.stats().await.consumers == 0, "still there");
        Ok(())
    })
    .await;
}

/// Promise: who asks for much and reads nothing is refused more of it, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn slow_reads() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    for _ in 0..4 {
        caller.send_body(vec![7; 700 << 10]).await;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        let stream = attack(broker.address()).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0).initial_connection_window_size(65_535);
        let (mut client, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..200 {
            client = client.ready().await.unwrap();
            let (answer, mut body) = client.send_request(peek(), false).unwrap();
            body.send_data(framed(&whole_queue()), true).unwrap();
            held.push(answer);
        }
    }
    let mut answered = 0;
    for answer in &mut held {
        let answer = timeout(PATIENCE, answer).await.expect("it is answered").unwrap();
        let refused = answer.headers().get("grpc-status").is_some_and(|status| status == "8");
        answered += usize::from(!refused);
    }
    assert!(answered < 100, "{answered} of {} answers of 2.8 MB wait to be read", held.len());
    assert!(broker.memory() < MAX_MEMORY, "{} bytes", broker.memory());
    drop(held);
    until_async("the room to be given back", PATIENCE, async || {
        let status = caller.admin.clone().peek(whole_queue()).await;
        ensure!(status.is_ok(), "{status:?}");
        Ok(())
    })
    .await;
}

/// Promise: of an address that shows bad tokens few are looked at; others are served meanwhile, and so is whoever is known
/// there by a good one.
#[tokio::test(flavor = "multi_thread")]
async fn token_floods() {
    let (signer, forger) = (Signer::new("1"), Signer::new("1"));
    let grants = [grant("shop", &[Verb::Send, Verb::Consume])];
    let mut broker = Broker::prepare(settings()).for_known(access(&[&signer], &grants));
    broker.restart();
    let (good, bad) = (signer.token("shop/api"), forger.token("shop/api"));
    assert_eq!(show(&broker, &good, 1).await, [OK]);
    let begin = now();
    let mut looked_at = 0;
    for _ in 0..40 {
        let answers = show(&broker, &bad, 100).await;
        assert!(
            answers.iter().all(|status| [UNAUTHENTICATED, RESOURCE_EXHAUSTED].contains(&status.as_str()))
        );
        looked_at += answers.iter().filter(|status| *status == UNAUTHENTICATED).count();
        let other = broker.caller().await.with_token(&signer.token("shop/api"));
        timeout(PATIENCE, other.send_body("through an attack")).await.expect("others are served");
    }
    // 65 at once and 20 a second; some are looked at side by side.
    let most = 65 + 16 + usize::try_from(begin.elapsed().as_millis()).unwrap() / 50;
    assert!((65..=most).contains(&looked_at), "{looked_at} of 4000 were looked at, {most} may be");
    assert_eq!(show(&broker, &good, 1).await, [OK], "known already");
    assert!(broker.memory() < MAX_MEMORY, "{} bytes", broker.memory());
}

const OK: &str = "0";
const RESOURCE_EXHAUSTED: &str = "8";
const UNAUTHENTICATED: &str = "16";

/// Calls of the attacker with this token, at once; the status of each.
async fn show(broker: &Broker, token: &str, times: usize) -> Vec<String> {
    let mut client = attack_h2(broker.address()).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..times {
        client = client.ready().await.unwrap();
        let request = Request::post("http://broker/ackwell.v1.QueueAdmin/Stats");
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data(framed(&StatsRequest { queue: QUEUE.to_owned(), interval: None }), true).unwrap();
        answers.push(answer);
    }
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(status_of(timeout(PATIENCE, answer).await.expect("it is answered").unwrap()).await);
    }
    statuses
}

/// In the head of a refusal, and behind the body of an answer.
async fn status_of(answer: Response<RecvStream>) -> String {
    let (head, mut body) = answer.into_parts();
    let mut headers = Some(head.headers).filter(|headers| headers.contains_key("grpc-status"));
    if headers.is_none() {
        while let Some(data) = body.data().await {
            drop(data.unwrap());
        }
        headers = body.trailers().await.unwrap();
    }
    headers.expect("a call has a status")["grpc-status"].to_str().unwrap().to_owned()
}

fn whole_queue() -> PeekRequest {
    PeekRequest { queue: QUEUE.to_owned(), limit: 1000, body_bytes: 1 << 20, ..PeekRequest::default() }
}

fn peek() -> Request<()> {
    let request = Request::post("http://broker/ackwell.v1.QueueAdmin/Peek");
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// As gRPC puts a message into a stream.
fn framed(message: &impl Message) -> bytes::Bytes {
    let message = message.encode_to_vec();
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &len[..], &message].concat().into()
}
