use std::convert::Infallible;

use axum::http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server that answers every request with `status`; without one it never answers.
fn reviewer(status: Option<StatusCode>) -> Reviewer {
    let api = tower::service_fn(move |request: Request<Body>| async move {
        assert_eq!(request.uri().path(), "/apis/ackwell.dev/v1alpha1/namespaces/shop/queues/orders");
        let Some(status) = status else { return std::future::pending().await };
        let body = match status {
            StatusCode::OK => {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {}})
            }
            _ => json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(),
                        "message": "refused", "reason": if status == StatusCode::NOT_FOUND { "NotFound" } else { "" }}),
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
    });
    let sidecar = SidecarOptions { image: "ackwelld".to_owned(), pull_policy: None, traces: None };
    Reviewer::new(Client::new(api, "default"), sidecar)
}

fn review(annotations: &Value) -> Vec<u8> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "shop-", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "shop"}]},
    });
    let request = json!({
        "uid": "0c9a8d74", "operation": "CREATE", "namespace": "shop", "userInfo": {}, "object": pod,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    });
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    serde_json::to_vec(&review).unwrap()
}

async fn answer(reviewer: &Reviewer, annotations: Value) -> Value {
    let answer: Value =
        serde_json::from_slice(&reviewer.answer(&review(&annotations)).await.unwrap()).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(answer["response"]["uid"], "0c9a8d74");
    answer["response"].clone()
}

/// The pod's namespace is the request's: a pod of a Deployment does not carry it yet.
#[tokio::test]
async fn pod_with_known_queue_gets_a_sidecar_and_no_warning() {
    let response = answer(&reviewer(Some(StatusCode::OK)), json!({"ackwell.dev/queues": "orders"})).await;
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    assert_eq!(response["warnings"], Value::Null);
    let patch: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
    assert!(String::from_utf8(patch).unwrap().contains(r#""--namespace","shop","--queues","orders""#));
}

/// Deployment tools create things in any order: a Queue that is missing is a warning.
#[tokio::test]
async fn unknown_queue_is_a_warning() {
    let response =
        answer(&reviewer(Some(StatusCode::NOT_FOUND)), json!({"ackwell.dev/queues": "orders"})).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().starts_with("there is no Queue shop/orders yet"));
}

/// Not being able to ask delays a pod by a second at most, and says nothing.
#[tokio::test(start_paused = true)]
async fn failed_lookup_is_no_warning() {
    for status in [Some(StatusCode::FORBIDDEN), None] {
        let began = tokio::time::Instant::now();
        let response = answer(&reviewer(status), json!({"ackwell.dev/queues": "orders"})).await;
        assert_eq!((&response["allowed"], &response["warnings"]), (&json!(true), &Value::Null), "{status:?}");
        assert!(began.elapsed() <= Duration::from_secs(1), "{status:?}: {:?}", began.elapsed());
    }
}

/// What can never work is refused as the author's mistake, with what to do.
#[tokio::test]
async fn malformed_annotation_is_refused() {
    for (annotations, part) in
        [(json!({"ackwell.dev/queues": "Orders"}), "\"Orders\""), (json!({}), "names no queues")]
    {
        let response = answer(&reviewer(None), annotations).await;
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(400)));
        assert!(response["status"]["message"].as_str().unwrap().contains(part), "{response}");
        assert_eq!(response["patch"], Value::Null);
    }
}

/// A caller that is no API server learns what is expected.
#[tokio::test]
async fn body_that_is_no_review_is_an_error() {
    let error = reviewer(None).answer(b"{}").await.unwrap_err();
    assert!(error.to_string().starts_with("this is not an AdmissionReview of a Pod"), "{error}");
}
