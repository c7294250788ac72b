//! Step 2: what the operator will do for a Queue, and what it cannot do yet. Pure.

use ackwell_api::{Queue, ValidatedQueue, parse_bytes};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::dereference::Observed;
use super::error::Error;

/// What will be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) queue: ValidatedQueue,
    /// Brokers that will run. Never fewer than run now: their volumes hold messages.
    pub(super) shards: u32,
    /// Wishes that this version cannot fulfil, each with what to do.
    pub(super) unsupported: Vec<String>,
}

/// Asserts every rule of `queue` and plans what can be done with what exists.
pub(super) fn validate(queue: &Queue, observed: &Observed) -> Result<Plan, Error> {
    let queue = ValidatedQueue::try_from(queue.clone())?;
    let wanted = queue.spec().shards;
    let shards = wanted.max(observed.live_shards().unwrap_or(0));
    let unsupported = [fewer_shards(wanted, shards), larger_volumes(&queue, observed)];
    Ok(Plan { queue, shards, unsupported: unsupported.into_iter().flatten().collect() })
}

fn fewer_shards(wanted: u32, shards: u32) -> Option<String> {
    (wanted < shards).then(|| {
        format!(
            "going from {shards} to {wanted} shards is not supported yet, since the messages of the last shards would \
             be left behind: all {shards} keep running; set spec.shards to {shards}"
        )
    })
}

fn larger_volumes(queue: &ValidatedQueue, observed: &Observed) -> Option<String> {
    let size = &queue.spec().storage.size;
    let wanted = parse_bytes(size).ok()?;
    let small =
        observed.claims.iter().find(|(_, claim)| requested(claim).is_some_and(|bytes| bytes < wanted))?;
    Some(format!(
        "growing volumes to {} is not supported yet: the volume of shard {} has {} and serves on; grow its volume claim \
         by hand, or make a new Queue with larger volumes and move to it",
        size.0,
        small.0,
        quantity(&small.1).unwrap_or("an unknown size"),
    ))
}

fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    parse_bytes(requests.get("storage")?).ok()
}

fn quantity(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(&requests.get("storage")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_controller::fixtures::{claim, queue, stateful_set};

    fn running(shards: u32, size: &str) -> Observed {
        Observed {
            stateful_set: Some(stateful_set(shards).into()),
            claims: (0..shards).map(|ordinal| (ordinal, claim(ordinal, "Bound", size).into())).collect(),
            ..Observed::default()
        }
    }

    /// Messages live on the volumes of all shards: none may disappear because of a smaller number.
    #[test]
    fn fewer_shards_than_run_changes_nothing_and_says_so() {
        let plan = validate(&queue(|spec| spec.shards = 1), &running(3, "1Gi")).unwrap();
        assert_eq!(plan.shards, 3);
        assert!(plan.unsupported[0].contains("from 3 to 1 shards"), "{:?}", plan.unsupported);
    }

    #[test]
    fn more_shards_than_run_is_done() {
        let plan = validate(&queue(|spec| spec.shards = 5), &running(3, "1Gi")).unwrap();
        assert_eq!((plan.shards, plan.unsupported.len()), (5, 0));
    }

    #[test]
    fn larger_volumes_than_exist_is_said() {
        let plan =
            validate(&queue(|spec| spec.storage.size.0 = "2Gi".to_owned()), &running(1, "1Gi")).unwrap();
        assert!(plan.unsupported[0].contains("growing volumes to 2Gi"), "{:?}", plan.unsupported);
    }

    /// A retained volume may be larger than a new Queue asks for.
    #[test]
    fn smaller_volumes_than_exist_is_fine() {
        let plan = validate(&queue(|_| {}), &running(1, "5Gi")).unwrap();
        assert_eq!(plan.unsupported, Vec::<String>::new());
    }

    #[test]
    fn broken_rule_is_an_error_of_the_user() {
        let error =
            validate(&queue(|spec| spec.delivery.max_attempts = 0), &Observed::default()).unwrap_err();
        assert_eq!(error.class(), crate::queue_controller::error::Class::User);
        assert!(error.to_string().contains("spec.delivery.maxAttempts: must be at least 1"), "{error}");
    }
}
