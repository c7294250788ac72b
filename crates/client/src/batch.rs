//! Messages for one call, within the limits of a call.

use ackwell_proto::v1::Message;
use prost::Message as _;

/// Most messages of one call.
pub const MAX_BATCH_MESSAGES: usize = 1000;
/// Most encoded bytes of one call with several messages: below the 4 MiB that gRPC servers accept by default. A single
/// larger message goes alone.
pub const MAX_BATCH_BYTES: usize = 3 << 20;

/// Messages that fit one call.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    bytes: usize,
}

impl Batch {
    /// Adds `message`, or gives it back when it does not fit. An empty batch takes any message.
    #[must_use = "a message that does not fit is given back"]
    pub fn push(&mut self, message: Message) -> Option<Message> {
        let bytes = self.bytes + message.encoded_len();
        let full = self.messages.len() >= MAX_BATCH_MESSAGES || bytes > MAX_BATCH_BYTES;
        if full && !self.messages.is_empty() {
            return Some(message);
        }
        self.messages.push(message);
        self.bytes = bytes;
        None
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages, leaving an empty batch.
    pub fn take(&mut self) -> Vec<Message> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}

/// `messages` cut into batches.
pub(crate) fn batches(messages: impl IntoIterator<Item = Message>) -> impl Iterator<Item = Vec<Message>> {
    let mut messages = messages.into_iter().fuse();
    let mut batch = Batch::default();
    std::iter::from_fn(move || {
        let overflow = messages.by_ref().find_map(|message| batch.push(message));
        let full = batch.take();
        if let Some(message) = overflow {
            let none = batch.push(message);
            debug_assert!(none.is_none(), "an empty batch takes any message");
        }
        (!full.is_empty()).then_some(full)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message { body: vec![0; bytes].into(), ..Message::default() }
    }

    fn sizes(messages: impl IntoIterator<Item = Message>) -> Vec<usize> {
        batches(messages).map(|batch| batch.len()).collect()
    }

    /// A call with more than 1000 messages is refused by the broker as a whole.
    #[test]
    fn batches_of_many_messages_hold_at_most_1000() {
        assert_eq!(sizes((0..2500).map(|_| message(1))), [1000, 1000, 500]);
        assert_eq!(sizes([]), [] as [usize; 0]);
    }

    /// Servers with gRPC's default limit refuse 4 MiB; a single large message has to go anyway.
    #[test]
    fn batches_of_large_messages_hold_at_most_3_mib() {
        let mib = 1 << 20;
        assert_eq!(
            sizes([message(mib), message(mib), message(mib), message(5 * mib), message(1)]),
            [2, 1, 1, 1]
        );
    }
}
