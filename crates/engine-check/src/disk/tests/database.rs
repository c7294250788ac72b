//! redb on it: that what the real one promises holds, and that a harness finds it when it does not.

use ackwell_engine::store::backend::Backend;
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

use super::*;
use crate::dice::Dice;

const NUMBERS: TableDefinition<u64, &[u8]> = TableDefinition::new("numbers");
const FILE: &str = "state";

fn open(disk: &SimDisk) -> Result<Database, DatabaseError> {
    let file = disk.open(FILE).expect("its name is durable");
    Database::builder().set_cache_size(1 << 20).create_with_backend(Backend::new(file))
}

fn commit(database: &Database, version: u64, dice: &mut Dice) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(dice.one_in(2));
    {
        let mut table = write.open_table(NUMBERS)?;
        table.insert(0, version.to_le_bytes().as_slice())?;
        for key in 1..8 {
            table.insert(key, vec![version.to_le_bytes()[0]; dice.count(0, 3000)].as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

/// The version, if all of the content is of one.
fn version(database: &Database) -> Result<u64, redb::Error> {
    let table = database.begin_read()?.open_table(NUMBERS)?;
    let value = table.get(0)?.expect("it was committed");
    let version = u64::from_le_bytes(value.value().try_into().expect("it has eight bytes"));
    for key in 1..8 {
        let value = table.get(key)?.expect("it was committed");
        assert!(value.value().iter().all(|byte| *byte == version.to_le_bytes()[0]), "version {version}");
    }
    Ok(version)
}

/// A database whose version 0 is durable.
fn created(seed: u64) -> (SimDisk, Dice) {
    let (disk, mut dice) = (SimDisk::new(seed), Dice::new(seed));
    disk.create(FILE).unwrap();
    disk.sync_folder().unwrap();
    commit(&open(&disk).unwrap(), 0, &mut dice).unwrap();
    (disk, dice)
}

/// Commits until the power fails. The version that was acknowledged last, and that which may be there too.
fn run(disk: &SimDisk, mut acked: u64, dice: &mut Dice) -> (u64, u64) {
    let Ok(database) = open(disk) else { return (acked, acked) };
    for _ in 0..10 {
        if commit(&database, acked + 1, dice).is_err() {
            return (acked, acked + 1);
        }
        acked += 1;
    }
    (acked, acked)
}

/// One database through three power cuts: whether each left what was acknowledged.
fn survives(seed: u64, lie: Option<Lie>) -> bool {
    let (mut disk, mut dice) = created(seed);
    let mut acked = 0;
    for cut in 0..3 {
        disk.set_faults(Faults {
            power_cut: Some(disk.asked().changes + dice.below(60)),
            lie,
            ..Faults::default()
        });
        let (least, most) = run(&disk, acked, &mut dice);
        disk = disk.crash(seed * 3 + cut);
        match open(&disk).map(|database| version(&database)) {
            Ok(Ok(found)) if found == least || found == most => acked = found,
            _ => return false,
        }
    }
    true
}

/// Promise: a database on the simulated disk is there when it is opened again.
#[test]
fn database_is_reopened_with_its_content() {
    let (disk, mut dice) = created(1);
    assert_eq!(run(&disk, 0, &mut dice), (10, 10));
    assert_eq!(version(&open(&disk).unwrap()).unwrap(), 10);
}

/// Promise: what redb acknowledged survives power cuts.
#[test]
fn acknowledged_commits_survive() {
    for seed in 0..100 {
        assert!(survives(seed, None), "seed {seed}");
    }
}

/// Promise: a sync that lies is found out by the same test.
#[test]
fn lying_sync_is_detected() {
    let caught = (0..30)
        .filter(|seed| !std::panic::catch_unwind(|| survives(*seed, Some(Lie::FileSync))).unwrap_or(false));
    assert!(caught.count() > 10);
}
