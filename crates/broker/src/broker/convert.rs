//! The API's messages from and to the engine's. Past this module nothing is validated again.

pub(crate) mod backups;
pub(crate) mod moves;
pub(crate) mod tasks;

use std::fmt::Display;

use ackwell_engine::command::{Available, Delivery, Filter, NewMessage, Outcome, Settled};
use ackwell_engine::message::{Attempt, Message, MessageId, Payload, Priority, State};
use ackwell_engine::settings::MAX_DELAY_MS;
use ackwell_proto::v1;
use ackwell_proto::{Failure, POSITION_HEADER, Reason, duration_millis, timestamp, timestamp_millis};
use prost_types::{Duration, Timestamp};

use super::access::Sender;

const MAX_HEADERS: usize = 64;
const MAX_HEADERS_BYTES: usize = 32 << 10;
const MAX_HEADER_KEY_BYTES: usize = 128;
const RESERVED_HEADER_PREFIX: &str = "ackwell-";
/// `namespace/name` of the ServiceAccount that sent the message.
const SENDER_HEADER: &str = "ackwell-sender";
const MAX_CONTENT_TYPE_BYTES: usize = 256;
const MAX_ORDERING_KEY_BYTES: usize = 128;
const MAX_FAIRNESS_KEY_BYTES: usize = 64;
const MAX_DEDUP_ID_BYTES: usize = 128;
const MAX_REQUEST_ID_BYTES: usize = 64;
const MAX_CONSUMER_BYTES: usize = 128;
const MAX_ACK_TIMEOUT_MS: u64 = 12 * 3_600_000;
const MIN_ACK_TIMEOUT_MS: u64 = 1_000;
/// Items of one call.
pub(crate) const MAX_BATCH: usize = 1000;

/// A message as its sender gave it, and who that is.
pub(crate) fn new_message(message: v1::Message, sender: &Sender) -> Result<NewMessage, Failure> {
    let available = available(message.available.as_ref())?;
    let mut message = message;
    let position = message.headers.remove(POSITION_HEADER).map(|text| position(&text)).transpose()?;
    let ttl_ms = message.ttl.as_ref().map(|ttl| millis("ttl", ttl)).transpose()?;
    let payload = Payload {
        headers: stamped(headers(message.headers)?, sender),
        content_type: short("content_type", message.content_type, MAX_CONTENT_TYPE_BYTES)?,
        dedup_id: short("dedup_id", message.dedup_id, MAX_DEDUP_ID_BYTES)?,
        ordering_key: ordering_key(message.ordering_key)?,
        fairness_key: fairness_key(message.fairness_key)?,
        body: message.body,
    };
    let priority = message.priority.map(priority).transpose()?.unwrap_or_default();
    Ok(NewMessage { payload, available, ttl_ms, max_attempts: message.max_attempts, priority, position })
}

/// Where a message of a part stands in the whole.
fn position(text: &str) -> Result<u32, Failure> {
    let position = text.parse().ok().filter(|position| (*position as usize) < MAX_BATCH);
    position.ok_or_else(|| {
        Failure::invalid(format!("{POSITION_HEADER} is for sidecars: a number below {MAX_BATCH}"))
    })
}

/// Nobody can put it there themselves: the prefix is reserved.
fn stamped(mut headers: Vec<(String, String)>, sender: &Sender) -> Vec<(String, String)> {
    if let Some(sender) = sender {
        let place = headers.partition_point(|(key, _)| key.as_str() < SENDER_HEADER);
        headers.insert(place, (SENDER_HEADER.to_owned(), sender.to_string()));
    }
    headers
}

fn ordering_key(key: String) -> Result<String, Failure> {
    short("ordering_key", key, MAX_ORDERING_KEY_BYTES)
}

fn fairness_key(key: String) -> Result<String, Failure> {
    short("fairness_key", key, MAX_FAIRNESS_KEY_BYTES)
}

fn priority(level: u32) -> Result<Priority, Failure> {
    Priority::new(level).ok_or_else(|| {
        Failure::invalid(format!(
            "priority is {level}; it must be 0 to {}, or be left out for {}",
            Priority::MAX,
            Priority::default().level()
        ))
    })
}

fn headers(headers: std::collections::HashMap<String, String>) -> Result<Vec<(String, String)>, Failure> {
    let bytes: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADERS_BYTES {
        return Err(Failure::invalid(format!(
            "{} headers with {bytes} bytes: at most {MAX_HEADERS} and {MAX_HEADERS_BYTES} bytes are allowed",
            headers.len()
        )));
    }
    let mut headers: Vec<(String, String)> = headers.into_iter().collect();
    headers.sort_unstable();
    headers.iter().try_for_each(|(key, _)| header_key(key))?;
    Ok(headers)
}

fn header_key(key: &str) -> Result<(), Failure> {
    if key.is_empty() || key.len() > MAX_HEADER_KEY_BYTES {
        return Err(Failure::invalid(format!("header names have 1 to {MAX_HEADER_KEY_BYTES} bytes")));
    }
    if key.starts_with(RESERVED_HEADER_PREFIX) {
        return Err(Failure::invalid(format!(
            "header names that start with {RESERVED_HEADER_PREFIX:?} are reserved"
        )));
    }
    Ok(())
}

fn available(available: Option<&v1::message::Available>) -> Result<Available, Failure> {
    match available {
        None => Ok(Available::Now),
        Some(v1::message::Available::Delay(delay)) => Ok(Available::After(millis("delay", delay)?)),
        Some(v1::message::Available::DeliverAt(at)) => Ok(Available::At(millis_at("deliver_at", at)?)),
    }
}

/// A name that a consumer gives itself.
pub(crate) fn consumer(name: String) -> Result<String, Failure> {
    short("consumer", name, MAX_CONSUMER_BYTES)
}

/// An id that makes a repetition safe.
pub(crate) fn request_id(id: String) -> Result<String, Failure> {
    short("request_id", id, MAX_REQUEST_ID_BYTES)
}

/// How long a delivery is to be held.
pub(crate) fn ack_timeout(timeout: Option<&Duration>) -> Result<Option<u64>, Failure> {
    let Some(timeout) = timeout else { return Ok(None) };
    let ms = millis("ack_timeout", timeout)?;
    if !(MIN_ACK_TIMEOUT_MS..=MAX_ACK_TIMEOUT_MS).contains(&ms) {
        return Err(Failure::invalid("ack_timeout must be between 1 s and 12 h"));
    }
    Ok(Some(ms))
}

/// A duration that waits, at most `max_ms`.
pub(crate) fn bounded_millis(field: &str, duration: &Duration, max_ms: u64) -> Result<u64, Failure> {
    let ms = millis(field, duration)?;
    if ms > max_ms { Err(Failure::invalid(format!("{field} is over {} s", max_ms / 1000))) } else { Ok(ms) }
}

/// The number of a batch's items, within the limit.
pub(crate) fn batch_size(what: &str, len: usize) -> Result<(), Failure> {
    match len {
        0 => Err(Failure::invalid(format!("no {what}: a call needs at least one"))),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Failure::new(
            Reason::BatchTooLarge,
            format!("{len} {what}: a call has at most {MAX_BATCH}; split it"),
        )),
    }
}

/// How a delivery ends.
pub(crate) fn outcome(outcome: Option<v1::settlement::Outcome>) -> Result<Outcome, Failure> {
    use v1::settlement::Outcome as Wire;
    match outcome {
        None => Err(Failure::invalid("a settlement needs an outcome: ack, nack, release, reject or lost")),
        Some(Wire::Ack(_)) => Ok(Outcome::Ack),
        Some(Wire::Nack(v1::Nack { delay, reason })) => {
            let delay_ms = delay.as_ref().map(|delay| delay_millis("delay", delay)).transpose()?;
            Ok(Outcome::Nack { delay_ms, reason })
        }
        Some(Wire::Release(_)) => Ok(Outcome::Release),
        Some(Wire::Reject(v1::Reject { reason })) => Ok(Outcome::Reject { reason }),
        Some(Wire::Lost(v1::Lost { reason })) => Ok(Outcome::Lost { reason }),
    }
}

/// Where a settled message is now.
pub(crate) fn settle_result(settled: Settled) -> v1::SettleResult {
    v1::SettleResult {
        state: settled.state.map_or(v1::State::Unspecified, state).into(),
        next_attempt_at: settled.delayed_until.map(|at| timestamp(at.0)),
        error: None,
    }
}

/// A delivery on the wire.
pub(crate) fn delivery(delivery: Delivery) -> v1::Delivery {
    v1::Delivery {
        receipt: delivery.receipt,
        message: Some(message(delivery.message)),
        ack_deadline: Some(timestamp(delivery.deadline.0)),
        fencing_token: delivery.epoch.0,
    }
}

/// Bytes of an item of a repeated field: its own, its length and its tag.
pub(crate) fn len_in_list(item: &impl prost::Message) -> usize {
    const MAX_LENGTH_AND_TAG: usize = 6;
    item.encoded_len() + MAX_LENGTH_AND_TAG
}

/// A message on the wire.
pub(crate) fn message(message: Message) -> v1::Message {
    let Payload { body, headers, content_type, dedup_id, ordering_key, fairness_key } = message.payload;
    v1::Message {
        body_bytes: body.len() as u64,
        body,
        headers: headers.into_iter().collect(),
        content_type,
        ordering_key,
        fairness_key,
        priority: Some(message.priority.level().into()),
        dedup_id,
        available: None,
        ttl: message.expires_at.map(|at| ackwell_proto::duration(at.ms_since(message.stored_at))),
        max_attempts: message.max_attempts,
        id: message.id.to_string(),
        stored_at: Some(timestamp(message.stored_at.0)),
        state: state(message.state).into(),
        attempts: message.attempts,
        deliveries: message.deliveries,
        history: message.history.into_iter().map(attempt).collect(),
        dead_reason: message.dead_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        next_attempt_at: message.delayed_until.map(|at| timestamp(at.0)),
    }
}

fn attempt(attempt: Attempt) -> v1::Attempt {
    v1::Attempt {
        started: Some(timestamp(attempt.started.0)),
        ended: Some(timestamp(attempt.ended.0)),
        outcome: attempt.outcome.as_str().to_owned(),
        reason: attempt.reason,
        consumer: attempt.consumer,
    }
}

/// Where a message stands.
pub(crate) fn state(state: State) -> v1::State {
    match state {
        State::Ready => v1::State::Ready,
        State::Delayed => v1::State::Delayed,
        State::InFlight => v1::State::InFlight,
        State::Dead => v1::State::Dead,
    }
}

/// Which messages are meant.
pub(crate) fn filter(filter: Option<v1::Filter>) -> Result<Filter, Failure> {
    let filter = filter.unwrap_or_default();
    if filter.ids.len() > MAX_BATCH {
        return Err(Failure::invalid(format!("a filter has at most {MAX_BATCH} ids")));
    }
    Ok(Filter {
        states: filter.states.iter().map(|state| known_state(*state)).collect::<Result<_, _>>()?,
        ordering_key: ordering_key(filter.ordering_key)?,
        fairness_key: fairness_key(filter.fairness_key)?,
        headers: filter.headers.into_iter().collect(),
        reason_contains: filter.reason_contains,
        min_attempts: filter.min_attempts,
        stored_after: filter.stored_after.map(|at| millis_at("stored_after", &at)).transpose()?,
        stored_before: filter.stored_before.map(|at| millis_at("stored_before", &at)).transpose()?,
        ids: filter.ids.iter().map(|id| message_id(id)).collect::<Result<_, _>>()?,
    })
}

fn known_state(state: i32) -> Result<State, Failure> {
    match v1::State::try_from(state) {
        Ok(v1::State::Ready) => Ok(State::Ready),
        Ok(v1::State::Delayed) => Ok(State::Delayed),
        Ok(v1::State::InFlight) => Ok(State::InFlight),
        Ok(v1::State::Dead) => Ok(State::Dead),
        Ok(v1::State::Unspecified) | Err(_) => {
            Err(Failure::invalid(format!("{state} is not a state of a message")))
        }
    }
}

/// A message by name.
pub(crate) fn message_id(id: &str) -> Result<MessageId, Failure> {
    id.parse().map_err(|error: ackwell_engine::message::InvalidMessageId| Failure::invalid(error.to_string()))
}

fn short(field: impl Display, text: String, max_bytes: usize) -> Result<String, Failure> {
    if text.len() > max_bytes {
        return Err(Failure::invalid(format!(
            "{field} has {} bytes; at most {max_bytes} are allowed",
            text.len()
        )));
    }
    Ok(text)
}

fn delay_millis(field: &str, delay: &Duration) -> Result<u64, Failure> {
    let ms = millis(field, delay)?;
    if ms > MAX_DELAY_MS { Err(Failure::invalid(format!("{field} is over 365 days"))) } else { Ok(ms) }
}

fn millis(field: &str, duration: &Duration) -> Result<u64, Failure> {
    duration_millis(duration)
        .ok_or_else(|| Failure::invalid(format!("{field} must not be negative or malformed")))
}

fn millis_at(field: &str, at: &Timestamp) -> Result<ackwell_engine::Timestamp, Failure> {
    let ms =
        timestamp_millis(at).ok_or_else(|| Failure::invalid(format!("{field} must be a time after 1970")))?;
    Ok(ackwell_engine::Timestamp(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(message: v1::Message) -> Option<String> {
        new_message(message, &None).err().map(|failure| failure.message)
    }

    /// What a sender gives is what a consumer sees; out of their range, the field is named.
    #[test]
    fn keys_and_priority_are_bounded() {
        let largest = v1::Message {
            ordering_key: "o".repeat(128),
            fairness_key: "f".repeat(64),
            priority: Some(9),
            ..v1::Message::default()
        };
        let parsed = new_message(largest.clone(), &None).unwrap();
        assert_eq!((parsed.priority.level(), parsed.payload.fairness_key.len()), (9, 64));
        let long_order = v1::Message { ordering_key: "o".repeat(129), ..largest.clone() };
        assert_eq!(refusal(long_order).unwrap(), "ordering_key has 129 bytes; at most 128 are allowed");
        let long_tenant = v1::Message { fairness_key: "f".repeat(65), ..largest.clone() };
        assert_eq!(refusal(long_tenant).unwrap(), "fairness_key has 65 bytes; at most 64 are allowed");
        let urgent = v1::Message { priority: Some(10), ..largest };
        assert_eq!(refusal(urgent).unwrap(), "priority is 10; it must be 0 to 9, or be left out for 4");
    }
}
