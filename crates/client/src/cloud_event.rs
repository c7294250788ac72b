//! `CloudEvents` 1.0 in binary mode: attributes in headers `ce-*`, the data is the body.

use std::collections::HashMap;

use ackwell_proto::v1::Message;

const PREFIX: &str = "ce-";
const VERSION: &str = "1.0";

/// An event; attributes as in the specification. Those that are empty are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification says what each attribute is")]
pub struct CloudEvent {
    pub id: String,
    pub source: String,
    pub r#type: String,
    pub subject: String,
    /// In RFC 3339.
    pub time: String,
    pub datacontenttype: String,
    pub dataschema: String,
    pub extensions: HashMap<String, String>,
    pub data: Vec<u8>,
}

/// A message carries no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is no CloudEvent 1.0: header {header} is missing or another")]
pub struct NotACloudEvent {
    header: String,
}

impl From<CloudEvent> for Message {
    fn from(event: CloudEvent) -> Self {
        let attributes = [
            ("specversion", VERSION.to_owned()),
            ("id", event.id),
            ("source", event.source),
            ("type", event.r#type),
            ("subject", event.subject),
            ("time", event.time),
            ("dataschema", event.dataschema),
        ];
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
        let present = event.extensions.into_iter().chain(attributes).filter(|(_, value)| !value.is_empty());
        Self {
            body: event.data.into(),
            headers: present.map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect(),
            content_type: event.datacontenttype,
            ..Self::default()
        }
    }
}

impl TryFrom<&Message> for CloudEvent {
    type Error = NotACloudEvent;

    fn try_from(message: &Message) -> Result<Self, NotACloudEvent> {
        let headers = message.headers.iter();
        let mut attributes: HashMap<String, String> = headers
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value.clone())))
            .collect();
        let mut required = |name: &str| match attributes.remove(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(NotACloudEvent { header: format!("{PREFIX}{name}") }),
        };
        if required("specversion")? != VERSION {
            return Err(NotACloudEvent { header: format!("{PREFIX}specversion") });
        }
        let (id, source, r#type) = (required("id")?, required("source")?, required("type")?);
        let mut optional = |name: &str| attributes.remove(name).unwrap_or_default();
        let (subject, time, dataschema) = (optional("subject"), optional("time"), optional("dataschema"));
        let (datacontenttype, data) = (message.content_type.clone(), message.body.to_vec());
        Ok(Self {
            id,
            source,
            r#type,
            subject,
            time,
            datacontenttype,
            dataschema,
            extensions: attributes,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event comes out as it went in, and what is no event is told apart.
    #[test]
    fn event_through_a_message_is_unchanged() {
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/shop".to_owned(),
            r#type: "order.placed".to_owned(),
            subject: "größe".to_owned(),
            datacontenttype: "application/json".to_owned(),
            extensions: [("tenant".to_owned(), "north".to_owned())].into(),
            data: b"{}".to_vec(),
            ..CloudEvent::default()
        };
        assert_eq!(CloudEvent::try_from(&Message::from(event.clone())), Ok(event));
        let error = CloudEvent::try_from(&Message::default()).unwrap_err();
        assert!(error.to_string().contains("ce-specversion"), "{error}");
    }
}
