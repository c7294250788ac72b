//! The target's side of a move: messages of another shard take the places that were kept for them.

use std::vec::IntoIter;

use super::Engine;
use crate::command::{Refusal, Reply};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{Location, QueueId, Row, Seq};
use crate::moving::{Arrival, Arrive, Arrived, Import, MAX_PLACES, RememberedId, Source, Traveller};
use crate::slots::SlotSet;

impl Engine {
    pub(super) fn arrive(&mut self, arrive: Arrive) -> Result<Reply, Refusal> {
        let Arrive { queue, placement, source } = arrive;
        self.open_settings(queue)?;
        self.take_placement(queue, placement);
        let own = self.placement(queue);
        if own != placement
            || own.ordinal == source.ordinal
            || self.meta.next_seq + source.places() > MAX_PLACES
        {
            return Err(Refusal::Moved);
        }
        if self.arrival(queue, placement.generation, source.ordinal).is_none() {
            self.begin_arrival(queue, &source);
        }
        let transfers = self.moves(queue).map_or(0, |moves| moves.received(source.salt));
        let arrival = self.arrival(queue, placement.generation, source.ordinal);
        arrival
            .filter(|arrival| arrival.salt == source.salt)
            .map(|arrival| Reply::Arrived(Arrived { transfers, accepts: arrival.accepts }))
            .ok_or(Refusal::Moved)
    }

    /// Keeps the places, and holds back what is sent to the slots meanwhile.
    fn begin_arrival(&mut self, queue: QueueId, source: &Source) {
        let (at, places) = (Seq(self.meta.next_seq), source.places());
        let Some(moves) = self.queues.get_mut(&queue).map(|queue| &mut *queue.record.moves) else { return };
        self.meta.next_seq += places;
        let &Source { ordinal, salt, first, .. } = source;
        let held = moves.coming(ordinal);
        let generation = moves.placement.generation;
        let arrival = Arrival { generation, source: ordinal, salt, first, at, places, accepts: false, held };
        moves.arrivals.push(arrival);
        moves.origins.extend(source.origins_at(at));
        self.hold_slots(queue);
    }

    pub(super) fn import(
        &mut self,
        mut import: Import,
        locations: IntoIter<Location>,
    ) -> Result<Reply, Refusal> {
        let queue = import.queue;
        self.settings(queue)?;
        let arrival = self.arrival(queue, import.generation, import.source).cloned().ok_or(Refusal::Moved)?;
        std::mem::take(&mut import.dedup_ids).into_iter().for_each(|known| self.know(queue, known));
        let received = self.moves(queue).map_or(0, |moves| moves.received(arrival.salt));
        if import.transfer > received {
            for (traveller, location) in std::mem::take(&mut import.messages).into_iter().zip(locations) {
                let place = arrival.place(traveller.place);
                self.settle_in(queue, place, traveller, location);
            }
        }
        let received = received.max(import.transfer);
        self.note_import(&import, arrival.salt, received);
        Ok(Reply::Imported(received))
    }

    fn note_import(&mut self, import: &Import, salt: u32, received: u64) {
        let Some(moves) = self.moves_mut(import.queue) else { return };
        moves.received.insert(salt, received);
        let is_it = |arrival: &&mut Arrival| {
            (arrival.generation, arrival.source) == (import.generation, import.source)
        };
        if let Some(arrival) = moves.arrivals.iter_mut().find(is_it) {
            arrival.accepts |= import.accepts;
            // What waits never grows, so that an import that comes late does no harm.
            if let Some(waiting) = &import.waiting {
                let waiting: SlotSet = waiting.iter().copied().collect();
                arrival.held.retain(|slot| waiting.contains(*slot));
            }
        }
        self.hold_slots(import.queue);
    }

    /// Stores the messages of a page whose arrival is not known, under new ids.
    pub(super) fn store_astray(&mut self, import: Import, locations: IntoIter<Location>) {
        let Import { queue, messages, dedup_ids, .. } = import;
        dedup_ids.into_iter().for_each(|known| self.know(queue, known));
        for (traveller, location) in messages.into_iter().zip(locations) {
            self.settle_in(queue, None, traveller, location);
        }
    }

    /// A dedup id that both know is remembered as long as either would.
    fn know(&mut self, queue: QueueId, known: RememberedId) {
        let RememberedId { dedup_id, message, until } = known;
        if self.memory.stored(queue, &dedup_id, self.meta.clock).is_none() && until > self.meta.clock {
            let key = MemoryKey::Dedup(queue, dedup_id.into());
            self.memory.put(key, until, Remembered::Stored(message));
        }
    }

    /// Without a place of its own it gets the next one.
    fn settle_in(&mut self, queue: QueueId, place: Option<Seq>, traveller: Traveller, location: Location) {
        let seq = place.unwrap_or(Seq(self.meta.next_seq));
        self.meta.next_seq = self.meta.next_seq.max(seq.0 + 1);
        let row = self.row_of(queue, traveller, location);
        self.messages.put(seq, row);
        self.store.stored(seq, location);
    }

    fn row_of(&self, queue: QueueId, traveller: Traveller, location: Location) -> Row {
        let Traveller { place: _, stored_at, stage, attempts, deliveries, history, expires_at, message } =
            traveller;
        Row {
            queue,
            stored_at,
            stage,
            attempts,
            deliveries,
            history,
            expires_at,
            max_attempts: message.max_attempts,
            body_bytes: message.payload.body.len() as u64,
            priority: message.priority,
            ordering: self.sealer.ordering_key(&message.payload.ordering_key),
            fairness: self.sealer.fairness_key(&message.payload.fairness_key),
            location,
        }
    }

    fn arrival(&self, queue: QueueId, generation: u64, source: u32) -> Option<&Arrival> {
        let mut arrivals = self.moves(queue)?.arrivals.iter();
        arrivals.find(|arrival| arrival.generation == generation && arrival.source == source)
    }
}
