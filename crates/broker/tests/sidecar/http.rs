//! JSON over HTTP, on a broker and through a sidecar, as curl speaks it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// The status code, and the body.
async fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    ask(address, method, &format!("/v1/queues/{path}"), body).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// Everything that curl is promised: the same handlers, the same refusals.
#[tokio::test]
async fn messages_go_through_json() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    sidecar.client().await.stats().await;
    for address in [broker.address, sidecar.address] {
        let post = async |path: &str, body: Value| call(address, "POST", path, &body.to_string()).await;
        let messages = json!({"messages": [{"body": "aGVsbG8=", "headers": {"a": "b"}}, {"priority": 77}]});
        let (code, sent) = post("orders/messages", messages).await;
        assert_eq!(
            (code, &sent["results"][1]["error"]["reason"]),
            (200, &json!("INVALID_ARGUMENT")),
            "{sent}"
        );
        let (code, stats) = call(address, "GET", "shop%2Forders/stats", "").await;
        assert_eq!((code, &stats["ready"]), (200, &json!("1")), "{stats}");
        for (method, path) in [("GET", "orders/messages?limit=5&bodyBytes=99"), ("POST", "orders/peek")] {
            let body = if method == "GET" { "" } else { r#"{"limit": 5, "bodyBytes": 99}"# };
            let (code, shown) = call(address, method, path, body).await;
            assert_eq!((code, &shown["messages"][0]["body"]), (200, &json!("aGVsbG8=")), "{shown}");
        }
        let (code, received) = call(address, "POST", "orders/receive", "").await;
        assert_eq!((code, &received["deliveries"][0]["message"]["headers"]["a"]), (200, &json!("b")));
        let settlement = json!({"receipt": received["deliveries"][0]["receipt"], "ack": {}});
        let (code, settled) = post("orders/settle", json!({"settlements": [settlement]})).await;
        assert_eq!((code, &settled["results"][0]["error"]), (200, &Value::Null), "{settled}");
        let (code, empty) = post("orders/receive", json!({"wait": "0s"})).await;
        assert_eq!((code, empty), (200, json!({"deliveries": []})));
    }
}

/// A refusal has the code of its kind, and its reason.
#[tokio::test]
async fn refusals_of_http_have_their_reasons() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    sidecar.client().await.stats().await;
    let cases = [
        ("POST", "nothing/messages", r#"{"messages": [{}]}"#, 404, "QUEUE_NOT_FOUND"),
        ("POST", "orders/messages", r#"{"mesages": [{}]}"#, 400, "INVALID_ARGUMENT"),
        ("POST", "orders/messages", r#"{"messages": [{"priority": 77}]}"#, 400, "INVALID_ARGUMENT"),
        (
            "POST",
            "orders/settle",
            r#"{"settlements": [{"receipt": "AAAA", "ack": {}}]}"#,
            400,
            "INVALID_RECEIPT",
        ),
    ];
    for address in [broker.address, sidecar.address] {
        for (method, path, body, code, reason) in cases {
            let (got, refused) = call(address, method, path, body).await;
            assert_eq!((got, &refused["details"][0]["reason"]), (code, &json!(reason)), "{path}: {refused}");
        }
    }
}

/// Promise: who asks for what there is not is told what there is.
#[tokio::test]
async fn unknown_path_is_answered_with_the_known_ones() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    sidecar.client().await.stats().await;
    for address in [broker.address, sidecar.address] {
        for (method, path) in
            [("GET", "/"), ("POST", "/v1/queue/orders/messages"), ("DELETE", "/v1/queues/orders/stats")]
        {
            let (code, refused) = ask(address, method, path, "").await;
            let message = refused["message"].as_str().unwrap();
            assert_eq!((code, &refused["code"]), (404, &json!(5)), "{refused}");
            assert!(message.contains(path) && message.contains("/v1/queues/{queue}/messages"), "{message}");
        }
    }
}
