//! Messages that move between the shards of a queue: what is asked of both sides, and answered.
//!
//! `docs/adr/0008-shards-move.md` has the protocol. A **source** is a shard with messages whose home is another one; it hands
//! them to that **target** page by page, each with a number that grows.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::NewMessage;
use crate::message::{Attempt, MessageId, QueueId, Seq, Stage};
use crate::slots::{Slot, SlotSet, jump};
use crate::store::codec::{decode_travellers, encode_travellers};
use crate::time::Timestamp;

/// Places beyond which a message id would not hold its place: a million messages a second reach it in 17 years, and no move does.
pub const MAX_PLACES: u64 = 1 << 49;
/// Places that a target keeps for what is sent at the source while it drains: with Commits only, which are bounded by what
/// is in flight there.
const SPARE_PLACES: u64 = 1 << 27;
/// Neighbours without an ordering key that stay together.
const NEIGHBOURS: u64 = 512;

/// How ids begin that a sidecar makes for its own retries, which know their shard.
pub const UNBOUND_REQUEST: &str = "a:";

/// How many shards a queue has, and which of them this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// An older one changes nothing.
    pub generation: u64,
    /// This shard.
    pub ordinal: u32,
    /// How many there were; the same as `to`: nothing moves.
    pub from: u32,
    /// How many there will be. 0: nobody said, and this shard takes everything.
    pub to: u32,
}

impl Placement {
    /// This shard will be gone.
    pub fn drains(self) -> bool {
        self.to > 0 && self.ordinal >= self.to
    }

    /// Whether the slot goes from the one shard to the other.
    fn goes(self, slot: Slot, source: u32, target: u32) -> bool {
        slot.shard(self.from) == source && slot.shard(self.to) == target
    }

    /// Shards that get something of this one.
    pub fn targets(self) -> Vec<u32> {
        if self.from == self.to || self.ordinal >= self.from {
            return Vec::new();
        }
        let gets = |target: &u32| Slot::all().any(|slot| self.goes(slot, self.ordinal, *target));
        (0..self.to).filter(|target| *target != self.ordinal && (self.drains() || gets(target))).collect()
    }
}

/// Tells a shard its placement.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Whose.
    pub queue: QueueId,
    /// What.
    pub placement: Placement,
}

/// Tells a target that a source will hand messages to it.
#[derive(Clone, Debug)]
pub struct Arrive {
    /// Whose.
    pub queue: QueueId,
    /// As the target is to have it.
    pub placement: Placement,
    /// The source.
    pub source: Source,
}

/// A source, as its targets know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which shard.
    pub ordinal: u32,
    /// Of its store, as message ids have it.
    pub salt: u32,
    /// The first place that a message of it can have.
    pub first: Seq,
    /// The first that none will have.
    pub end: Seq,
    /// What of these places came from other shards before.
    pub origins: Vec<Origin>,
}

/// A stretch of places whose messages were stored elsewhere: their ids are made of where that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The first place here.
    pub at: Seq,
    /// How many.
    pub places: u64,
    /// Of the store that made the ids.
    pub salt: u32,
    /// The first place there.
    pub first: Seq,
}

impl Origin {
    /// Where the message was stored that has this place here.
    pub(crate) fn there(&self, seq: Seq) -> Option<Seq> {
        translate(seq, self.at, self.places, self.first)
    }

    /// The place here of the message with this id.
    pub(crate) fn here(&self, id: MessageId) -> Option<Seq> {
        (id.salt() == self.salt & 0x00ff_ffff)
            .then(|| translate(id.seq(), self.first, self.places, self.at))
            .flatten()
    }
}

fn translate(seq: Seq, from: Seq, places: u64, to: Seq) -> Option<Seq> {
    let offset = seq.0.checked_sub(from.0).filter(|offset| *offset < places)?;
    Some(Seq(to.0 + offset))
}

/// What a target has of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The number of the last page.
    pub transfers: u64,
    /// It stores what is sent to the slots that come.
    pub accepts: bool,
}

/// Hands over to a target.
#[derive(Clone, Debug)]
pub struct Import {
    /// Whose.
    pub queue: QueueId,
    /// Of the placement.
    pub generation: u64,
    /// The ordinal of the source.
    pub source: u32,
    /// The number of the page: one that is not higher than the last changes nothing. 0: there is none.
    pub transfer: u64,
    /// The page.
    pub messages: Vec<Traveller>,
    /// Dedup ids.
    pub dedup_ids: Vec<RememberedId>,
    /// Slots of which the source still has messages; `None`: it does not say.
    pub waiting: Option<Vec<Slot>>,
    /// All dedup ids are there.
    pub accepts: bool,
}

/// A dedup id, the message that was stored under it, and until when it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedId {
    /// As the sender said.
    pub dedup_id: String,
    /// What was stored.
    pub message: MessageId,
    /// When it is forgotten.
    pub until: Timestamp,
}

/// A message on its way to another shard, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traveller {
    /// Its place at the source.
    pub(crate) place: Seq,
    pub(crate) stored_at: Timestamp,
    /// Never in flight.
    pub(crate) stage: Stage,
    pub(crate) attempts: u32,
    pub(crate) deliveries: u32,
    pub(crate) history: Vec<Attempt>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) message: NewMessage,
}

impl Traveller {
    /// Length of its body.
    pub fn body_bytes(&self) -> usize {
        self.message.payload.body.len()
    }

    /// What the sender gave, for who counts bytes.
    pub fn message(&self) -> &NewMessage {
        &self.message
    }

    /// As bytes between processes, with a checksum and the format of the store.
    pub fn encode(travellers: &[Self]) -> Vec<u8> {
        encode_travellers(travellers)
    }

    /// What [`Traveller::encode`] made, by a program with the same format; `None` otherwise.
    pub fn decode(bytes: &[u8]) -> Option<Vec<Self>> {
        decode_travellers(bytes)
    }
}

/// Chooses the next page to go. While one is on its way it is that one.
#[derive(Clone, Copy, Debug)]
pub struct Depart {
    /// Whose.
    pub queue: QueueId,
    /// At most so many.
    pub max_messages: usize,
    /// At most so many bytes of bodies, unless it is a single message.
    pub max_bytes: u64,
}

/// A page on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departing {
    /// The ordinal of the shard that gets it.
    pub target: u32,
    /// Its number.
    pub transfer: u64,
    /// How many.
    pub messages: usize,
}

/// The page is durable at its target.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Whose.
    pub queue: QueueId,
    /// The ordinal of the shard that has it.
    pub target: u32,
    /// Its number.
    pub transfer: u64,
}

/// What a source has to do yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Why.
    pub placement: Placement,
    /// As its targets must know it.
    pub source: Source,
    /// Shards that get something.
    pub targets: Vec<u32>,
    /// A page can go.
    pub can_depart: bool,
    /// Messages that are known to leave; while it drains, all of them.
    pub messages: u64,
    /// Every message that leaves has left.
    pub is_left: bool,
    /// Until then a repeated call may be one that was answered here.
    pub remembers_until: Timestamp,
}

/// What a queue's shard knows of moving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    pub(crate) placement: Placement,
    pub(crate) arrivals: Vec<Arrival>,
    /// The number of the last page of each store that handed over, by its salt: across placements, so that no page counts
    /// twice.
    pub(crate) received: BTreeMap<u32, u64>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) departure: Departure,
}

/// A source, at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) generation: u64,
    pub(crate) source: u32,
    pub(crate) salt: u32,
    /// The stretch of its places, and of ours.
    pub(crate) first: Seq,
    pub(crate) at: Seq,
    pub(crate) places: u64,
    pub(crate) accepts: bool,
    /// Slots of which the source still has messages.
    pub(crate) held: Vec<Slot>,
}

impl Arrival {
    pub(crate) fn place(&self, there: Seq) -> Option<Seq> {
        translate(there, self.first, self.places, self.at)
    }

    /// Whether it has just the places of the source.
    pub(crate) fn is_of(&self, source: &Source) -> bool {
        (self.salt, self.first, self.places) == (source.salt, source.first, source.places())
    }
}

/// What goes, at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// When this shard was told.
    pub(crate) since: Timestamp,
    /// Where the search for messages that leave has got to.
    pub(crate) scanned: u64,
    /// Where it ends: behind it everything is at home, unless the shard drains.
    pub(crate) end: u64,
    /// Found and not gone: in flight then, or for another target than the page that was being made.
    pub(crate) behind: BTreeSet<Seq>,
    /// Pages that each target has confirmed.
    pub(crate) transfers: BTreeMap<u32, u64>,
    pub(crate) on_the_way: Option<OnTheWay>,
}

impl Departure {
    /// Of nothing.
    pub(crate) const NONE: Self = Self {
        since: Timestamp(0),
        scanned: 0,
        end: 0,
        behind: BTreeSet::new(),
        transfers: BTreeMap::new(),
        on_the_way: None,
    };
}

impl Default for Departure {
    fn default() -> Self {
        Self::NONE
    }
}

/// A page that may or may not have reached its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnTheWay {
    pub(crate) target: u32,
    pub(crate) transfer: u64,
    pub(crate) seqs: Vec<Seq>,
}

impl OnTheWay {
    pub(crate) fn departing(&self) -> Departing {
        Departing { target: self.target, transfer: self.transfer, messages: self.seqs.len() }
    }
}

impl Moves {
    /// Of the message at this place of a store with that salt, made of where it was stored first.
    pub(crate) fn id(moves: Option<&Self>, salt: u32, seq: Seq, stored_at: Timestamp) -> MessageId {
        let origins = moves.map_or(&[][..], |moves| &moves.origins);
        let origin = origins.iter().find_map(|origin| Some((origin.salt, origin.there(seq)?)));
        let (salt, place) = origin.unwrap_or((salt, seq));
        MessageId::new(stored_at, salt, place)
    }

    /// The number of the last page of the source.
    pub(crate) fn received(&self, salt: u32) -> u64 {
        self.received.get(&salt).copied().unwrap_or(0)
    }

    /// Whether messages of the slot are stored here.
    pub(crate) fn owns(&self, slot: Slot) -> bool {
        let Placement { generation, ordinal, from, to } = self.placement;
        if to == 0 || from == to {
            return to == 0 || slot.shard(to) == ordinal;
        }
        let before = slot.shard(from);
        let has_come = || {
            let mut arrivals = self.arrivals.iter();
            arrivals.any(|one| one.generation == generation && one.source == before && one.accepts)
        };
        slot.shard(to) == ordinal && (before == ordinal || has_come())
    }

    /// Whether a call with this id, whose messages have no keys, is one that another shard remembers from now on. Ids that
    /// sidecars make for their own retries are bound to no shard.
    pub(crate) fn request_leaves(&self, request_id: &str) -> bool {
        let Placement { ordinal, from, to, .. } = self.placement;
        let slot = Slot::of(request_id);
        let is_bound = !request_id.is_empty() && !request_id.starts_with(UNBOUND_REQUEST);
        to > 0 && is_bound && slot.shard(from) == ordinal && slot.shard(to) != ordinal
    }

    /// The shard that the message goes to; `None`: it stays.
    pub(crate) fn target(&self, seq: Seq, slot: Option<Slot>) -> Option<u32> {
        let Placement { ordinal, to, .. } = self.placement;
        if to == 0 {
            return None;
        }
        match slot {
            Some(slot) => Some(slot.shard(to)).filter(|home| *home != ordinal),
            None => self.placement.drains().then(|| jump(seq.0 / NEIGHBOURS, to)),
        }
    }

    /// Slots whose messages are not handed out here: they leave, or wait for those that come.
    pub(crate) fn held(&self) -> SlotSet {
        let Placement { ordinal, to, .. } = self.placement;
        let mut held: SlotSet =
            self.arrivals.iter().flat_map(|arrival| arrival.held.iter().copied()).collect();
        if to > 0 {
            Slot::all().filter(|slot| slot.shard(to) != ordinal).for_each(|slot| held.insert(slot));
        }
        held
    }

    /// Slots that come from a source.
    pub(crate) fn coming(&self, source: u32) -> Vec<Slot> {
        let placement = self.placement;
        Slot::all().filter(|slot| placement.goes(*slot, source, placement.ordinal)).collect()
    }
}

impl Source {
    pub(crate) fn new(moves: &Moves, salt: u32, first: Seq, next: u64) -> Self {
        let end = Seq(next + SPARE_PLACES);
        Self { ordinal: moves.placement.ordinal, salt, first, end, origins: moves.origins.clone() }
    }

    pub(crate) fn places(&self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    /// Its places, as origins of the stretch that begins `at`.
    pub(crate) fn origins_at(&self, at: Seq) -> Vec<Origin> {
        let inner = self.origins.iter().filter_map(|origin| self.origin_at(at, origin));
        inner.chain([Origin { at, places: self.places(), salt: self.salt, first: self.first }]).collect()
    }

    /// The part of an older origin that lies in the stretch.
    fn origin_at(&self, at: Seq, origin: &Origin) -> Option<Origin> {
        let start = origin.at.max(self.first);
        let end = (origin.at.0 + origin.places).min(self.end.0);
        let places = end.checked_sub(start.0).filter(|places| *places > 0)?;
        let first = origin.there(start)?;
        Some(Origin { at: Seq(at.0 + (start.0 - self.first.0)), places, salt: origin.salt, first })
    }
}
