use axum::http::Response as HttpResponse;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificates::{
    Cause, Content, Lifetimes, Observed, Policy, SecretData, Served, Step, carry_out, next_step, tls,
};
use crate::webhook::SidecarOptions;

/// A webhook on a port of its own, and the Secret it watches.
struct Webhook {
    address: std::net::SocketAddr,
    secret: watch::Sender<Observed<Secret>>,
    ready: watch::Receiver<bool>,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Webhook {
    async fn start() -> Self {
        let (secret, seen) = watch::channel(Observed::Unknown);
        let (ready_sender, ready) = watch::channel(false);
        let served = Arc::new(Served::new(ready_sender));
        let acceptor = TlsAcceptor::from(Arc::new(tls(Arc::clone(&served)).unwrap()));
        let api = tower::service_fn(|_| async { Ok::<_, Infallible>(HttpResponse::new(Body::empty())) });
        let sidecar = SidecarOptions { image: "ackwelld".to_owned(), pull_policy: None, traces: None };
        let router = router(Reviewer::new(Client::new(api, "default"), sidecar));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let ended = tokio::spawn(async move {
            tokio::select! {
                () = serve(listener, acceptor, router, stop) => {}
                () = served.follow(seen) => panic!("the Secret is watched for ever"),
            }
        });
        Self { address, secret, ready, shutdown, ended }
    }

    async fn install(&mut self, data: &SecretData) {
        let secret = Secret { data: Some(data.clone()), ..Secret::default() };
        self.secret.send_replace(Observed::Present(Arc::new(secret)));
        self.ready.wait_for(|ready| *ready).await.unwrap();
    }

    /// As an API server that trusts the bundle of `trusted`; answers the certificate that was shown, too.
    async fn connect(&self, trusted: &SecretData) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let bundle = Content::read(trusted).bundle().unwrap();
        roots
            .add_parsable_certificates(CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = "ackwell-webhook.ackwell-system.svc".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Waits until new connections get what `data` holds.
    async fn shows(&self, data: &SecretData) {
        let expected = CertificateDer::from_pem_slice(&data["tls.crt"].0).unwrap();
        loop {
            let stream = self.connect(data).await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn request(stream: &mut TlsStream<TcpStream>, head: &str, body: &[u8]) -> String {
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nhost: webhook\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refused body is not read to its end.
    let _ = stream.write_all(body).await;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn policy() -> Policy {
    Policy::for_service("ackwell-webhook", "ackwell-system", Lifetimes::default())
}

fn step(data: &SecretData, later: SignedDuration) -> SecretData {
    let (now, content) = (crate::clock::now().0, Content::read(data));
    let step = next_step(&content, now + later, &policy());
    assert!(!matches!(step, Step::Rest { .. }), "nothing is due");
    carry_out(step, &content, now, &policy()).unwrap()
}

fn fresh() -> SecretData {
    let now = crate::clock::now().0;
    carry_out(Step::NewAuthority(Cause::Unusable), &Content::default(), now, &policy()).unwrap()
}

/// A rotation of the authority, seen by API servers: connections that stand go on, new ones get the new certificate, and
/// both are trusted by whoever has either bundle of the overlap.
#[tokio::test]
async fn rotation_of_the_authority_breaks_no_call() {
    let old = fresh();
    let mut webhook = Webhook::start().await;
    webhook.install(&old).await;
    webhook.shows(&old).await;
    let mut standing = webhook.connect(&old).await.unwrap();

    let rotated =
        carry_out(Step::NewAuthority(Cause::Due), &Content::read(&old), crate::clock::now().0, &policy())
            .unwrap();
    webhook.install(&rotated).await;
    webhook.connect(&old).await.unwrap();
    webhook.connect(&rotated).await.unwrap();

    let moved = step(&rotated, SignedDuration::from_secs(61));
    webhook.install(&moved).await;
    webhook.shows(&moved).await;
    webhook.connect(&rotated).await.unwrap();
    assert!(webhook.connect(&old).await.is_err(), "the new certificate is not signed by the old authority");

    let answer = request(&mut standing, "POST /inject", b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

/// Without a certificate there is no handshake, and the replica is not ready.
#[tokio::test]
async fn replica_without_certificate_is_not_ready() {
    let webhook = Webhook::start().await;
    assert!(webhook.connect(&fresh()).await.is_err());
    assert!(!*webhook.ready.borrow());
}

/// What a caller sends is bounded, and only `POST /inject` is served.
#[tokio::test]
async fn requests_are_bounded() {
    let data = fresh();
    let mut webhook = Webhook::start().await;
    webhook.install(&data).await;
    let cases = [
        ("POST /inject", vec![b' '; MAX_REVIEW_BYTES + 1], "HTTP/1.1 413 "),
        ("GET /inject", vec![], "HTTP/1.1 405 "),
        ("POST /other", vec![], "HTTP/1.1 404 "),
    ];
    for (head, body, expected) in cases {
        let mut stream = webhook.connect(&data).await.unwrap();
        let answer = request(&mut stream, head, &body).await;
        assert!(answer.starts_with(expected), "{head}: {answer}");
    }
}

/// A stopping replica finishes and ends, though API servers keep their connections open.
#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let data = fresh();
    let mut webhook = Webhook::start().await;
    webhook.install(&data).await;
    let mut idle = webhook.connect(&data).await.unwrap();
    assert!(request(&mut idle, "POST /inject", b"{}").await.starts_with("HTTP/1.1 400 "));
    webhook.shutdown.cancel();
    let closed = timeout(DRAIN_TIMEOUT, idle.read(&mut [0])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    webhook.ended.await.unwrap();
}
