//! Refusals over HTTP: `google.rpc.Status` as JSON, with the reason in its details.

use std::time::Duration;

use ackwell_proto::Failure;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The status, as its HTTP code and its JSON.
pub(super) fn response(status: &Status) -> Response {
    let failure = Failure::from_status(status);
    let retry_after = failure.as_ref().and_then(|failure| failure.retry_after);
    let body = json!({
        "code": i32::from(status.code()),
        "message": status.message(),
        "details": details(failure.as_ref()),
    });
    let head = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (http_code(status.code()), head, format!("{body}\n")).into_response();
    if let Some(delay) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(delay));
    }
    response
}

fn details(failure: Option<&Failure>) -> Vec<Value> {
    let Some(failure) = failure else { return Vec::new() };
    let reason = json!({ "@type": ERROR_INFO, "reason": failure.reason.as_str(), "domain": "ackwell.dev" });
    let retry = failure.retry_after.map(|delay| {
        json!({ "@type": RETRY_INFO, "retryDelay": format!("{}.{:03}s", delay.as_secs(), delay.subsec_millis()) })
    });
    std::iter::once(reason).chain(retry).collect()
}

/// The header has no fractions.
fn whole_seconds(delay: Duration) -> HeaderValue {
    HeaderValue::from(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
}

/// As `google.rpc.Code` documents it.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use ackwell_proto::Reason;
    use axum::body::to_bytes;

    use super::*;

    /// Promise: whoever speaks HTTP is told the same reason, and when to come back, as whoever speaks gRPC.
    #[tokio::test]
    async fn refusal_has_its_reason_and_its_hint() {
        let failure = Failure::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(1500));
        let response = response(&failure.into());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["code"], &body["message"]), (&json!(8), &json!("full")));
        assert_eq!(body["details"][0]["reason"], "QUEUE_FULL");
        assert_eq!(body["details"][1]["retryDelay"], "1.500s");
    }
}
