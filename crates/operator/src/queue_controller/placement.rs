//! How many shards a Queue has on its way to how many it shall have. Pure.
//!
//! One placement follows the other, with a growing generation; `docs/adr/0008-shards-move.md` says what brokers do with it.
//! The newest is noted at the StatefulSet, which is all that a later visit needs.

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
    /// Shards there are.
    pub(super) live: Option<u32>,
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
    pub(super) placement: Placement,
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
    parts.next().is_none().then_some(placement)
}

/// The next placement, once everybody is done with the last one.
pub(super) fn next(scene: &Scene<'_>) -> Step {
    let before = scene.noted.unwrap_or_else(|| first(scene));
    let newest =
        scene.shards.iter().filter_map(|shard| shard.moving.as_ref()).map(|moving| moving.generation);
    // Brokers know more when the note was lost.
    let generation =
        before.generation.max(newest.max().unwrap_or(0).saturating_add(u64::from(is_lost(scene))));
    let before = Placement { generation, ..before };
    let placement = if is_done(scene, &before) { after(scene.wanted, &before) } else { before };
    let emptied = emptied(scene, &before, &placement);
    Step { placement, shards: shards(scene, &placement), drain: drain(scene, &placement), emptied }
}

/// A shard that was given up on may have messages.
fn emptied(scene: &Scene<'_>, before: &Placement, after: &Placement) -> BTreeSet<u32> {
    let is_proved = before.from > before.to && before != after && scene.forced != Some(before.to);
    let known = scene.emptied.iter().copied();
    known.chain(is_proved.then_some(before.to)).filter(|ordinal| *ordinal >= after.to).collect()
}

fn first(scene: &Scene<'_>) -> Placement {
    let count = scene.live.unwrap_or(scene.wanted);
    Placement { generation: scene.first_generation, from: count, to: count }
}

fn is_lost(scene: &Scene<'_>) -> bool {
    let newest =
        scene.shards.iter().filter_map(|shard| shard.moving.as_ref()).map(|moving| moving.generation).max();
    scene.noted.is_none() && newest.is_some_and(|newest| newest >= scene.first_generation)
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

/// The last shard stays until all others know that it is gone.
fn shards(scene: &Scene<'_>, placement: &Placement) -> u32 {
    let named = placement.from.max(placement.to);
    if is_done(scene, placement) { named } else { named.max(scene.live.unwrap_or(0)) }
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
