//! What a power cut leaves.

use super::*;

const SECTORS: [Sector; 2] = [Sector::Small, Sector::Large];

/// Two pages of the one, or the other, or one of each.
fn page(first: u8, second: u8) -> Vec<u8> {
    [vec![first; 4096], vec![second; 4096]].concat()
}

/// Promise: what was synced is there with its name, whatever comes after, if that does not overwrite it.
#[test]
fn synced_content_survives_every_cut() {
    for sector in SECTORS {
        let disk = SimDisk::with_sectors(1, sector);
        let file = synced(&disk, "a", &page(1, 1));
        file.write_at(4096, &[2; 4096]).unwrap();
        file.write_at(9000, &[2; 4096]).unwrap();
        for content in outcomes(&disk, "a") {
            assert_eq!(content.expect("the name is durable")[..4096], [1; 4096]);
        }
    }
}

/// Promise: pages that were written since the last sync are kept or lost independently of each other.
#[test]
fn unsynced_pages_are_lost_in_any_order() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    synced(&disk, "a", &page(1, 1)).write_at(0, &page(2, 2)).unwrap();
    let found = outcomes(&disk, "a");
    for whole in [page(1, 1), page(1, 2), page(2, 1), page(2, 2)] {
        assert!(found.contains(&Some(whole)), "{} outcomes", found.len());
    }
}

/// Promise: small sectors of a page are torn, never less than a sector; in a world of large ones, that is rare.
#[test]
fn pages_are_torn_by_sectors() {
    for sector in SECTORS {
        let disk = SimDisk::with_sectors(1, sector);
        synced(&disk, "a", &page(1, 1)).write_at(0, &page(2, 2)).unwrap();
        let torn = |content: &[u8]| content.chunks(4096).any(|page| page.iter().any(|byte| *byte != page[0]));
        let contents: Vec<Vec<u8>> = (0..300).map(|seed| disk.crash(seed).content("a").unwrap()).collect();
        let count = contents.iter().filter(|content| torn(content)).count();
        let expected = if sector == Sector::Small { 80..220 } else { 5..40 };
        assert!(expected.contains(&count), "{sector:?}: {count}");
        let sectors: Vec<&[u8]> = contents.iter().flat_map(|content| content.chunks(512)).collect();
        assert!(sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])), "{sector:?}");
    }
}

/// Promise: of a page that was written several times any version may be found, whatever became of other pages.
#[test]
fn any_version_of_a_page_may_survive() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    let files = ["a", "b"].map(|name| synced(&disk, name, b"0"));
    for version in [b"1", b"2"] {
        files.iter().for_each(|file| file.write_at(0, version).unwrap());
    }
    let state = |disk: SimDisk| ["a", "b"].map(|name| disk.content(name).unwrap()[0] - b'0');
    let found: BTreeSet<_> = (0..300).map(|seed| state(disk.crash_as(seed, Survival::Coin))).collect();
    assert_eq!(found.len(), 9, "{found:?}");
}

/// Promise: a length that was not synced may be lost, grown or cut, and what is lost of the content is zeros.
#[test]
fn unsynced_length_is_kept_or_lost() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    let file = synced(&disk, "a", b"abc");
    file.set_len(6).unwrap();
    file.write_at(3, b"def").unwrap();
    let found: BTreeSet<_> = outcomes(&disk, "a").into_iter().flatten().collect();
    assert_eq!(found, [b"abc".to_vec(), b"abc\0\0\0".to_vec(), b"abcdef".to_vec()].into());
    file.sync().unwrap();
    file.set_len(2).unwrap();
    let found: BTreeSet<_> = outcomes(&disk, "a").into_iter().flatten().collect();
    assert_eq!(found, [b"ab".to_vec(), b"ab\0\0\0\0".to_vec(), b"abcdef".to_vec()].into());
}

/// Promise: nothing that was cut off, or was never part of the file, comes back in a file that grows again.
#[test]
fn content_past_the_end_stays_away() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    synced(&disk, "cut", b"abcdef").set_len(3).unwrap();
    synced(&disk, "grown", b"abc").write_at(3, b"def").unwrap();
    for (name, seed) in ["cut", "grown"].into_iter().flat_map(|name| (0..100).map(move |seed| (name, seed))) {
        let after = disk.crash_as(seed, Survival::Coin);
        let before = after.content(name).unwrap();
        after.open(name).unwrap().set_len(8192).unwrap();
        let grown = after.content(name).unwrap();
        assert_eq!(grown, [before.clone(), vec![0; 8192 - before.len()]].concat(), "{name}, {seed}");
    }
}

/// Promise: a name that was not synced may be lost, with all that is in the file, however well that is synced.
#[test]
fn unsynced_name_may_take_its_file_along() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap().write_at(0, b"abc").unwrap();
    disk.open("a").unwrap().sync().unwrap();
    assert_eq!(outcomes(&disk, "a"), [None, Some(b"abc".to_vec())].into());
    disk.sync_folder().unwrap();
    assert_eq!(outcomes(&disk, "a"), [Some(b"abc".to_vec())].into());
}

/// Promise: a file has its old or its new name, never both and never none; what it replaces is there, or it is.
#[test]
fn rename_is_never_half_done() {
    let disk = SimDisk::new(1);
    synced(&disk, "new", b"new");
    synced(&disk, "old", b"old");
    disk.rename("new", "old").unwrap();
    let state = |disk: SimDisk| (disk.content("old").ok(), disk.content("new").ok());
    let found: BTreeSet<_> = (0..300).map(|seed| state(disk.crash(seed))).collect();
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    assert_eq!(found, [(old, new.clone()), (new, None)].into());
}

/// Promise: changes of different names are lost in any order.
#[test]
fn unsynced_names_are_lost_in_any_order() {
    let disk = SimDisk::new(1);
    synced(&disk, "a", b"");
    disk.remove("a").unwrap();
    disk.create("b").unwrap();
    assert_eq!(names(&disk), ["", "a", "a b", "b"].map(str::to_owned).into());
}

/// Promise: those of one name are not: a file that was renamed is not lost to what took its old name.
#[test]
fn changes_of_one_name_keep_their_order() {
    let disk = SimDisk::new(1);
    synced(&disk, "a", b"old");
    disk.rename("a", "b").unwrap();
    let new = disk.create("a").unwrap();
    new.write_at(0, b"new").unwrap();
    new.sync().unwrap();
    let state = |disk: SimDisk| ["a", "b"].map(|name| disk.content(name).ok());
    let found: BTreeSet<_> = (0..300).map(|seed| state(disk.crash(seed))).collect();
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    assert_eq!(found, [[old.clone(), None], [None, old.clone()], [new, old]].into());
}

/// Promise: the moment of a prefix is the same for all files: nothing of after it is found, all of before is.
#[test]
fn prefix_is_one_moment_of_all_files() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    let files = ["a", "b"].map(|name| synced(&disk, name, b"0"));
    for version in [b"1", b"2", b"3"] {
        files.iter().for_each(|file| file.write_at(0, version).unwrap());
    }
    let state = |disk: SimDisk| ["a", "b"].map(|name| disk.content(name).unwrap()[0] - b'0');
    let found: BTreeSet<_> = (0..300).map(|seed| state(disk.crash_as(seed, Survival::Prefix))).collect();
    assert_eq!(found, [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 3]].into());
}

/// Promise: each way of surviving is what it says.
#[test]
fn survival_is_as_it_was_ordered() {
    let disk = SimDisk::new(1);
    synced(&disk, "a", &page(1, 1)).write_at(0, &page(2, 2)).unwrap();
    disk.create("b").unwrap();
    for seed in 0..50 {
        let nothing = disk.crash_as(seed, Survival::Nothing);
        assert_eq!((nothing.content("a").unwrap(), nothing.content("b").is_ok()), (page(1, 1), false));
        let everything = disk.crash_as(seed, Survival::Everything);
        assert_eq!((everything.content("a").unwrap(), everything.content("b").is_ok()), (page(2, 2), true));
    }
    let holes =
        (0..100).filter(|seed| disk.crash_as(*seed, Survival::Holes).content("a").unwrap() != page(2, 2));
    assert!((10..70).contains(&holes.count()));
}

/// Promise: the same seed leaves the same.
#[test]
fn crash_depends_on_the_seed_alone() {
    let disk = SimDisk::new(1);
    synced(&disk, "a", &page(1, 1)).write_at(0, &page(2, 2)).unwrap();
    for seed in 0..50 {
        assert_eq!(disk.crash(seed).content("a").unwrap(), disk.crash(seed).content("a").unwrap());
    }
}

/// Promise: a disk that survived is one: what it has is durable, and it can crash again.
#[test]
fn survivor_is_a_whole_disk() {
    let disk = SimDisk::new(1);
    let old = synced(&disk, "a", b"abc");
    old.write_at(0, b"xyz").unwrap();
    let after = disk.crash_as(1, Survival::Everything);
    old.write_at(0, b"---").unwrap();
    assert_eq!(outcomes(&after, "a"), [Some(b"xyz".to_vec())].into());
    after.create("b").unwrap();
    assert_eq!(after.content("a").unwrap(), b"xyz");
    assert_eq!(names(&after), ["a", "a b"].map(str::to_owned).into());
}

/// Promise: killing the process loses nothing and makes nothing durable; what the old one still has open is another disk.
#[test]
fn killed_process_leaves_what_it_wrote_as_it_was() {
    let disk = SimDisk::with_sectors(1, Sector::Large);
    let old = synced(&disk, "a", b"0");
    old.write_at(0, b"1").unwrap();
    disk.create("b").unwrap();
    disk.cut_power();
    let after = disk.restarted();
    assert_eq!((after.content("a").unwrap(), after.is_off()), (b"1".to_vec(), false));
    assert_eq!(outcomes(&after, "a"), [Some(b"0".to_vec()), Some(b"1".to_vec())].into());
    assert_eq!(names(&after), ["a", "a b"].map(str::to_owned).into());
    after.open("a").unwrap().write_at(0, b"2").unwrap();
    assert_eq!(disk.content("a").unwrap(), b"1");
}
