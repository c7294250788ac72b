use ackwell_api::names::labels;
use k8s_openapi::api::core::v1::PersistentVolumeClaimCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::queue_controller::fixtures::{claim, queue, stateful_set};
use crate::queue_controller::validate::{Plan, validate};

fn observed(claims: impl IntoIterator<Item = PersistentVolumeClaim>) -> Observed {
    let classes = [("standard".to_owned(), true), ("fixed".to_owned(), false)];
    Observed {
        claims: (0..).zip(claims.into_iter().map(Arc::new)).collect(),
        classes: classes.into(),
        ..Observed::default()
    }
}

fn plan(size: &str, observed: &Observed) -> Plan {
    validate(&queue(|spec| spec.storage.size.0 = size.to_owned()), observed).unwrap()
}

fn next_of(size: &str, claim: PersistentVolumeClaim) -> Next {
    plan(size, &observed([claim])).storage.volumes.remove(0).next
}

/// A bound claim that asks for `requested` and has `capacity`.
fn bound(requested: &str, capacity: &str) -> PersistentVolumeClaim {
    let mut claim = claim(0, "Bound", capacity);
    let resources = claim.spec.as_mut().unwrap().resources.as_mut().unwrap();
    resources.requests = Some(BTreeMap::from([(STORAGE.to_owned(), Quantity(requested.to_owned()))]));
    claim
}

fn given_up(mut claim: PersistentVolumeClaim, why: &str) -> PersistentVolumeClaim {
    let status = claim.status.as_mut().unwrap();
    let given_up = BTreeMap::from([(STORAGE.to_owned(), INFEASIBLE[0].to_owned())]);
    status.allocated_resource_statuses = Some(given_up);
    status.conditions = Some(vec![PersistentVolumeClaimCondition {
        type_: RESIZE_ERRORS[0].to_owned(),
        message: Some(why.to_owned()),
        ..PersistentVolumeClaimCondition::default()
    }]);
    claim
}

fn of_class(mut claim: PersistentVolumeClaim, class: Option<&str>) -> PersistentVolumeClaim {
    claim.spec.as_mut().unwrap().storage_class_name = class.map(str::to_owned);
    claim
}

/// Every row of the table of a growth.
#[test]
fn each_state_of_a_volume_has_its_next_step() {
    assert_eq!(next_of("1Gi", bound("1Gi", "1Gi")), Next::Nothing, "all well");
    assert_eq!(next_of("1Gi", bound("1Gi", "4Gi")), Next::Nothing, "storage rounds up");
    assert_eq!(next_of("1Gi", bound("4Gi", "4Gi")), Next::Nothing, "kept from a Queue with larger volumes");
    assert_eq!(
        next_of("2Gi", claim(0, "Pending", "1Gi")),
        Next::Bind,
        "not to be changed before it is bound"
    );
    assert_eq!(next_of("2Gi", bound("1Gi", "1Gi")), Next::Ask, "growth");
    assert_eq!(next_of("2Gi", bound("2Gi", "1Gi")), Next::Grow, "under way");
    assert_eq!(
        next_of("2Gi", bound("9Gi", "1Gi")),
        Next::Ask,
        "a growth that was too much, taken back in part"
    );
    assert_eq!(next_of("1Gi", bound("9Gi", "1Gi")), Next::Abandoned, "taken back in full");
}

/// Claims differ only in how a size is written: nothing is asked for in a circle.
#[test]
fn sizes_are_compared_as_numbers() {
    assert_eq!(next_of("1024Mi", bound("1Gi", "1Gi")), Next::Nothing);
}

#[test]
fn class_without_expansion_is_an_obstacle_with_a_way_out() {
    for class in [Some("fixed"), Some("unknown"), None] {
        let observed = observed([of_class(bound("1Gi", "1Gi"), class)]);
        let plan = plan("2Gi", &observed);
        assert_eq!(plan.storage.volumes[0].next, Next::Unsupported, "{class:?}");
        assert_eq!(plan.obstacles[0].reason, reasons::EXPANSION_UNSUPPORTED);
        let text = &plan.obstacles[0].message;
        assert!(text.contains("grow to 2Gi") && text.contains("back to 1Gi"), "{text}");
    }
}

/// The class matters for a growth only: without one its absence is no complaint.
#[test]
fn class_without_expansion_is_fine_while_nothing_grows() {
    assert_eq!(next_of("1Gi", of_class(bound("1Gi", "1Gi"), None)), Next::Nothing);
}

#[test]
fn storage_that_gave_up_is_quoted() {
    let plan = plan("100Ti", &observed([given_up(bound("100Ti", "1Gi"), "largest volume is 16Ti")]));
    assert_eq!(plan.obstacles[0].reason, reasons::EXPANSION_INFEASIBLE);
    let text = &plan.obstacles[0].message;
    assert!(text.contains("largest volume is 16Ti") && text.contains("serves on with 1Gi"), "{text}");
    assert_eq!(plan.storage.status(1, None).volumes[0].state, VolumeState::Stuck);
}

/// A user who typed 100Ti gets out of it: to something in between, and to the old size.
#[test]
fn growth_that_failed_can_be_taken_back() {
    let stuck = || given_up(bound("100Ti", "1Gi"), "too much");
    assert_eq!(next_of("2Gi", stuck()), Next::Ask);
    let back = plan("1Gi", &observed([stuck()]));
    assert_eq!(back.obstacles, Vec::new());
    let advice = back.storage.abandoned().unwrap();
    assert!(advice.contains("asks for 100Ti") && advice.contains("the 1Gi it has"), "{advice}");
}

/// What the CEL rule compares with.
#[test]
fn floor_is_the_largest_size_that_all_volumes_reached() {
    let floor = |size: &str, claims: Vec<PersistentVolumeClaim>, before: Option<&str>| {
        let before = before.map(|floor| StorageStatus {
            requested: Quantity("0".to_owned()),
            floor: Some(Quantity(floor.to_owned())),
            volumes: Vec::new(),
        });
        plan(size, &observed(claims)).storage.status(1, before.as_ref()).floor.map(|floor| floor.0)
    };
    assert_eq!(floor("1Gi", vec![], None), None, "no volume yet: there is nothing to be told");
    assert_eq!(
        floor("1Gi", vec![bound("1Gi", "4Gi")], None),
        Some("1Gi".into()),
        "not what storage rounded up to"
    );
    assert_eq!(floor("2Gi", vec![bound("2Gi", "1Gi")], Some("1Gi")), Some("1Gi".into()), "while it grows");
    assert_eq!(floor("2Gi", vec![bound("2Gi", "2Gi")], Some("1Gi")), Some("2Gi".into()), "done");
    assert_eq!(
        floor("5Gi", vec![bound("2Gi", "2Gi")], None),
        Some("2Gi".into()),
        "kept from an earlier Queue"
    );
    assert_eq!(floor("2Gi", vec![], Some("1Gi")), Some("1Gi".into()), "a claim that was deleted by hand");
}

fn with_template(mut observed: Observed, size: &str) -> Observed {
    let mut set = stateful_set(1);
    let template = PersistentVolumeClaim {
        metadata: ObjectMeta {
            labels: Some(labels("orders")),
            name: Some("data".to_owned()),
            ..ObjectMeta::default()
        },
        ..claim(0, "", size)
    };
    set.spec.as_mut().unwrap().volume_claim_templates = Some(vec![template]);
    observed.stateful_set = Some(set.into());
    observed
}

/// A template that is ahead of a growth that fails would give each new shard a volume that cannot be made.
#[test]
fn template_follows_when_all_volumes_have_their_size() {
    let outdated = |size: &str, claims: Vec<PersistentVolumeClaim>| {
        plan(size, &with_template(observed(claims), "1Gi")).storage.outdates_template()
    };
    assert!(!outdated("1Gi", vec![bound("1Gi", "1Gi")]), "nothing changed");
    assert!(!outdated("2Gi", vec![bound("1Gi", "1Gi")]), "not asked for");
    assert!(!outdated("2Gi", vec![bound("2Gi", "1Gi")]), "still growing");
    assert!(!outdated("2Gi", vec![given_up(bound("2Gi", "1Gi"), "no")]), "failed");
    assert!(outdated("2Gi", vec![bound("2Gi", "2Gi")]));
    assert!(outdated("2Gi", vec![]), "no volume is there to wait for");
    assert!(
        !plan("2Gi", &observed([bound("2Gi", "2Gi")])).storage.outdates_template(),
        "no set, no template"
    );
}

#[test]
fn progress_is_told_until_the_template_has_followed() {
    let growing = |claims: Vec<PersistentVolumeClaim>| {
        plan("2Gi", &with_template(observed(claims), "1Gi")).storage.growing()
    };
    let two = growing(vec![bound("2Gi", "2Gi")]).unwrap();
    assert_eq!(two, "1 of 1 volumes have the size 2Gi");
    assert_eq!(growing(vec![bound("2Gi", "1Gi")]).unwrap(), "0 of 1 volumes have the size 2Gi");
    assert_eq!(plan("1Gi", &with_template(observed([bound("1Gi", "1Gi")]), "1Gi")).storage.growing(), None);
}
