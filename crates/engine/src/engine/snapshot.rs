//! What is read of a shard to be kept elsewhere, while it goes on; and whether a shard may take what was kept.

use super::Engine;
use crate::kept::{Kept, KeptIds, Snapshot, Stretch};
use crate::message::{QueueId, Seq};
use crate::moving::{RememberedId, Source};
use crate::store::{StoreError, catching};

impl Engine {
    /// What there is now.
    pub fn snapshot(&self, queue: QueueId) -> Snapshot {
        let end = Seq(self.meta.next_seq);
        let first = self.messages.index(queue).and_then(|index| index.all.iter().next()).unwrap_or(end);
        let placement = self.placement(queue);
        let origins = self.moves(queue).map(|moves| moves.origins.clone()).unwrap_or_default();
        let source = Source { ordinal: placement.ordinal, salt: self.meta.salt, first, end, origins };
        Snapshot { placement, source, messages: self.messages.counts(queue).messages() }
    }

    /// Messages from one place to before another, at most so many, with at most so many bytes of bodies unless it is one.
    pub fn kept(
        &self,
        queue: QueueId,
        (from, end): (Seq, Seq),
        (max_messages, max_bytes): (usize, u64),
    ) -> Result<Stretch, StoreError> {
        catching(|| {
            let (mut messages, mut bytes) = (Vec::new(), 0);
            let all = self.messages.index(queue).into_iter().flat_map(|index| index.all.iter_from(from));
            for seq in all.take_while(|seq| *seq < end) {
                bytes += self.row(seq).body_bytes;
                let is_full = messages.len() >= max_messages || bytes > max_bytes;
                if is_full && !messages.is_empty() {
                    return Ok(Stretch { messages, next: Some(seq) });
                }
                messages.extend(self.traveller(seq)?.map(Kept::from));
            }
            Ok(Stretch { messages, next: None })
        })
    }

    /// Dedup ids behind `after`, of what was stored before `end`: to come back with an id and without its message would be to
    /// lose what is sent again.
    pub fn kept_dedup_ids(&self, queue: QueueId, after: &str, end: Seq, limit: usize) -> KeptIds {
        let mut ids = self.dedup_ids(queue, after, limit);
        let next = ids.last().filter(|_| ids.len() == limit).map(|last| last.dedup_id.clone());
        let own = self.meta.salt & 0x00ff_ffff;
        let is_later = |known: &RememberedId| known.message.salt() == own && known.message.seq() >= end;
        ids.retain(|known| !is_later(known));
        KeptIds { ids, next }
    }

    /// Whether the shard can have what these stores had: it began to take just that before, or never had anything. The same stores
    /// may have had something else on another day, of which these places would be others.
    pub fn can_restore(&self, queue: QueueId, sources: &[Source]) -> bool {
        let arrivals = self.moves(queue).map_or(&[][..], |moves| &moves.arrivals);
        let has_begun = |source: &Source| arrivals.iter().any(|arrival| arrival.salt == source.salt);
        let is_same = |source: &Source| {
            arrivals.iter().filter(|arrival| arrival.salt == source.salt).all(|arrival| arrival.is_of(source))
        };
        (self.meta.next_seq == 1 || sources.iter().any(has_begun))
            && sources.iter().all(|source| source.salt != self.meta.salt && is_same(source))
    }
}
