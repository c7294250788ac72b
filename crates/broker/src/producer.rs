//! A producer, as broker and sidecar see it: its name, and the order of its batches.

use ackwell_proto::Failure;

/// With a `seq` and what is around it, a `request_id` of at most 64 B.
const MAX_NAME_BYTES: usize = 40;

/// Of one stream.
pub(crate) struct Producer {
    name: String,
    /// Of its latest batch.
    seq: u64,
}

impl Producer {
    /// A producer without a name gets one.
    pub(crate) fn named(name: String) -> Result<Self, Failure> {
        if name.len() > MAX_NAME_BYTES {
            let message = format!("producer has {} bytes; at most {MAX_NAME_BYTES} are allowed", name.len());
            return Err(Failure::invalid(message));
        }
        let name = if name.is_empty() { uuid::Uuid::new_v4().to_string() } else { name };
        Ok(Self { name, seq: 0 })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A batch comes.
    pub(crate) fn advance(&mut self, seq: u64) -> Result<(), Failure> {
        if seq <= self.seq {
            let message = format!("batch {seq} comes after batch {}: the seq of a stream goes up", self.seq);
            return Err(Failure::invalid(message));
        }
        self.seq = seq;
        Ok(())
    }

    /// What makes it safe to send the batch again. No call's own id looks like it.
    pub(crate) fn request_id(&self, seq: u64) -> String {
        format!("p:{}:{seq}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest name and the last batch still fit what brokers take as a `request_id`.
    #[test]
    fn request_id_fits_its_limit() {
        let producer = Producer::named("n".repeat(MAX_NAME_BYTES)).unwrap();
        assert_eq!(producer.request_id(u64::MAX).len(), 63);
        assert!(Producer::named("n".repeat(MAX_NAME_BYTES + 1)).is_err());
    }

    /// What a repetition is told by cannot stand for two batches of a stream.
    #[test]
    fn seq_goes_up() {
        let mut producer = Producer::named(String::new()).unwrap();
        producer.advance(3).unwrap();
        assert!(producer.advance(3).is_err() && producer.advance(2).is_err());
        producer.advance(7).unwrap();
        assert!(Producer::named(String::new()).unwrap().advance(0).is_err());
    }
}
