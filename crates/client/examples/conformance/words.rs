//! Between the protocol's words and the library's.

use std::collections::HashMap;
use std::time::Duration;

use ackwell_client::sealing::Keyring;
use ackwell_client::{
    Available, CloudEvent, Delivery, Error, Message, Outcome, Sent, SettleResult, Settlement, State, ack,
    nack, reject, release,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// An error as the protocol shows it.
pub(crate) struct Refused(Value);

impl Refused {
    pub(crate) fn client(error: &impl ToString) -> Self {
        Self(json!({"message": error.to_string(), "code": "CLIENT"}))
    }

    pub(crate) fn cancelled() -> Self {
        Self(json!({"message": "cancelled", "code": "CANCELLED"}))
    }

    pub(crate) fn json(self) -> Value {
        self.0
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let mut shown = json!({"message": error.to_string()});
        shown["code"] = match &error {
            Error::Refused(failure) => code(failure.reason.code()).into(),
            Error::Call { code: given, .. } => code(*given).into(),
            Error::TimedOut { .. } => "DEADLINE_EXCEEDED".into(),
            Error::RefusedOtherwise { .. } => "UNKNOWN".into(),
            _ => "CLIENT".into(),
        };
        if let Some(reason) = error.reason() {
            shown["reason"] = reason.as_str().into();
        }
        if let Some(delay) = error.retry_after() {
            shown["retry_after_ms"] = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into();
        }
        Self(shown)
    }
}

/// `NotFound` as `NOT_FOUND`.
fn code(code: tonic::Code) -> String {
    let mut word = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
    }
    word
}

pub(crate) fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn milliseconds(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or_default())
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn each<T>(results: Vec<Result<T, Error>>, shown: impl Fn(T) -> Value) -> Vec<Value> {
    let item = |result| match result {
        Ok(value) => shown(value),
        Err(error) => json!({"error": Refused::from(error).json()}),
    };
    results.into_iter().map(item).collect()
}

pub(crate) fn message(shown: &Value) -> Message {
    let number = |field: &str| shown[field].as_u64().and_then(|number| u32::try_from(number).ok());
    let span = |field: &str| shown.get(field).map(|value| span(milliseconds(value)));
    let deliver_at = shown["deliver_at_ms"].as_u64().map(ackwell_proto::timestamp);
    Message {
        body: bytes(&shown["body"]).into(),
        headers: texts(&shown["headers"]),
        content_type: text(shown, "content_type"),
        ordering_key: text(shown, "ordering_key"),
        fairness_key: text(shown, "fairness_key"),
        priority: number("priority"),
        dedup_id: text(shown, "dedup_id"),
        available: span("delay_ms").map(Available::Delay).or(deliver_at.map(Available::DeliverAt)),
        ttl: span("ttl_ms"),
        max_attempts: number("max_attempts"),
        ..Message::default()
    }
}

fn span(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}

fn texts(shown: &Value) -> HashMap<String, String> {
    let entries = shown.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

pub(crate) fn message_json(message: &Message) -> Value {
    let history = message.history.iter().map(
        |attempt| json!({"outcome": attempt.outcome, "reason": attempt.reason, "consumer": attempt.consumer}),
    );
    let mut shown = json!({
        "body": STANDARD.encode(&message.body),
        "headers": message.headers,
        "attempts": message.attempts,
        "deliveries": message.deliveries,
        "history": history.collect::<Vec<_>>(),
    });
    let texts = [
        ("content_type", &message.content_type),
        ("ordering_key", &message.ordering_key),
        ("fairness_key", &message.fairness_key),
        ("dedup_id", &message.dedup_id),
        ("id", &message.id),
        ("dead_reason", &message.dead_reason),
    ];
    texts.into_iter().for_each(|(name, value)| put(&mut shown, name, text_json(value)));
    put(&mut shown, "priority", message.priority.map(Into::into));
    put(&mut shown, "max_attempts", message.max_attempts.map(Into::into));
    put(&mut shown, "state", state_json(message.state));
    put(&mut shown, "stored_at_ms", message.stored_at.as_ref().map(at_ms));
    put(&mut shown, "next_attempt_at_ms", message.next_attempt_at.as_ref().map(at_ms));
    shown
}

pub(crate) fn delivery_json(delivery: &Delivery) -> Value {
    let mut shown = json!({
        "receipt": STANDARD.encode(&delivery.receipt),
        "message": message_json(delivery.message.as_ref().unwrap_or(&Message::default())),
        "fencing_token": delivery.fencing_token,
    });
    put(&mut shown, "ack_deadline_at_ms", delivery.ack_deadline.as_ref().map(at_ms));
    shown
}

pub(crate) fn settlement(shown: &Value) -> Settlement {
    let held = Delivery { receipt: bytes(&shown["receipt"]).into(), ..Delivery::default() };
    let reason = text(shown, "reason");
    match text(shown, "outcome").as_str() {
        "ack" => ack(&held),
        "nack" => nack(&held, reason, shown.get("delay_ms").map(milliseconds)),
        "release" => release(&held),
        _ => reject(&held, reason),
    }
}

pub(crate) fn settled_json(settled: &SettleResult) -> Value {
    let mut shown = json!({});
    put(&mut shown, "state", state_json(settled.state));
    put(&mut shown, "next_attempt_at_ms", settled.next_attempt_at.as_ref().map(at_ms));
    shown
}

pub(crate) fn sent_json(sent: &Sent) -> Value {
    json!({"id": sent.id, "duplicate": sent.duplicate})
}

pub(crate) fn outcome(finish: &Value) -> Result<(), Outcome> {
    let reason = text(finish, "reason");
    match text(finish, "outcome").as_str() {
        "raise" => Err(std::io::Error::other(reason).into()),
        "retry" => match finish.get("delay_ms") {
            Some(after) => Err(Outcome::Retry { after: milliseconds(after), reason }),
            None => Err(Outcome::Failed(reason)),
        },
        "reject" => Err(Outcome::Reject(reason)),
        "release" => Err(Outcome::Release),
        _ => Ok(()),
    }
}

pub(crate) fn event(shown: &Value) -> CloudEvent {
    CloudEvent {
        id: text(shown, "id"),
        source: text(shown, "source"),
        r#type: text(shown, "type"),
        subject: text(shown, "subject"),
        time: text(shown, "time"),
        datacontenttype: text(shown, "datacontenttype"),
        dataschema: text(shown, "dataschema"),
        extensions: texts(&shown["extensions"]),
        data: bytes(&shown["data"]),
    }
}

pub(crate) fn event_json(event: &CloudEvent) -> Value {
    let mut shown = json!({"id": event.id, "source": event.source, "type": event.r#type});
    shown["data"] = STANDARD.encode(&event.data).into();
    let optional = [
        ("subject", &event.subject),
        ("time", &event.time),
        ("datacontenttype", &event.datacontenttype),
        ("dataschema", &event.dataschema),
    ];
    optional.into_iter().for_each(|(name, value)| put(&mut shown, name, text_json(value)));
    if !event.extensions.is_empty() {
        let extensions = event.extensions.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        shown["extensions"] = Value::Object(extensions.collect::<Map<_, _>>());
    }
    shown
}

pub(crate) fn keyring(command: &Value) -> Result<Keyring, Refused> {
    let keys = texts(&command["keys"]).into_iter();
    let keys = keys.map(|(id, key)| Keyring::parse_key(&key).map(|key| (id, key)));
    let keyring =
        keys.collect::<Result<Vec<_>, _>>().and_then(|keys| Keyring::new(text(command, "current"), keys));
    let allows_unsealed = command["allow_unsealed"].as_bool().unwrap_or_default();
    let keyring = keyring.map_err(|error| Refused::client(&error))?;
    Ok(if allows_unsealed { keyring.allow_unsealed() } else { keyring })
}

pub(crate) fn at_ms(at: &prost_types::Timestamp) -> Value {
    ackwell_proto::timestamp_millis(at).into()
}

fn state_json(state: i32) -> Option<Value> {
    let state = State::try_from(state).ok().filter(|state| *state != State::Unspecified)?;
    Some(state.as_str_name().trim_start_matches("STATE_").into())
}

fn text_json(value: &str) -> Option<Value> {
    (!value.is_empty()).then(|| value.into())
}

fn put(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[field] = value;
    }
}
