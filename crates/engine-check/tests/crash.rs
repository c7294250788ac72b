//! A bounded share of what `crash` does, and whether it would notice.

use ackwell_engine_check::crash::{Plan, Troubles, survive};
use ackwell_engine_check::disk::Lie;

/// A few seconds' worth on one core without optimisation.
const SCHEDULES: u64 = 120;

/// Promise: after any power cut, also one in a recovery, everything confirmed is there and nothing else.
#[test]
fn store_survives_power_cuts() {
    let plan = Plan { troubles: Troubles::PowerCuts, lie: None };
    for seed in 0..SCHEDULES {
        if let Err(fallen) = survive(seed, plan) {
            panic!("seed {seed}: {:?}\n{}", fallen.violation, fallen.story.join("\n"));
        }
    }
}

/// Promise: on a disk whose syncs lie, the test above fails: it sees what is lost.
#[test]
fn lost_syncs_are_noticed() {
    for lie in [Lie::FileSync, Lie::FolderSync] {
        let plan = Plan { troubles: Troubles::PowerCuts, lie: Some(lie) };
        let noticed = (0..20).filter(|seed| survive(*seed, plan).is_err()).count();
        assert!(noticed > 2, "{lie:?}: {noticed} of 20");
    }
}
