//! How many shards a Queue has on its way to how many it shall have. Pure.
//!
//! One placement follows the other, with a growing generation; `docs/adr/0008-shards-move.md` says what brokers do with it.
//! The newest is noted at the StatefulSet. Where that is gone, to be made anew or with an earlier Queue of which there are volumes,
//! the brokers know what it was.

use std::collections::BTreeSet;

use ackwell_proto::v1::{Moving, Placement};

use super::shards::ShardView;

#[cfg(test)]
mod tests;

/// What is known when the next step is decided.
pub(super) struct Scene<'a> {
    /// `spec.shards`.
    pub(super) wanted: u32,
    /// As noted at the StatefulSet.
    pub(super) noted: Option<Placement>,
    /// Shards there are; 0: none ever was.
    pub(super) live: u32,
    /// They are those of an earlier Queue of this name.
    pub(super) are_found: bool,
    /// The generation of the Queue, which begins above that of an earlier one on the same volumes.
    pub(super) first_generation: u64,
    pub(super) shards: &'a [ShardView],
    /// The draining shard of which somebody gave up what it still has.
    pub(super) forced: Option<u32>,
    /// Shards that had proved to be empty.
    pub(super) emptied: BTreeSet<u32>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// `None`: it is not known yet what brokers have.
    pub(super) placement: Option<Placement>,
    /// Shards there will be.
    pub(super) shards: u32,
    pub(super) drain: Option<Drain>,
    /// Shards that have proved to be empty, and do not serve again: nothing is lost with their volumes.
    pub(super) emptied: BTreeSet<u32>,
}

/// The last shard hands over what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    pub(super) ordinal: u32,
    /// Not known while it does not answer.
    pub(super) messages: Option<u64>,
    /// Why nothing moves.
    pub(super) blocked: Option<String>,
}

/// As it is noted.
pub(super) fn note(Placement { generation, from, to }: &Placement) -> String {
    format!("{generation}/{from}/{to}")
}

/// What [`note`] wrote.
pub(super) fn parse(text: &str) -> Option<Placement> {
    let mut parts = text.split('/');
    let generation = parts.next()?.parse().ok()?;
    let placement =
        Placement { generation, from: parts.next()?.parse().ok()?, to: parts.next()?.parse().ok()? };
    let is_whole = parts.next().is_none() && placement.from > 0 && placement.to > 0;
    is_whole.then_some(placement)
}

/// The next placement, once everybody is done with the last one.
pub(super) fn next(scene: &Scene<'_>) -> Step {
    let Some(before) = scene.noted.or_else(|| found(scene)) else {
        // Those that are found come first, whatever there shall be: they say how their messages lie. Otherwise it is only that the
        // StatefulSet is not seen.
        let shards = if scene.are_found { scene.live } else { scene.live.max(scene.wanted) };
        return Step { shards, emptied: scene.emptied.clone(), ..Step::default() };
    };
    // A note that was taken back, with the whole of the cluster's state, is older than what brokers know.
    let newer =
        scene.shards.iter().filter_map(|shard| shard.moving.as_ref()).max_by_key(|moving| moving.generation);
    let before = newer.filter(|moving| moving.generation > before.generation).map_or(before, has);
    let is_done = is_done(scene, &before);
    let placement = if is_done { after(scene.wanted, &before) } else { before };
    let emptied = emptied(scene, &before, &placement);
    // The last shard stays until all others know that it is gone.
    let named = [before.from, before.to, placement.to].into_iter().max().unwrap_or(0);
    let shards = if is_done { named } else { named.max(scene.live) };
    Step { placement: Some(placement), shards, drain: drain(scene, &placement), emptied }
}

/// What there was before, where no note says it: in a new Queue nothing, otherwise the newest that any shard was told.
fn found(scene: &Scene<'_>) -> Option<Placement> {
    let settled = |count| Placement { generation: scene.first_generation, from: count, to: count };
    if scene.live == 0 {
        return Some(settled(scene.wanted));
    }
    let view = |ordinal| scene.shards.iter().find(|shard| shard.ordinal == ordinal);
    let all: Option<Vec<&Moving>> = (0..scene.live).map(|ordinal| view(ordinal)?.moving.as_ref()).collect();
    let newest = all?.into_iter().max_by_key(|moving| moving.generation)?;
    Some(if newest.to == 0 { settled(scene.live) } else { has(newest) })
}

fn has(&Moving { generation, from, to, .. }: &Moving) -> Placement {
    Placement { generation, from, to }
}

/// A shard that was given up on may have messages.
fn emptied(scene: &Scene<'_>, before: &Placement, after: &Placement) -> BTreeSet<u32> {
    let is_proved = before.from > before.to && before != after && scene.forced != Some(before.to);
    let known = scene.emptied.iter().copied();
    known.chain(is_proved.then_some(before.to)).filter(|ordinal| *ordinal >= after.to).collect()
}

/// Down one by one, so that each shard is proved empty; up at once.
fn after(wanted: u32, &Placement { generation, from, to }: &Placement) -> Placement {
    let next = |from: u32, to: u32| Placement { generation: generation + 1, from, to };
    match () {
        () if from != to => next(to, to),
        () if wanted < to => next(to, to - 1),
        () if wanted > to => next(to, wanted),
        () => Placement { generation, from, to },
    }
}

/// Whether every shard that the placement names has said that nothing is left to do for it.
fn is_done(scene: &Scene<'_>, placement: &Placement) -> bool {
    (0..placement.from.max(placement.to)).all(|ordinal| {
        let is_given_up = ordinal >= placement.to && scene.forced == Some(ordinal);
        is_given_up || moving(scene, placement, ordinal).is_some_and(|moving| moving.done)
    })
}

/// What the shard says about this placement.
fn moving<'a>(scene: &Scene<'a>, placement: &Placement, ordinal: u32) -> Option<&'a Moving> {
    let view = scene.shards.iter().find(|shard| shard.ordinal == ordinal)?;
    view.moving.as_ref().filter(|moving| moving.generation == placement.generation)
}

fn drain(scene: &Scene<'_>, placement: &Placement) -> Option<Drain> {
    if placement.from <= placement.to {
        return None;
    }
    let ordinal = placement.to;
    let draining = moving(scene, placement, ordinal);
    // Whoever cannot hand over, or cannot take, says so.
    let said = (0..placement.from).filter_map(|ordinal| Some((ordinal, moving(scene, placement, ordinal)?)));
    let blocked = said
        .filter(|(_, moving)| !moving.blocked.is_empty())
        .map(|(ordinal, moving)| format!("shard {ordinal} cannot hand over: {}", moving.blocked));
    Some(Drain {
        ordinal,
        messages: draining.map(|moving| moving.messages),
        blocked: blocked.into_iter().next(),
    })
}
