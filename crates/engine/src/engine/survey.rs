//! All there is, for those who look at a store that no broker has.

use super::Engine;
use crate::message::{QueueId, Row, Seq};
use crate::store::{Meta, QueueRecord, StoreError, catching};

impl Engine {
    /// What it counts.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn queue_records(&self) -> impl Iterator<Item = (QueueId, &QueueRecord)> {
        self.queues.iter().map(|(id, queue)| (*id, &queue.record))
    }

    /// Every row, in stored order.
    pub(crate) fn survey(&self) -> impl Iterator<Item = Result<(Seq, Row), StoreError>> {
        let mut rows = self.messages.rows();
        std::iter::from_fn(move || catching(|| Ok(rows.next())).transpose())
    }
}
