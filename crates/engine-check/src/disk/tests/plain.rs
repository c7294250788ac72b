//! Without faults it is a disk.

use super::*;
use crate::dice::Dice;

/// Promise: reads give what was written, whatever was written, cut and lengthened; also after a sync and a power cut.
#[test]
fn file_is_what_a_vector_would_be() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let file = synced(&disk, "a", b"");
        let mut expected: Vec<u8> = Vec::new();
        for _ in 0..dice.count(1, 30) {
            change(&mut dice, &*file, &mut expected);
            assert_eq!(disk.content("a").unwrap(), expected, "seed {seed}");
            let allocated = disk.world().used_bytes();
            assert!(allocated <= expected.len().next_multiple_of(4096) as u64, "seed {seed}: {allocated}");
        }
        file.sync().unwrap();
        assert_eq!(disk.crash(seed).content("a").unwrap(), expected, "seed {seed}");
        assert_eq!(disk.crash(seed).used_bytes(), disk.used_bytes(), "seed {seed}");
    }
}

fn change(dice: &mut Dice, file: &dyn DiskFile, expected: &mut Vec<u8>) {
    let at = dice.count(0, 20_000);
    match dice.below(6) {
        0 => {
            file.set_len(at as u64).unwrap();
            expected.resize(at, 0);
        }
        1 => file.sync().unwrap(),
        _ => {
            let bytes = vec![u8::try_from(dice.below(256)).unwrap(); dice.count(0, 9000)];
            file.write_at(at as u64, &bytes).unwrap();
            let end = at + bytes.len();
            if !bytes.is_empty() {
                expected.resize(expected.len().max(end), 0);
                expected[at..end].copy_from_slice(&bytes);
            }
        }
    }
}

/// Promise: reading past the end is an error, as on the real one.
#[test]
fn read_past_the_end_is_refused() {
    let disk = SimDisk::new(1);
    let file = synced(&disk, "a", b"abc");
    file.read_at(1, &mut [0; 2]).unwrap();
    assert_eq!(kind(file.read_at(1, &mut [0; 3])), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(file.read_at(u64::MAX, &mut [0; 3])), io::ErrorKind::UnexpectedEof);
}

/// Promise: names are created once, renamed over others and removed; handles keep their file.
#[test]
fn names_go_as_in_a_real_folder() {
    let disk = SimDisk::new(1);
    let first = synced(&disk, "a", b"first");
    let second = synced(&disk, "b", b"second");
    assert_eq!(kind(disk.create("a")), io::ErrorKind::AlreadyExists);
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(disk.content("b").unwrap(), b"first");
    second.write_at(0, b"S").unwrap();
    first.write_at(0, b"F").unwrap();
    assert_eq!(disk.content("b").unwrap(), b"First");
    disk.remove("b").unwrap();
    assert_eq!(first.len().unwrap(), 5);
    assert_eq!(kind(disk.open("b")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("b")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("b", "c")), io::ErrorKind::NotFound);
}

/// Promise: holes take no room, what is written does, and what is removed gives it back.
#[test]
fn room_is_taken_by_what_is_written() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults { room_bytes: Some(100 * 4096), ..Faults::default() });
    let file = disk.create("a").unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(disk.space().unwrap(), Space { total_bytes: 100 * 4096, free_bytes: 100 * 4096 });
    file.write_at(5000, &[1; 4096]).unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 98 * 4096);
    disk.remove("a").unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 100 * 4096);
}
