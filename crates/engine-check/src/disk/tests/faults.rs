//! What fails, and how it shows.

use super::*;

fn struck<T>(result: io::Result<T>) -> Option<Struck> {
    result.err().and_then(|error| Struck::of(&error))
}

fn failing(at: u64, lasts: Lasts) -> Faults {
    Faults { error: Some(DeviceError { at, only: None, lasts }), ..Faults::default() }
}

/// Promise: from the change in which the power fails nothing works, and nothing more is done.
#[test]
fn power_cut_ends_everything() {
    let disk = SimDisk::new(1);
    let file = synced(&disk, "a", b"abc");
    let changes = disk.asked().changes;
    assert_eq!(changes, 4);
    disk.set_faults(Faults { power_cut: Some(changes + 1), ..Faults::default() });
    file.write_at(0, b"x").unwrap();
    file.read_at(0, &mut [0]).unwrap();
    assert!(!disk.is_off());
    assert_eq!(struck(file.sync()), Some(Struck::PowerCut));
    assert!(disk.is_off());
    for _ in 0..20 {
        assert_eq!(struck(file.write_at(1, b"yy")), Some(Struck::PowerCut));
    }
    for result in [file.sync(), file.set_len(0), disk.sync_folder()] {
        assert_eq!(struck(result), Some(Struck::PowerCut));
    }
    for result in [disk.remove("a"), disk.rename("a", "b"), file.read_at(0, &mut [0])] {
        assert_eq!(struck(result), Some(Struck::PowerCut));
    }
    assert_eq!(struck(disk.create("b")), Some(Struck::PowerCut));
    let found = outcomes(&disk, "a");
    assert_eq!(found, [Some(b"abc".to_vec()), Some(b"xbc".to_vec())].into());
    assert!(!disk.crash(1).is_off());
}

/// Promise: a write in which the power fails is done up to anywhere.
#[test]
fn power_cut_in_a_write_leaves_any_part_of_it() {
    let done = |seed| {
        let disk = SimDisk::with_sectors(seed, Sector::Large);
        let file = synced(&disk, "a", &[0; 10]);
        disk.set_faults(Faults { power_cut: Some(disk.asked().changes), ..Faults::default() });
        assert_eq!(struck(file.write_at(0, &[1; 10])), Some(Struck::PowerCut));
        let content = disk.crash_as(seed, Survival::Everything).content("a").unwrap();
        let done = content.iter().position(|byte| *byte != 1).unwrap_or(content.len());
        assert!(content[done..].iter().all(|byte| *byte == 0), "the rest is as it was");
        done
    };
    assert_eq!((0..300).map(done).collect::<BTreeSet<_>>(), (0..=10).collect());
}

/// Promise: a device error comes in the operation it was put at, once or for good, and can be told from others.
#[test]
fn device_error_strikes_where_it_was_put() {
    for (lasts, after) in [(Lasts::Once, None), (Lasts::Forever, Some(Struck::DeviceError))] {
        let disk = SimDisk::new(1);
        let file = synced(&disk, "a", b"abc");
        disk.set_faults(failing(disk.asked().operations + 1, lasts));
        assert_eq!(struck(file.len()), None);
        assert_eq!(struck(file.read_at(0, &mut [0])), Some(Struck::DeviceError));
        assert_eq!(struck(file.write_at(0, b"x")), after);
        assert_eq!(disk.asked().errors, if after.is_some() { 2 } else { 1 });
        assert!(!disk.is_off());
    }
}

/// Promise: as in Linux, what a failed sync did not write is never written, though it is shown and a later sync succeeds.
#[test]
fn sync_after_a_failed_one_makes_nothing_durable() {
    let outcome = |seed| {
        let disk = SimDisk::new(seed);
        let file = synced(&disk, "a", b"0");
        disk.set_faults(failing(disk.asked().operations + 1, Lasts::Once));
        file.write_at(0, b"1").unwrap();
        assert_eq!(struck(file.sync()), Some(Struck::DeviceError));
        file.sync().unwrap();
        assert_eq!(disk.content("a").unwrap(), b"1");
        let lost = disk.crash(seed).content("a").unwrap();
        file.write_at(0, b"2").unwrap();
        let again = outcomes(&disk, "a");
        assert_eq!(again, [Some(lost.clone()), Some(b"2".to_vec())].into(), "written again it is as any");
        file.sync().unwrap();
        assert_eq!(outcomes(&disk, "a"), [Some(b"2".to_vec())].into());
        lost
    };
    let found: BTreeSet<_> = (0..20).map(outcome).collect();
    assert_eq!(found, [b"0".to_vec(), b"1".to_vec()].into());
}

/// Promise: a full volume takes what fits and says so; what has its room already is written over, and removing helps.
#[test]
fn full_volume_refuses_what_needs_room() {
    let disk = SimDisk::new(1);
    let other = synced(&disk, "b", &[1; 4096]);
    let file = synced(&disk, "a", &[1; 4096]);
    disk.set_faults(Faults { room_bytes: Some(3 * 4096), ..Faults::default() });
    assert_eq!(kind(file.write_at(4096, &[2; 8192])), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 8192);
    assert_eq!((disk.space().unwrap().free_bytes, disk.asked().errors), (0, 1));
    file.write_at(0, &[3; 8192]).unwrap();
    file.sync().unwrap();
    disk.remove("b").unwrap();
    file.write_at(8192, b"x").unwrap();
    assert_eq!(other.len().unwrap(), 4096);
}

/// Promise: a sync that lies makes nothing durable.
#[test]
fn lie_shows_after_a_crash() {
    for (lie, expected) in [(Lie::FileSync, Some(b"".to_vec())), (Lie::FolderSync, None)] {
        let disk = SimDisk::new(1);
        disk.set_faults(Faults { lie: Some(lie), ..Faults::default() });
        synced(&disk, "a", b"abc");
        assert_eq!(disk.crash_as(1, Survival::Nothing).content("a").ok(), expected);
    }
}

/// Promise: a flipped bit is what is read, and survives; nobody is told.
#[test]
fn flipped_bit_is_read() {
    let disk = SimDisk::new(1);
    synced(&disk, "a", &[0; 9000]);
    disk.flip("a", 8999, 7).unwrap();
    let flipped = [vec![0; 8999], vec![128]].concat();
    assert_eq!(disk.content("a").unwrap(), flipped);
    assert_eq!(disk.crash(1).content("a").unwrap(), flipped);
    assert_eq!(kind(disk.flip("a", 9000, 0)), io::ErrorKind::UnexpectedEof);
}
