//! The volumes: what each has, what it shall have, and the next step from one to the other. Pure.
//!
//! Claims grow first, each by itself; the StatefulSet's template follows when all volumes have their size. So nothing
//! about a StatefulSet stands in the way of a volume that is full, and a growth that fails leaves no trace in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ackwell_api::conditions::reasons;
use ackwell_api::{
    StorageStatus, ValidatedQueue, VolumeState, VolumeStatus, format_bytes, names, parse_bytes,
};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::dereference::Observed;
use super::validate::Obstacle;

/// States in which a resizer has given up on a claim, unless it asks for less.
const INFEASIBLE: [&str; 2] = ["ControllerResizeInfeasible", "NodeResizeInfeasible"];
/// Conditions by which a resizer says why.
const RESIZE_ERRORS: [&str; 2] = ["ControllerResizeError", "NodeResizeError"];
/// Name of the resource in a claim's requests and capacities.
const STORAGE: &str = "storage";

/// The volumes of the shards.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    /// Size that each volume shall have.
    pub(super) wanted: Quantity,
    wanted_bytes: u64,
    /// By ordinal.
    pub(super) volumes: Vec<Volume>,
    /// Size in the StatefulSet's template, if there is a StatefulSet.
    template_bytes: Option<u64>,
}

/// The volume of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(super) ordinal: u32,
    pub(super) claim: Arc<PersistentVolumeClaim>,
    pub(super) next: Next,
}

/// What happens next to a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It has what it shall have, or more.
    Nothing,
    /// Kubernetes binds it.
    Bind,
    /// Its claim is changed to the wanted size.
    Ask,
    /// The storage makes it larger.
    Grow,
    /// Its StorageClass has no growth.
    Unsupported,
    /// The storage has given up; its words.
    Infeasible(String),
    /// It has what it shall have, but its claim asks for more, and Kubernetes does not let it ask for so little again.
    Abandoned,
}

/// Judges the volumes of the first `shards` shards.
pub(super) fn assess(queue: &ValidatedQueue, shards: u32, observed: &Observed) -> Storage {
    let wanted = &queue.spec().storage.size;
    let wanted_bytes = parse_bytes(wanted).unwrap_or_default();
    let volume = |(ordinal, claim): &(u32, Arc<PersistentVolumeClaim>)| Volume {
        ordinal: *ordinal,
        claim: Arc::clone(claim),
        next: next(claim, wanted_bytes, &observed.classes),
    };
    Storage {
        wanted: wanted.clone(),
        wanted_bytes,
        volumes: observed.claims.iter().filter(|(ordinal, _)| *ordinal < shards).map(volume).collect(),
        template_bytes: observed.stateful_set.as_deref().and_then(template_bytes),
    }
}

fn next(claim: &PersistentVolumeClaim, wanted: u64, classes: &BTreeMap<String, bool>) -> Next {
    let Some(requested) = requested(claim).filter(|_| phase(claim) == "Bound") else { return Next::Bind };
    let has = capacity(claim).unwrap_or(0);
    if requested < wanted {
        return if is_growable(claim, classes) { Next::Ask } else { Next::Unsupported };
    }
    if requested > wanted && has < requested {
        return if has < wanted { Next::Ask } else { Next::Abandoned };
    }
    if has >= wanted {
        return Next::Nothing;
    }
    infeasible(claim).map_or(Next::Grow, Next::Infeasible)
}

fn is_growable(claim: &PersistentVolumeClaim, classes: &BTreeMap<String, bool>) -> bool {
    class(claim).and_then(|class| classes.get(class)).copied().unwrap_or(false)
}

fn infeasible(claim: &PersistentVolumeClaim) -> Option<String> {
    let status = claim.status.as_ref()?;
    let state = status.allocated_resource_statuses.as_ref()?.get(STORAGE)?;
    INFEASIBLE.contains(&state.as_str()).then(|| {
        let mut conditions = status.conditions.as_deref().unwrap_or_default().iter();
        let error = conditions.find(|one| RESIZE_ERRORS.contains(&one.type_.as_str()));
        error.and_then(|one| one.message.clone()).unwrap_or_else(|| state.clone())
    })
}

impl Storage {
    /// Whether the StatefulSet must be made anew, since its template has another size and cannot be changed. Not before
    /// all volumes have theirs: a growth that fails would otherwise be asked for by every new shard as well.
    pub(super) fn outdates_template(&self) -> bool {
        let settled = |volume: &Volume| matches!(volume.next, Next::Nothing | Next::Abandoned);
        self.template_bytes.is_some_and(|bytes| bytes != self.wanted_bytes)
            && self.volumes.iter().all(settled)
    }

    /// How far a growth is, while there is one.
    pub(super) fn growing(&self) -> Option<String> {
        let grows = |volume: &&Volume| matches!(volume.next, Next::Ask | Next::Grow);
        let missing = self.volumes.iter().filter(grows).count();
        if missing == 0 && !self.outdates_template() {
            return None;
        }
        let (has, all) = (self.volumes.len() - missing, self.volumes.len());
        Some(format!("{has} of {all} volumes have the size {}", self.wanted.0))
    }

    /// What keeps volumes from growing until a person does something.
    pub(super) fn obstacles(&self) -> Vec<Obstacle> {
        let unsupported = self.volumes.iter().find(|volume| volume.next == Next::Unsupported);
        let infeasible = self.volumes.iter().find_map(|volume| match &volume.next {
            Next::Infeasible(why) => Some((volume, why)),
            _ => None,
        });
        let obstacles = [
            unsupported.map(|volume| self.unsupported(volume)),
            infeasible.map(|(volume, why)| self.infeasible(volume, why)),
        ];
        obstacles.into_iter().flatten().collect()
    }

    fn unsupported(&self, volume: &Volume) -> Obstacle {
        let class = class(&volume.claim).map_or("without a StorageClass".to_owned(), |class| {
            format!("of StorageClass {class}, which has no allowVolumeExpansion,")
        });
        Obstacle::new(
            reasons::EXPANSION_UNSUPPORTED,
            format!(
                "the volume of shard {} {class} cannot grow to {}: it serves on as it is; allow expansion in the class, \
                 or set spec.storage.size back to {}",
                volume.ordinal,
                self.wanted.0,
                shown(requested(&volume.claim)),
            ),
        )
    }

    fn infeasible(&self, volume: &Volume, why: &str) -> Obstacle {
        Obstacle::new(
            reasons::EXPANSION_INFEASIBLE,
            format!(
                "the storage cannot make the volume of shard {} as large as {}; it serves on with {}: set \
                 spec.storage.size to what is possible, at the least status.storage.floor; the storage says: {why}",
                volume.ordinal,
                self.wanted.0,
                shown(capacity(&volume.claim)),
            ),
        )
    }

    /// A claim that asks for more than it shall have, and what to do about it.
    pub(super) fn abandoned(&self) -> Option<String> {
        let volume = self.volumes.iter().find(|volume| volume.next == Next::Abandoned)?;
        Some(format!(
            "the claim of shard {} still asks for {}, and Kubernetes lets it ask for less only if that is more than the {} \
             it has: to end the attempts to grow it, set spec.storage.size a little above",
            volume.ordinal,
            shown(requested(&volume.claim)),
            shown(capacity(&volume.claim)),
        ))
    }

    /// What the status says, after it said `before`.
    pub(super) fn status(&self, shards: u32, before: Option<&StorageStatus>) -> StorageStatus {
        StorageStatus {
            requested: self.wanted.clone(),
            floor: self.floor(shards, before),
            volumes: self.volumes.iter().map(Volume::status).collect(),
        }
    }

    fn floor(&self, shards: u32, before: Option<&StorageStatus>) -> Option<Quantity> {
        let known = before.and_then(|before| before.floor.clone());
        let sizes: Option<Vec<u64>> = self.volumes.iter().map(|volume| capacity(&volume.claim)).collect();
        let complete = u32::try_from(self.volumes.len()).is_ok_and(|count| count >= shards);
        match sizes.filter(|_| complete).and_then(|sizes| sizes.into_iter().min()) {
            Some(least) if least >= self.wanted_bytes => Some(self.wanted.clone()),
            Some(least) => known.or_else(|| Some(format_bytes(least))),
            None => known,
        }
    }
}

impl Volume {
    fn status(&self) -> VolumeStatus {
        VolumeStatus {
            ordinal: i32::try_from(self.ordinal).unwrap_or(i32::MAX),
            requested: requested(&self.claim).map(format_bytes),
            capacity: capacity(&self.claim).map(format_bytes),
            state: match self.next {
                Next::Nothing | Next::Abandoned => VolumeState::Bound,
                Next::Bind => VolumeState::Pending,
                Next::Ask | Next::Grow => VolumeState::Growing,
                Next::Unsupported | Next::Infeasible(_) => VolumeState::Stuck,
            },
        }
    }
}

/// `Pending`, `Bound` or `Lost`.
pub(super) fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// The name of its StorageClass.
pub(super) fn class(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.storage_class_name.as_deref().filter(|name| !name.is_empty())
}

fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    parse_bytes(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get(STORAGE)?).ok()
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    parse_bytes(claim.status.as_ref()?.capacity.as_ref()?.get(STORAGE)?).ok()
}

/// Size of the volumes that `set` makes.
pub(super) fn template_bytes(set: &StatefulSet) -> Option<u64> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_deref()?;
    let data = templates.iter().find(|one| one.metadata.name.as_deref() == Some(names::DATA_VOLUME))?;
    requested(data)
}

fn shown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "an unknown size".to_owned(), |bytes| format_bytes(bytes).0)
}

#[cfg(test)]
mod tests;
