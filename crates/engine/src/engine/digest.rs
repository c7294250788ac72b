//! A digest of the whole state, to compare two engines by.

use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::Engine;
use crate::message::{Location, Row};
use crate::messages::Counts;

impl Engine {
    /// Equal for engines that will answer the same commands in the same way. Looks at everything: for tests.
    pub fn digest(&self) -> u128 {
        let mut hasher = SipHasher24::new();
        format!("{:?}", self.meta).hash(&mut hasher);
        for (id, queue) in &self.queues {
            format!("{id:?} {:?}", queue.record).hash(&mut hasher);
            self.messages.turns(*id).hash(&mut hasher);
        }
        // Where a payload lies decides nothing.
        let rows = self.messages.rows().map(|(seq, row)| (seq, Row { location: Location::NONE, ..row }));
        rows.for_each(|row| format!("{row:?}").hash(&mut hasher));
        self.memory.entries().for_each(|entry| format!("{entry:?}").hash(&mut hasher));
        hasher.finish128().as_u128()
    }

    /// The counts of a queue, counted anew: what [`Engine::stats`] keeps up incrementally. For tests.
    pub fn recount(&self, queue: crate::message::QueueId) -> Counts {
        let mut counts = Counts::default();
        self.messages.rows().filter(|(_, row)| row.queue == queue).for_each(|(_, row)| counts.add(&row));
        counts
    }
}
