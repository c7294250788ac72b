//! Which messages this shard stores, which it only keeps for another one, and where what came from others was stored.

use super::Engine;
use crate::command::{Refusal, Reply};
use crate::message::{KeyId, MessageId, Payload, QueueId, Row, Seq};
use crate::moving::{Departure, Moves, Place, Placement};
use crate::slots::Slot;

/// Which messages have to be at home to be stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AtHome {
    /// Those without keys too, if the request that they are of is one that another shard remembers.
    All { request_leaves: bool },
    /// The others go with what is settled in the same step, which is bound to this shard.
    WithKeys,
    /// None: they were stored once.
    None,
}

impl Engine {
    pub(super) fn place(&mut self, place: Place) -> Result<Reply, Refusal> {
        let Place { queue, placement } = place;
        self.open_settings(queue)?;
        self.take_placement(queue, placement);
        Ok(Reply::Placed(self.placement(queue).generation))
    }

    /// What this shard was told last.
    pub fn placement(&self, queue: QueueId) -> Placement {
        self.moves(queue).map(|moves| moves.placement).unwrap_or_default()
    }

    pub(super) fn take_placement(&mut self, queue: QueueId, placement: Placement) {
        if placement.generation <= self.placement(queue).generation {
            return;
        }
        self.forget_origins(queue);
        // Nothing leaves where nothing moves, if all is at home by what this shard knew before.
        let is_settled = placement.from == placement.to && self.placement(queue).to == placement.from;
        let end = if is_settled { 0 } else { self.meta.next_seq };
        let since = self.meta.clock;
        let Some(moves) = self.moves_mut(queue) else { return };
        moves.placement = placement;
        // A source that had something left is done, or it was given up on, and nobody must wait for it any more.
        moves.arrivals.clear();
        let Departure { transfers, on_the_way, .. } = std::mem::take(&mut moves.departure);
        moves.departure = Departure { since, end, transfers, on_the_way, ..Departure::NONE };
        self.hold_slots(queue);
    }

    /// Has messages of the slots that leave, or come, handed out to nobody.
    pub(super) fn hold_slots(&mut self, queue: QueueId) {
        if let Some(held) = self.moves(queue).map(Moves::held) {
            self.messages.hold(queue, held);
        }
    }

    /// Origins of which nothing is left.
    fn forget_origins(&mut self, queue: QueueId) {
        let origins = self.moves(queue).map(|moves| moves.origins.clone()).unwrap_or_default();
        let is_used = |at: Seq, places: u64| {
            let first = self.messages.index(queue).and_then(|index| index.all.iter_from(at).next());
            first.is_some_and(|first| first.0 < at.0 + places)
        };
        let used = origins.into_iter().filter(|origin| is_used(origin.at, origin.places)).collect();
        if let Some(moves) = self.moves_mut(queue) {
            moves.origins = used;
        }
    }

    /// Whether the message may be stored here.
    pub(super) fn is_at_home(&self, queue: QueueId, payload: &Payload, wanted: AtHome) -> bool {
        let Some(moves) = self.moves(queue) else { return true };
        let key = [&payload.ordering_key, &payload.dedup_id].into_iter().find(|key| !key.is_empty());
        match (wanted, key) {
            (AtHome::None, _) | (AtHome::WithKeys, None) => true,
            (AtHome::All { request_leaves }, None) => !request_leaves && !moves.placement.drains(),
            (AtHome::All { .. } | AtHome::WithKeys, Some(key)) => moves.owns(Slot::of(key)),
        }
    }

    /// Whether the message goes to another shard.
    pub(super) fn is_leaving(&self, seq: Seq, row: &Row) -> bool {
        self.target(seq, row).is_some()
    }

    pub(super) fn target(&self, seq: Seq, row: &Row) -> Option<u32> {
        self.moves(row.queue)?.target(seq, row.ordering.map(KeyId::slot))
    }

    /// Whether the message waits for others, of its slot, that leave or come.
    pub(super) fn is_held_back(&self, seq: Seq, row: &Row) -> bool {
        let held = row.ordering.zip(self.messages.index(row.queue));
        self.is_leaving(seq, row) || held.is_some_and(|(key, index)| index.held.contains(key.slot()))
    }

    pub(super) fn id(&self, seq: Seq, row: &Row) -> MessageId {
        Moves::id(self.moves(row.queue), self.meta.salt, seq, row.stored_at)
    }

    /// Where the message is, if it is there.
    pub(super) fn find(&self, queue: QueueId, id: MessageId) -> Option<Seq> {
        let is_there = |seq: &Seq| {
            let row = self.messages.get(*seq);
            row.is_some_and(|row| row.queue == queue && self.id(*seq, row) == id)
        };
        self.places(queue, id).find(is_there)
    }

    /// Where a message with this id would be: stored here, or elsewhere first.
    pub(super) fn places(&self, queue: QueueId, id: MessageId) -> impl Iterator<Item = Seq> {
        let origins = self.moves(queue).map_or(&[][..], |moves| &moves.origins);
        [id.seq()].into_iter().chain(origins.iter().filter_map(move |origin| origin.here(id)))
    }

    pub(super) fn moves(&self, queue: QueueId) -> Option<&Moves> {
        self.queues.get(&queue).map(|queue| &*queue.record.moves)
    }

    pub(super) fn moves_mut(&mut self, queue: QueueId) -> Option<&mut Moves> {
        self.queues.get_mut(&queue).map(|queue| &mut *queue.record.moves)
    }
}
