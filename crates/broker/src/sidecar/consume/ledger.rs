//! What a consumer holds, and what waits for room in its window.

use std::collections::{HashMap, VecDeque};

use ackwell_proto::v1::Delivery;
use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;

use super::window::Limits;
use crate::sidecar::merge::MAX_BATCH;
use crate::sidecar::receipt::Receipt;

/// Below the 4 MiB that gRPC clients accept by default. A larger message comes alone.
const MAX_FRAME_BYTES: usize = 3 << 20;
/// Of an item of a repeated field.
const MAX_LENGTH_AND_TAG: usize = 6;

/// Deliveries by sealed receipt.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) window: Limits,
    held: HashMap<Bytes, Held>,
    held_bytes: u64,
    /// In the order in which they came, and since when.
    waiting: VecDeque<(Instant, Delivery)>,
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    /// Number of the frame that carries it; 0 for what the application held before.
    frame: u64,
}

impl Ledger {
    pub(crate) fn new(window: Limits) -> Self {
        Self { window, held: HashMap::new(), held_bytes: 0, waiting: VecDeque::new() }
    }

    /// The application says that it holds this from a stream before.
    pub(crate) fn resume(&mut self, receipt: Bytes) {
        self.held.insert(receipt, Held { bytes: 0, frame: 0 });
    }

    /// Takes what a shard delivered; it waits until [`Self::admit`] finds room.
    pub(crate) fn wait(&mut self, now: Instant, deliveries: Vec<Delivery>) {
        self.waiting.extend(deliveries.into_iter().map(|delivery| (now, delivery)));
    }

    /// What fits the window now, as one frame; empty when nothing does.
    pub(crate) fn admit(&mut self, frame: u64) -> Vec<Delivery> {
        let mut admitted = Vec::new();
        let mut frame_bytes = 0;
        while let Some((_, next)) = self.waiting.front() {
            let bytes = next.message.as_ref().map_or(0, |message| message.body.len() as u64);
            let len = next.encoded_len() + MAX_LENGTH_AND_TAG;
            let fits_frame =
                admitted.is_empty() || (frame_bytes + len <= MAX_FRAME_BYTES && admitted.len() < MAX_BATCH);
            if !fits_frame || !self.has_room(bytes) {
                break;
            }
            frame_bytes += len;
            self.held_bytes += bytes;
            let (_, delivery) = self.waiting.pop_front().expect("its front was just seen");
            self.held.insert(delivery.receipt.clone(), Held { bytes, frame });
            admitted.push(delivery);
        }
        admitted
    }

    /// The receipt is no longer valid; whether the application knew it.
    pub(crate) fn remove(&mut self, receipt: &Bytes) -> bool {
        if let Some(held) = self.held.remove(receipt) {
            self.held_bytes -= held.bytes;
            return true;
        }
        self.waiting.retain(|(_, delivery)| delivery.receipt != receipt);
        false
    }

    /// The broker's receipts of one shard that are unsettled, waiting ones included.
    pub(crate) fn of_shard(&self, shard: usize) -> Vec<Vec<u8>> {
        let of_shard = |receipt: &Bytes| {
            let receipt = Receipt::open(receipt, usize::MAX).ok()?;
            (usize::from(receipt.shard) == shard).then(|| receipt.inner.to_vec())
        };
        self.unsettled().filter_map(of_shard).collect()
    }

    /// How many messages of each of `shards` shards are unsettled.
    pub(crate) fn in_hand(&self, shards: usize) -> Vec<u32> {
        let mut counts = vec![0; shards];
        for receipt in self.unsettled() {
            let shard = Receipt::open(receipt, shards).map(|receipt| usize::from(receipt.shard));
            if let Some(count) = shard.ok().and_then(|shard| counts.get_mut(shard)) {
                *count += 1;
            }
        }
        counts
    }

    /// Takes what the application has not got.
    pub(crate) fn take_waiting(&mut self) -> Vec<Bytes> {
        self.waiting.drain(..).map(|(_, delivery)| delivery.receipt).collect()
    }

    /// Takes what has waited since `then` or longer.
    pub(crate) fn take_waiting_since(&mut self, then: Instant) -> Vec<Bytes> {
        let count = self.waiting.partition_point(|(since, _)| *since <= then);
        self.waiting.drain(..count).map(|(_, delivery)| delivery.receipt).collect()
    }

    /// Takes everything: what frames up to number `taken` showed to the application, and what nobody saw.
    pub(crate) fn take(&mut self, taken: u64) -> Unsettled {
        self.held_bytes = 0;
        let (seen, unseen): (Vec<_>, Vec<_>) = self.held.drain().partition(|(_, held)| held.frame <= taken);
        let receipts = |list: Vec<(Bytes, Held)>| list.into_iter().map(|(receipt, _)| receipt);
        let waiting = self.take_waiting();
        Unsettled { seen: receipts(seen).collect(), unseen: receipts(unseen).chain(waiting).collect() }
    }

    fn unsettled(&self) -> impl Iterator<Item = &Bytes> {
        self.held.keys().chain(self.waiting.iter().map(|(_, delivery)| &delivery.receipt))
    }

    fn has_room(&self, bytes: u64) -> bool {
        let count = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.held.is_empty() || count < self.window.messages && self.held_bytes + bytes <= self.window.bytes
    }
}

/// Sealed receipts at the end of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) seen: Vec<Bytes>,
    pub(crate) unseen: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use ackwell_proto::v1::Message;

    use super::*;

    fn delivery(shard: u16, name: &str, bytes: usize) -> Delivery {
        let message = Message { body: vec![0; bytes].into(), ..Message::default() };
        Delivery {
            receipt: Receipt::seal(shard, name.as_bytes()),
            message: Some(message),
            ..Delivery::default()
        }
    }

    fn names(deliveries: &[Delivery]) -> Vec<Bytes> {
        deliveries.iter().map(|delivery| Receipt::open(&delivery.receipt, 9).unwrap().inner).collect()
    }

    /// The application never holds more than its window, whatever the shards sent.
    #[test]
    fn surplus_waits_for_room() {
        let mut ledger = Ledger::new(Limits { messages: 2, bytes: 100 });
        ledger.wait(Instant::now(), vec![delivery(0, "a", 1), delivery(1, "b", 1), delivery(0, "c", 1)]);
        let first = ledger.admit(1);
        assert_eq!(names(&first), ["a", "b"]);
        assert!(ledger.admit(2).is_empty());
        assert!(ledger.remove(&first[0].receipt));
        assert_eq!(names(&ledger.admit(2)), ["c"]);
        assert_eq!(ledger.in_hand(2), [1, 1]);
    }

    /// A message larger than the window still comes, alone.
    #[test]
    fn oversized_delivery_comes_alone() {
        let mut ledger = Ledger::new(Limits { messages: 9, bytes: 10 });
        ledger.wait(Instant::now(), vec![delivery(0, "big", 50), delivery(0, "small", 1)]);
        let big = ledger.admit(1);
        assert_eq!(names(&big), ["big"]);
        assert!(ledger.admit(2).is_empty());
        ledger.remove(&big[0].receipt);
        assert_eq!(names(&ledger.admit(2)), ["small"]);
    }

    /// A frame fits what gRPC clients take by default, whatever makes it large.
    #[test]
    fn frames_are_cut_below_the_default_limit() {
        let mut ledger = Ledger::new(Limits { messages: 9, bytes: 64 << 20 });
        let mut with_headers = delivery(0, "c", 1);
        let message = with_headers.message.as_mut().unwrap();
        message.headers.insert("note".to_owned(), "x".repeat(2 << 20));
        ledger.wait(Instant::now(), vec![delivery(0, "a", 2 << 20), delivery(0, "b", 2 << 20), with_headers]);
        assert_eq!(names(&ledger.admit(1)), ["a"]);
        assert_eq!(names(&ledger.admit(2)), ["b"]);
        assert_eq!(names(&ledger.admit(3)), ["c"]);
    }

    /// Whoever acks a frame with one frame is not refused for its length.
    #[test]
    fn frame_has_no_more_than_can_be_settled_at_once() {
        let mut ledger = Ledger::new(Limits { messages: 5000, bytes: 64 << 20 });
        ledger.wait(Instant::now(), vec![delivery(0, "a", 1); 1500]);
        assert_eq!((ledger.admit(1).len(), ledger.admit(2).len()), (1000, 500));
    }

    /// Blame only follows what the application can have seen.
    #[test]
    fn take_tells_seen_from_unseen() {
        let mut ledger = Ledger::new(Limits { messages: 2, bytes: 100 });
        ledger.wait(Instant::now(), vec![delivery(0, "a", 1)]);
        ledger.admit(1);
        ledger.wait(Instant::now(), vec![delivery(0, "b", 1), delivery(0, "c", 1)]);
        ledger.admit(2);
        let open = |receipts: Vec<Bytes>| -> Vec<_> {
            receipts.iter().map(|receipt| Receipt::open(receipt, 1).unwrap().inner).collect()
        };
        let Unsettled { seen, unseen } = ledger.take(1);
        assert_eq!((open(seen), open(unseen)), (vec!["a".into()], vec!["b".into(), "c".into()]));
    }
}
