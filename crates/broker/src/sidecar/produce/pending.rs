//! What the application has sent and not been told of: batches in its order, confirmed from the front.

use std::collections::VecDeque;

use ackwell_proto::v1::{ProduceConfirm, ProduceResult, SendResult};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::traces::{self, Open};

/// Results of one frame, below the 4 MiB that gRPC clients accept by default: some of them have long messages for people.
const MAX_FRAME_RESULTS: usize = 2000;

/// A batch that lies with its shards.
pub(super) struct Batch {
    pub(super) seq: u64,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// Since when it is tried.
    pub(super) since: Instant,
    /// Shards that have not confirmed their part.
    pub(super) parts: usize,
    pub(super) results: Vec<ProduceResult>,
    /// Where it is recorded.
    pub(super) span: Option<Open>,
    /// Of the memory for what waits for brokers.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Batch {
    fn end_span(&mut self) {
        let results = self.results.iter().filter_map(|result| result.result.as_ref());
        let id = || results.clone().next().map(|result| result.id.clone());
        let errors = results.clone().filter_map(|result| result.error.as_ref());
        traces::stored(self.span.take(), self.messages, id, errors.map(|error| error.reason.as_str()));
    }
}

#[derive(Default)]
pub(super) struct Pending {
    batches: VecDeque<Batch>,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.since)
    }

    pub(super) fn add(&mut self, batch: Batch) {
        self.messages += batch.messages;
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
    }

    /// How many messages the batch has.
    pub(super) fn messages_of(&self, seq: u64) -> usize {
        let index = self.batches.binary_search_by_key(&seq, |batch| batch.seq);
        index.map_or(0, |index| self.batches[index].messages)
    }

    /// A shard says something about a message.
    pub(super) fn result(&mut self, seq: u64, position: usize, result: Option<SendResult>) {
        if let Some(batch) = self.find(seq) {
            let index = u32::try_from(position).expect("a batch has at most 1000 messages");
            batch.results.push(ProduceResult { seq, index, result });
        }
    }

    /// A shard confirms its part of a batch.
    pub(super) fn confirmed(&mut self, seq: u64) {
        if let Some(batch) = self.find(seq) {
            batch.parts = batch.parts.saturating_sub(1);
        }
    }

    /// What can be told to the application now.
    pub(super) fn confirm(&mut self) -> Option<ProduceConfirm> {
        let mut confirm = ProduceConfirm::default();
        while confirm.results.len() < MAX_FRAME_RESULTS
            && let Some(mut batch) = self.batches.pop_front_if(|batch| batch.parts == 0)
        {
            self.messages -= batch.messages;
            self.bytes -= batch.bytes;
            batch.results.sort_unstable_by_key(|result| result.index);
            batch.end_span();
            confirm.through_seq = batch.seq;
            confirm.results.append(&mut batch.results);
        }
        (confirm.through_seq > 0).then_some(confirm)
    }

    fn find(&mut self, seq: u64) -> Option<&mut Batch> {
        let index = self.batches.binary_search_by_key(&seq, |batch| batch.seq).ok()?;
        self.batches.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn batch(seq: u64, parts: usize) -> Batch {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Batch {
            seq,
            messages: 2,
            bytes: 10,
            since: Instant::now(),
            parts,
            results: Vec::new(),
            span: None,
            _room: room,
        }
    }

    /// A confirm speaks for all before it: whatever shard is the first to answer, nothing is confirmed out of order.
    #[tokio::test]
    async fn batches_are_confirmed_in_order_of_the_stream() {
        let mut pending = Pending::default();
        [batch(3, 2), batch(5, 1), batch(8, 1)].into_iter().for_each(|batch| pending.add(batch));
        pending.confirmed(5);
        pending.confirmed(3);
        assert_eq!(pending.confirm(), None);
        pending.result(3, 1, None);
        pending.result(3, 0, None);
        pending.confirmed(3);
        let confirm = pending.confirm().unwrap();
        let places: Vec<_> = confirm.results.iter().map(|result| (result.seq, result.index)).collect();
        assert_eq!((confirm.through_seq, places), (5, vec![(3, 0), (3, 1)]));
        assert_eq!((pending.len(), pending.messages, pending.bytes), (1, 2, 10));
    }
}
