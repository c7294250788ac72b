//! A message in a line of a file: what `export` writes and `import` reads.
//!
//! Names are those of `peek --output json`, so that what was peeked with bodies can be imported too.

use std::collections::BTreeMap;

use ackwell_client::{Available, Message};
use ackwell_engine::message::{Attempt, Payload};
use ackwell_engine::store::offline::Exported;
use ackwell_proto::{duration, timestamp};
use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::offline::{state, time};

/// Headers that begin so are the broker's: who sent a message is said by who sends it now.
const RESERVED: &str = "ackwell-";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Line {
    /// Empty for a message that the state does not know.
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    /// Names it where the id does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    origin: String,
    queue: String,
    /// `Unknown` for a message that the state does not know.
    state: String,
    stored_at: String,
    attempts: u32,
    deliveries: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    dead_reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fairness_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    dedup_id: String,
    history: Vec<LineAttempt>,
    body_bytes: u64,
    /// Read, not written.
    #[serde(skip_serializing)]
    body: Option<String>,
    #[serde(rename = "bodyBase64")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LineAttempt {
    started: String,
    ended: String,
    outcome: String,
    reason: String,
    consumer: String,
}

impl Line {
    pub(crate) fn of(message: Exported) -> Self {
        let (segment, offset) = message.place;
        let origin = format!("{segment:x}-{offset:x}-{:x}-{:08x}", message.stored_at.0, message.crc);
        let Payload { body, headers, content_type, dedup_id, ordering_key, fairness_key } = message.payload;
        Self {
            origin: if message.id.is_none() { origin } else { String::new() },
            id: message.id.map(|id| id.to_string()).unwrap_or_default(),
            queue: message.queue,
            state: message.state.map_or("Unknown", state).to_owned(),
            stored_at: time(message.stored_at),
            attempts: message.attempts,
            deliveries: message.deliveries,
            dead_reason: message.dead_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            next_attempt_at: message.delayed_until.map(time),
            expires_at: message.expires_at.map(time),
            max_attempts: message.max_attempts,
            headers: headers.into_iter().collect(),
            content_type,
            ordering_key,
            fairness_key,
            priority: Some(message.priority.level().into()),
            dedup_id,
            history: message.history.into_iter().map(LineAttempt::of).collect(),
            body_bytes: message.body_bytes,
            body: None,
            body_base64: Some(STANDARD.encode(body)),
            damaged: message.is_damaged,
        }
    }

    /// What it is called in its file.
    pub(crate) fn name(&self) -> &str {
        if self.id.is_empty() { &self.origin } else { &self.id }
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// To be sent at this time, in milliseconds; `None` when it has expired. It keeps its own dedup id; one that has none gets its name
    /// as one.
    pub(crate) fn into_message(self, now_ms: u64) -> anyhow::Result<Option<Message>> {
        let expires_ms = self.expires_at.as_deref().map(millis).transpose().context("expiresAt")?;
        let ttl_ms = expires_ms.map(|at| at.saturating_sub(now_ms));
        if ttl_ms == Some(0) {
            return Ok(None);
        }
        let available_ms =
            self.next_attempt_at.as_deref().map(millis).transpose().context("nextAttemptAt")?;
        let dedup_id = if self.dedup_id.is_empty() { self.name().to_owned() } else { self.dedup_id.clone() };
        if dedup_id.is_empty() {
            bail!(
                "it has neither an id nor an origin nor a dedupId: importing it twice would store it twice"
            );
        }
        Ok(Some(Message {
            body: self.body()?.into(),
            headers: self.headers.into_iter().filter(|(name, _)| !name.starts_with(RESERVED)).collect(),
            content_type: self.content_type,
            ordering_key: self.ordering_key,
            fairness_key: self.fairness_key,
            priority: self.priority,
            dedup_id,
            available: available_ms.filter(|at| *at > now_ms).map(|at| Available::DeliverAt(timestamp(at))),
            ttl: ttl_ms.map(duration),
            max_attempts: self.max_attempts,
            ..Message::default()
        }))
    }

    fn body(&self) -> anyhow::Result<Vec<u8>> {
        let body = match (&self.body, &self.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).context("bodyBase64")?,
            (None, None) => bail!("it has no body: neither body nor bodyBase64"),
            (Some(_), Some(_)) => bail!("it has two bodies: body and bodyBase64"),
        };
        // What peek cut is not the message.
        if body.len() as u64 != self.body_bytes {
            bail!("its body has {} bytes, and bodyBytes says {}", body.len(), self.body_bytes);
        }
        Ok(body)
    }
}

impl LineAttempt {
    fn of(attempt: Attempt) -> Self {
        Self {
            started: time(attempt.started),
            ended: time(attempt.ended),
            outcome: attempt.outcome.as_str().to_owned(),
            reason: attempt.reason,
            consumer: attempt.consumer,
        }
    }
}

fn millis(text: &str) -> anyhow::Result<u64> {
    let time: Timestamp = text.parse().with_context(|| format!("{text:?} is no time"))?;
    u64::try_from(time.as_millisecond()).with_context(|| format!("{text:?} is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &serde_json::Value) -> anyhow::Result<Option<Message>> {
        serde_json::from_value::<Line>(json.clone())?.into_message(1_764_036_000_000)
    }

    /// Promise: a message keeps its own dedup id, and has its old id as one otherwise: importing twice stores once.
    #[test]
    fn imported_message_always_has_a_dedup_id() {
        let mut json = serde_json::json!({"id": "m1", "bodyBase64": "aGk=", "bodyBytes": 2});
        let sent = message(&json).unwrap().unwrap();
        assert_eq!((sent.dedup_id.as_str(), &sent.body[..]), ("m1", &b"hi"[..]));
        json["dedupId"] = "own".into();
        assert_eq!(message(&json).unwrap().unwrap().dedup_id, "own");
        json["dedupId"] = "".into();
        json["id"] = "".into();
        assert!(message(&json).unwrap_err().to_string().contains("twice"));
    }

    /// Promise: what has expired stays expired, and what waits for a time goes on waiting.
    #[test]
    fn times_of_an_imported_message_are_those_it_had() {
        let mut json = serde_json::json!({"id": "m1", "body": "hi", "bodyBytes": 2});
        json["expiresAt"] = "2025-11-25T02:00:01Z".into();
        json["nextAttemptAt"] = "2025-11-25T01:00:00Z".into();
        let sent = message(&json).unwrap().unwrap();
        assert_eq!((sent.ttl, sent.available), (Some(duration(1000)), None));
        json["nextAttemptAt"] = "2025-11-25T02:00:00.500Z".into();
        let at = Available::DeliverAt(timestamp(1_764_036_000_500));
        assert_eq!(message(&json).unwrap().unwrap().available, Some(at));
        json["expiresAt"] = "2025-11-25T02:00:00Z".into();
        assert_eq!(message(&json).unwrap(), None);
        json["expiresAt"] = "soon".into();
        assert!(message(&json).is_err());
    }

    /// Promise: a body that was cut, or is missing, is refused, not sent as it is.
    #[test]
    fn incomplete_body_is_refused() {
        for json in [
            serde_json::json!({"id": "m1", "body": "h", "bodyBytes": 2}),
            serde_json::json!({"id": "m1", "bodyBytes": 2}),
            serde_json::json!({"id": "m1", "bodyBase64": "?", "bodyBytes": 0}),
        ] {
            assert!(message(&json).is_err(), "{json}");
        }
    }
}
