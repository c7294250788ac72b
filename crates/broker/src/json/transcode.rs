//! Between JSON and the API's messages, by the JSON mapping of protobuf and the API's own descriptors.

use std::sync::LazyLock;

use ackwell_proto::Failure;
use ackwell_proto::v1::DESCRIPTORS;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use tonic::Status;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the descriptors are generated and tested"));

fn descriptor(name: &str) -> MessageDescriptor {
    let name = format!("ackwell.v1.{name}");
    POOL.get_message_by_name(&name).expect("the routes name messages of the API")
}

/// Reads a request. Fields that the API does not have are refused, since they may be misspelt.
pub(super) fn request<T: Message + Default>(name: &str, json: &[u8]) -> Result<T, Failure> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor(name), &mut reader, &options)
        .and_then(|message| reader.end().map(|()| message))
        .map_err(|error| Failure::invalid(format!("the body is not a {name} in JSON: {error}")))?;
    message
        .transcode_to()
        .map_err(|error| Failure::invalid(format!("the body is not a {name} in JSON: {error}")))
}

/// Writes an answer, with all its fields.
pub(super) fn response(name: &str, message: &impl Message) -> Result<Vec<u8>, Status> {
    let unexpected =
        |error: &dyn std::fmt::Display| Status::internal(format!("write {name} as JSON: {error}"));
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.transcode_from(message).map_err(|error| unexpected(&error))?;
    let mut json = Vec::new();
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut writer = serde_json::Serializer::new(&mut json);
    dynamic.serialize_with_options(&mut writer, &options).map_err(|error| unexpected(&error))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use ackwell_proto::v1::{self, SendRequest, SettleResponse, SettleResult, State};

    use super::*;

    /// Promise: the JSON is that of protobuf's mapping, which every language's protobuf writes.
    #[test]
    fn request_follows_the_mapping_of_protobuf() {
        let json =
            br#"{"messages": [{"body": "aGk=", "headers": {"a": "b"}, "delay": "1.5s", "maxAttempts": 3}]}"#;
        let request: SendRequest = request("SendRequest", json).unwrap();
        let message = &request.messages[0];
        let delay = v1::message::Available::Delay(ackwell_proto::duration(1500));
        assert_eq!((&message.body[..], &message.headers["a"][..]), (&b"hi"[..], "b"));
        assert_eq!((&message.available, message.max_attempts), (&Some(delay), Some(3)));
    }

    /// A field that is misspelt is not overlooked, and the refusal names it.
    #[test]
    fn unknown_field_is_refused_by_name() {
        for json in [&br#"{"mesages": []}"#[..], b"{", b"{} {}", b"[]"] {
            let refused = request::<SendRequest>("SendRequest", json).unwrap_err();
            assert_eq!(refused.reason, ackwell_proto::Reason::InvalidArgument);
            assert!(json != &br#"{"mesages": []}"#[..] || refused.message.contains("mesages"), "{refused}");
        }
    }

    /// Scripts read fields without asking whether they are there.
    #[test]
    fn response_has_all_fields() {
        let result = SettleResult { state: State::Delayed.into(), ..SettleResult::default() };
        let json = response("SettleResponse", &SettleResponse { results: vec![result] }).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["results"][0]["state"], "STATE_DELAYED");
        let empty = response("SettleResponse", &SettleResponse::default()).unwrap();
        assert_eq!(empty, b"{\"results\":[]}\n");
    }
}
