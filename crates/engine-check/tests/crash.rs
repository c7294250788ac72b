//! A bounded share of what `crash` does, and whether it would notice.

use std::sync::Arc;

use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Engine, Store, StoreError, Timestamp};
use ackwell_engine_check::crash::{Plan, Troubles, endure, survive};
use ackwell_engine_check::disk::{DeviceError, Faults, Lasts, Lie, SimDisk, Survival};

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

/// Promise: bits that turn over and files that get lost take nothing that is not named, and serve nothing wrong.
#[test]
fn damage_is_named() {
    for seed in 0..SCHEDULES / 2 {
        if let Err(fallen) = endure(seed) {
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

/// Promise: whichever write or sync fails while a store is made, it opens when the power was cut after that.
#[test]
fn store_that_met_an_error_while_it_was_made_opens() {
    for seed in 0..4 {
        for at in 0..60 {
            let disk = SimDisk::new(seed);
            disk.set_faults(Faults {
                error: Some(DeviceError { at, only: None, lasts: Lasts::Once }),
                ..Faults::default()
            });
            let opened = open(&disk);
            let left = disk.crash_as(seed, Survival::Nothing);
            drop(opened);
            open(&left).unwrap_or_else(|error| panic!("seed {seed}, operation {at}: {error:?}"));
        }
    }
}

fn open(disk: &SimDisk) -> Result<Engine, StoreError> {
    let entropy = Entropy { receipt_key: [7; 16], salt: 1 };
    let options = Options {
        segment_bytes: 4096,
        checkpoint_bytes: 4096,
        max_rows: 1000,
        reserve_bytes: 0,
        threads: Threads::One,
    };
    Engine::open(Store::on_disk(Arc::new(disk.clone()), entropy, options)?, Timestamp(1_000_000_000))
}
