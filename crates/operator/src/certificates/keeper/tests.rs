use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{Method, Request, Response, StatusCode};
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::certificates::{Lifetimes, SecretData};

/// The clock of these tests.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A keeper, what it sees and what it writes.
struct Cluster {
    writes: mpsc::Receiver<(Method, String, Value)>,
    secret: watch::Sender<Observed<Secret>>,
    configuration: watch::Sender<Observed<MutatingWebhookConfiguration>>,
    leader: watch::Sender<bool>,
}

impl Cluster {
    /// Its API server answers the first `failures` writes with a conflict.
    fn start(mut failures: u32) -> Self {
        let (sender, writes) = mpsc::channel(16);
        let api = tower::service_fn(move |request: Request<Body>| {
            let status = if failures == 0 { StatusCode::OK } else { StatusCode::CONFLICT };
            failures = failures.saturating_sub(1);
            answer(sender.clone(), request, status)
        });
        let (secret, seen_secret) = watch::channel(Observed::Unknown);
        let (configuration, seen_configuration) = watch::channel(Observed::Unknown);
        let (leader, leads) = watch::channel(false);
        let keeper = Keeper {
            store: Store::new(Client::new(api, "default"), "ackwell-system", "certificates"),
            policy: policy(),
            secret: seen_secret,
            configuration: seen_configuration,
            leader: leads,
            now: || NOW,
        };
        tokio::spawn(keeper.run());
        Self { writes, secret, configuration, leader }
    }

    async fn write(&mut self) -> (String, Value) {
        let (method, path, body) = self.writes.recv().await.unwrap();
        (format!("{method} {path}"), body)
    }

    /// Time passes only when everybody waits: whatever would be written within a minute is written by then.
    async fn writes_nothing(&mut self) {
        let write = tokio::time::timeout(Duration::from_secs(59), self.writes.recv()).await;
        assert!(write.is_err(), "{write:?}");
    }

    fn has_secret(&self, data: &SecretData) {
        let secret = Secret { data: Some(data.clone()), ..Secret::default() };
        self.secret.send_replace(Observed::Present(Arc::new(secret)));
    }

    fn trusts(&self, bundle: Option<String>) {
        let mut webhook =
            MutatingWebhook { name: "inject.ackwell.dev".to_owned(), ..MutatingWebhook::default() };
        webhook.client_config.ca_bundle = bundle.map(|bundle| ByteString(bundle.into_bytes()));
        let mut configuration =
            MutatingWebhookConfiguration { webhooks: Some(vec![webhook]), ..Default::default() };
        configuration.metadata.name = Some("ackwell".to_owned());
        self.configuration.send_replace(Observed::Present(Arc::new(configuration)));
    }
}

async fn answer(
    writes: mpsc::Sender<(Method, String, Value)>,
    request: Request<Body>,
    status: StatusCode,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
    let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
                         "message": "changed meanwhile", "code": status.as_u16()});
    let answer = if status == StatusCode::OK { &body } else { &failure };
    let response = Response::builder().status(status).body(Body::from(serde_json::to_vec(answer).unwrap()));
    writes.send((head.method, head.uri.path().to_owned(), body)).await.unwrap();
    Ok(response.unwrap())
}

fn policy() -> Policy {
    Policy::for_service("ackwell-webhook", "ackwell-system", Lifetimes::default())
}

/// A Secret after the step that is due at `now`.
fn after_step(data: &SecretData, now: Timestamp) -> SecretData {
    let content = Content::read(data);
    carry_out(next_step(&content, now, &policy()), &content, now, &policy()).unwrap()
}

fn bundle(data: &SecretData) -> Option<String> {
    Content::read(data).bundle()
}

const SECRETS: &str = "/api/v1/namespaces/ackwell-system/secrets";
const CONFIGURATION: &str =
    "PATCH /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ackwell";

/// Only the leader writes, and only once it knows what there is.
#[tokio::test(start_paused = true)]
async fn only_a_leader_that_knows_both_objects_writes() {
    let mut cluster = Cluster::start(0);
    cluster.secret.send_replace(Observed::Absent);
    cluster.trusts(None);
    cluster.writes_nothing().await;
    cluster.configuration.send_replace(Observed::Unknown);
    cluster.leader.send_replace(true);
    cluster.writes_nothing().await;
    cluster.configuration.send_replace(Observed::Absent);
    let (request, secret) = cluster.write().await;
    assert_eq!(request, format!("POST {SECRETS}"));
    assert_eq!(
        (&secret["metadata"]["name"], &secret["type"]),
        (&json!("certificates"), &json!("kubernetes.io/tls"))
    );
}

/// API servers are told whom to trust before anything relies on it, and get their time to learn.
#[tokio::test(start_paused = true)]
async fn trust_comes_before_what_relies_on_it() {
    let mut cluster = Cluster::start(0);
    let ago = |days: i64| NOW - SignedDuration::from_hours(24 * days);
    let old = after_step(&after_step(&SecretData::new(), ago(250)), ago(30));
    let rotating = after_step(&old, ago(1));
    assert_eq!(old["tls.crt"], rotating["tls.crt"]);
    cluster.leader.send_replace(true);
    cluster.trusts(bundle(&old));
    cluster.has_secret(&rotating);
    let (request, patch) = cluster.write().await;
    assert_eq!(request, CONFIGURATION);
    let trusted = ByteString(bundle(&rotating).unwrap().into_bytes());
    let owned = json!([{"name": "inject.ackwell.dev", "clientConfig": {"caBundle": trusted}}]);
    assert_eq!(patch["webhooks"], owned, "one field, and the key of its list");
    cluster.writes_nothing().await;

    cluster.trusts(bundle(&rotating));
    let (request, secret) = cluster.write().await;
    assert_eq!(request, format!("PUT {SECRETS}/certificates"));
    assert!(secret["data"]["tls.crt"] != json!(rotating["tls.crt"]), "signed by the new authority");
}

/// Another leader was faster, or the API server is away: it is tried again, a little later each time.
#[tokio::test(start_paused = true)]
async fn refused_write_is_tried_again_with_growing_patience() {
    let mut cluster = Cluster::start(8);
    cluster.leader.send_replace(true);
    cluster.secret.send_replace(Observed::Absent);
    let began = tokio::time::Instant::now();
    cluster.configuration.send_replace(Observed::Absent);
    for _ in 0..9 {
        assert_eq!(cluster.write().await.0, format!("POST {SECRETS}"));
    }
    assert_eq!(began.elapsed().as_secs(), 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60);
}
