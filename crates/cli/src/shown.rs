//! Messages as they are printed.

use std::collections::BTreeMap;

use ackwell_client::{Attempt, Message, State};
use ackwell_proto::timestamp_millis;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

/// Whether bodies are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    Shown,
    Hidden,
}

/// A message in JSON; names and meanings are those of `ackwell.v1.Message`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<String>,
    attempts: u32,
    deliveries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    dead_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ordering_key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    fairness_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    dedup_id: &'a str,
    history: Vec<ShownAttempt<'a>>,
    body_bytes: u64,
    /// When it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// When it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Serialize)]
struct ShownAttempt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    consumer: &'a str,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(message: &'a Message, bodies: Bodies) -> Self {
        let body = (bodies == Bodies::Shown).then_some(&message.body[..]);
        let text = body.map(std::str::from_utf8);
        Self {
            id: &message.id,
            state: state(message.state()),
            stored_at: message.stored_at.as_ref().and_then(time),
            attempts: message.attempts,
            deliveries: message.deliveries,
            dead_reason: &message.dead_reason,
            next_attempt_at: message.next_attempt_at.as_ref().and_then(time),
            headers: message.headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            content_type: &message.content_type,
            ordering_key: &message.ordering_key,
            fairness_key: &message.fairness_key,
            priority: message.priority,
            dedup_id: &message.dedup_id,
            history: message.history.iter().map(ShownAttempt::new).collect(),
            body_bytes: message.body_bytes.max(message.body.len() as u64),
            body: text.and_then(Result::ok),
            body_base64: body
                .filter(|_| text.is_some_and(|text| text.is_err()))
                .map(|body| STANDARD.encode(body)),
        }
    }
}

impl<'a> ShownAttempt<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        Self {
            started: attempt.started.as_ref().and_then(time),
            ended: attempt.ended.as_ref().and_then(time),
            outcome: &attempt.outcome,
            reason: &attempt.reason,
            consumer: &attempt.consumer,
        }
    }
}

/// The word for a state, as everywhere in Ackwell; `None` where there is none.
pub(crate) fn state(state: State) -> Option<&'static str> {
    match state {
        State::Unspecified => None,
        State::Ready => Some("Ready"),
        State::Delayed => Some("Delayed"),
        State::InFlight => Some("InFlight"),
        State::Dead => Some("Dead"),
    }
}

/// `2026-11-25T02:00:00.123Z`; `None` for what is no time.
pub(crate) fn time(time: &prost_types::Timestamp) -> Option<String> {
    let millis = i64::try_from(timestamp_millis(time)?).ok()?;
    Timestamp::from_millisecond(millis).ok().map(|time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &'static [u8], bodies: Bodies) -> serde_json::Value {
        let message = Message {
            id: "m1".into(),
            body: body.into(),
            state: State::Dead.into(),
            stored_at: Some(ackwell_proto::timestamp(1_764_036_000_123)),
            dead_reason: "REJECTED".into(),
            history: vec![Attempt { outcome: "reject".into(), reason: "bad".into(), ..Attempt::default() }],
            ..Message::default()
        };
        serde_json::to_value(Shown::new(&message, bodies)).unwrap()
    }

    /// Scripts read these names.
    #[test]
    fn message_in_json_has_the_names_of_the_api() {
        let expected = serde_json::json!({
            "id": "m1", "state": "Dead", "storedAt": "2025-11-25T02:00:00.123Z", "attempts": 0, "deliveries": 0,
            "deadReason": "REJECTED", "headers": {}, "history": [{"outcome": "reject", "reason": "bad"}],
            "bodyBytes": 2, "body": "hi",
        });
        assert_eq!(json(b"hi", Bodies::Shown), expected);
    }

    /// No byte of a body is lost in JSON.
    #[test]
    fn body_that_is_not_utf8_is_base64() {
        let shown = json(b"\xff\x00", Bodies::Shown);
        assert_eq!(shown["bodyBase64"], "/wA=");
        assert_eq!(shown.get("body"), None);
    }

    #[test]
    fn hidden_body_shows_only_its_length() {
        let shown = json(b"\xff", Bodies::Hidden);
        assert_eq!((shown.get("body"), shown.get("bodyBase64")), (None, None));
        assert_eq!(shown["bodyBytes"], 1);
    }
}
