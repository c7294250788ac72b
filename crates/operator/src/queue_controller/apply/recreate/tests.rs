use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::*;
use crate::queue_controller::BrokerImage;
use crate::queue_controller::build::build;
use crate::queue_controller::fixtures::{claim, queue};
use crate::queue_controller::validate::validate;

/// One shard whose volume has grown to 2Gi, and a set that still says 1Gi.
fn grown() -> Observed {
    let nothing = Observed::default();
    let image = BrokerImage { image: "broker:1".to_owned(), pull_policy: None, traces: None };
    let mut set = build(&validate(&queue(|_| {}), &nothing).unwrap(), &nothing, &image).stateful_set;
    set.metadata.uid = Some("uid-of-the-set".to_owned());
    set.metadata.generation = Some(2);
    set.status = Some(StatefulSetStatus { observed_generation: Some(2), ..StatefulSetStatus::default() });
    Observed {
        stateful_set: Some(set.into()),
        claims: vec![(0, claim(0, "Bound", "2Gi").into())],
        classes: [("standard".to_owned(), true)].into(),
        ..Observed::default()
    }
}

fn edited(observed: &Observed, edit: impl FnOnce(&mut StatefulSet)) -> Observed {
    let mut set = observed.stateful_set.as_deref().unwrap().clone();
    edit(&mut set);
    Observed { stateful_set: Some(set.into()), ..observed.clone() }
}

fn due(observed: &Observed, state: State) -> bool {
    let mut plan = validate(&queue(|spec| spec.storage.size.0 = "2Gi".to_owned()), observed).unwrap();
    plan.rollout.state = state;
    is_due(&plan, observed).is_some()
}

#[test]
fn set_is_made_anew_when_its_volumes_have_grown() {
    assert!(due(&grown(), State::Done));
    let mut growing = grown();
    growing.claims = vec![(0, claim(0, "Bound", "1Gi").into())];
    assert!(!due(&growing, State::Done), "the volume comes first");
}

/// A new set does not know which pod had which template: the partition would lose its meaning.
#[test]
fn set_is_not_made_anew_while_brokers_are_replaced() {
    for state in [State::Rolling, State::Waiting, State::Held, State::Halted { ordinal: 0, minutes: 10 }] {
        assert!(!due(&grown(), state.clone()), "{state:?}");
    }
    let two_revisions = edited(&grown(), |set| {
        set.status.as_mut().unwrap().update_revision = Some("newer".to_owned());
    });
    assert!(!due(&two_revisions, State::Done));
}

/// With `deletionPolicy: Delete` the claims would go with the set, and all messages with them.
#[test]
fn set_that_would_take_its_volumes_along_is_not_deleted() {
    let deleting = edited(&grown(), |set| {
        let policy = &mut set.spec.as_mut().unwrap().persistent_volume_claim_retention_policy;
        policy.as_mut().unwrap().when_deleted = Some("Delete".to_owned());
    });
    assert!(!due(&deleting, State::Done));
    let unseen = edited(&grown(), |set| set.metadata.generation = Some(3));
    assert!(!due(&unseen, State::Done), "the controller may still act by the old policy");
    let mut claimed: PersistentVolumeClaim = claim(0, "Bound", "2Gi");
    let owner = OwnerReference { uid: "uid-of-the-set".to_owned(), ..OwnerReference::default() };
    claimed.metadata.owner_references = Some(vec![owner]);
    let observed = Observed { claims: vec![(0, Arc::new(claimed))], ..grown() };
    assert!(!due(&observed, State::Done), "the claim still belongs to the set");
}

/// The policy itself gives way for that moment.
#[test]
fn policy_to_delete_rests_while_the_set_is_made_anew() {
    let edit = |spec: &mut ackwell_api::QueueSpec| {
        spec.deletion_policy = ackwell_api::DeletionPolicy::Delete;
        spec.storage.size.0 = "2Gi".to_owned();
    };
    let when_deleted = |observed: &Observed| {
        let plan = validate(&queue(edit), observed).unwrap();
        let image = BrokerImage { image: "broker:1".to_owned(), pull_policy: None, traces: None };
        let spec = build(&plan, observed, &image).stateful_set.spec.unwrap();
        spec.persistent_volume_claim_retention_policy.unwrap().when_deleted.unwrap()
    };
    assert_eq!(when_deleted(&grown()), "Retain");
    assert_eq!(when_deleted(&Observed::default()), "Delete");
}

#[test]
fn set_that_leaves_already_is_left_alone() {
    let leaving = edited(&grown(), |set| {
        set.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    });
    assert!(!due(&leaving, State::Done));
}
