//! Stores that are damaged: found, named, and read as far as they can be.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::log::number_of;
use crate::store::offline::checkpoint::Checkpoint;
use crate::store::offline::scan::{Met, Scan};
use crate::store::tables::FILE;

/// Where something is in use.
type Used = Vec<(String, Range<u64>)>;

/// Pages of the state that lead somewhere, the commit that counts, and all records.
fn used(disk: &Shared) -> Used {
    let mut used = Used::new();
    let mut note = |extent| used.push((FILE.to_owned(), extent));
    let checkpoint = Checkpoint::open(&**disk, &mut |_| {}, &mut note).unwrap().unwrap().0;
    let mut flags = [0];
    disk.open(FILE).unwrap().read_at(9, &mut flags).unwrap();
    let commit = 64 + 128 * u64::from(flags[0] & 1);
    used.extend([0..9, 12..16, commit..commit + 128].map(|extent| (FILE.to_owned(), extent)));
    let files = segments::all(&Offline::on_disk(Arc::<MemoryDisk>::clone(disk), None).unwrap()).unwrap();
    let met = |met: Met<'_>| {
        if let Met::Record(segment, found) = met {
            let start = u64::from(found.at.offset);
            used.push((segment.name.clone(), start..start + found.bytes.len() as u64));
        }
        Ok(())
    };
    Scan::new(checkpoint.kept.applied, met).run(&files).unwrap();
    used
}

fn flip(disk: &Shared, name: &str, at: u64, bit: u8) {
    let (file, mut byte) = (disk.open(name).unwrap(), [0]);
    file.read_at(at, &mut byte).unwrap();
    file.write_at(at, &[byte[0] ^ 1 << bit]).unwrap();
}

/// Numbers that look random and are the same each time.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Promise: single flipped bits are found when they hit something in use, and where nothing is found, every message is exported
/// as it was.
#[test]
fn flipped_bits_are_found_or_change_nothing() {
    flip_bits(60, 42);
}

/// The same, often: `cargo test --release -p ackwell-engine --lib -- --ignored many_flipped_bits`.
#[test]
#[ignore = "takes minutes without --release"]
fn many_flipped_bits_are_found_or_change_nothing() {
    flip_bits(1000, 7);
}

fn flip_bits(flips: u64, seed: u64) {
    let mut roll = dice(seed);
    for end in [End::Closed, End::Killed] {
        let disk = store(end);
        let (state, log, used) = (export(&disk, Source::State), export(&disk, Source::Log), used(&disk));
        let files = content(&disk);
        let mut found = 0;
        for round in 0..flips {
            // Most of the room is not in use: three of four flips are where something is.
            let (name, at) = if round % 4 == 0 {
                let (name, bytes) = &files[usize::try_from(roll(files.len() as u64)).unwrap()];
                (name, roll(bytes.len() as u64))
            } else {
                let (name, extent) = &used[usize::try_from(roll(used.len() as u64)).unwrap()];
                (name, extent.start + roll(extent.end - extent.start))
            };
            let bit = u8::try_from(roll(8)).unwrap();
            flip(&disk, name, at, bit);
            let findings = verify(&disk);
            let is_used = used.iter().any(|(file, extent)| file == name && extent.contains(&at));
            assert!(
                !findings.is_empty() || !is_used,
                "{end:?}: bit {bit} of byte {at} of {name} is not found"
            );
            if findings.is_empty() {
                let what = format!("{end:?}: bit {bit} of byte {at} of {name} changes what is exported");
                assert!(export(&disk, Source::State) == state && export(&disk, Source::Log) == log, "{what}");
            } else {
                found += 1;
                check_export(&disk, &state.0);
            }
            flip(&disk, name, at, bit);
        }
        assert!(found > flips * 7 / 10, "{end:?}: {found}");
        assert_eq!(verify(&disk), []);
    }
}

/// Whatever is damaged: no message is told otherwise than it was sent, except where it is said to be damaged. Of a queue whose row
/// is lost only the number is known.
fn check_export(disk: &Shared, whole: &[Exported]) {
    let (state, _) = export(disk, Source::State);
    for message in state.iter().filter(|message| !message.is_damaged) {
        let Some(before) = whole.iter().find(|before| before.id == message.id) else { continue };
        let is_queue = before.queue == message.queue || message.queue.starts_with('#');
        assert!(before.payload == message.payload && is_queue, "{message:?}");
    }
}

/// Promise: a damaged body is named with its message, its queue and its place, once, and everything else is exported.
#[test]
fn damaged_body_is_named_with_its_message() {
    let disk = store(End::Closed);
    let (before, _) = export(&disk, Source::State);
    let in_log = |message: &&Exported| message.payload.body.len() > 100 && message.place.0 > 4;
    let message = before.iter().rev().find(in_log).unwrap();
    let file = crate::store::log::name_of(message.place.0);
    flip(&disk, &file, u64::from(message.place.1) + 40, 3);
    let findings = verify(&disk);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let hit = Hit { id: message.id, seq: message.id.unwrap().seq(), queue: message.queue.clone() };
    assert_eq!(
        (finding.kind, finding.severity, &finding.messages),
        ("payload", Severity::Damage, &vec![hit])
    );
    assert_eq!((&finding.file, finding.bytes.as_ref().unwrap().start), (&file, message.place.1.into()));
    let (after, missing) = export(&disk, Source::State);
    assert_eq!((after.len(), missing), (before.len(), Vec::new()));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.is_damaged, before.id == message.id);
        assert!(after.is_damaged || before == after);
    }
}

/// Promise: wherever the last record of the log is damaged, it is found: as damage when the checkpoint knows of it, and as a doubt when a
/// crash may have left it.
#[test]
fn damaged_last_record_is_found() {
    for (end, severity) in [(End::Closed, Severity::Damage), (End::Killed, Severity::Doubt)] {
        let disk = store(end);
        let mut last = None;
        let segments = offline(&disk).inspect().unwrap().segments;
        let number = segments.iter().rev().find(|segment| segment.records > 0).unwrap().number;
        let looked = Looked::Segment(number);
        let mut tell = |record: RecordView| {
            last = Some((record.file, u64::from(record.offset)));
            Ok(())
        };
        offline(&disk).records(looked, &mut tell).unwrap();
        let (file, start) = last.unwrap();
        // Magic, checksum, chain, place, segment, number, time, length.
        for field in [0, 4, 8, 12, 16, 24, 32, 40] {
            flip(&disk, &file, start + field, 2);
            let findings = verify(&disk);
            let is_it = |finding: &&Finding| finding.kind == "record" && finding.file == file;
            let found = findings
                .iter()
                .find(is_it)
                .map(|finding| (finding.severity, finding.bytes.as_ref().unwrap().start));
            assert_eq!(found, Some((severity, start)), "{end:?}, byte {field}");
            flip(&disk, &file, start + field, 2);
        }
    }
}

/// Promise: when the state is lost, the log has every message back whose send is still in it, with its body.
#[test]
fn sends_are_had_from_the_log_without_a_state() {
    let disk = store(End::Killed);
    let (before, _) = export(&disk, Source::Log);
    disk.remove(FILE).unwrap();
    let findings = verify(&disk);
    assert!(findings.iter().any(|finding| finding.kind == "state"), "{findings:?}");
    let (after, missing) = export(&disk, Source::Log);
    assert_eq!(missing.len(), 1);
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.place, &before.payload), (after.place, &after.payload));
        assert_eq!((after.id, after.state, after.queue.as_bytes()[0]), (None, None, b'#'));
    }
    assert_eq!(export(&disk, Source::State).0, []);
}

/// Promise: a page of the state that is lost names the messages that are lost with it, and costs no others.
#[test]
fn damaged_page_of_the_state_costs_its_rows_only() {
    let disk = store(End::Closed);
    let (before, _) = export(&disk, Source::State);
    let pages = used(&disk).into_iter().filter(|(name, extent)| name == FILE && extent.start >= 4096);
    let mut lost = 0;
    for (_, extent) in pages {
        flip(&disk, FILE, extent.start + 30, 1);
        let findings = verify(&disk);
        let page = findings.iter().find(|finding| finding.kind == "page").unwrap();
        assert_eq!(page.bytes.as_ref().unwrap().start, extent.start);
        let (after, missing) = export(&disk, Source::State);
        assert_eq!(missing.len(), 1);
        assert!(after.len() <= before.len());
        if after.len() < before.len() {
            assert!(page.what.contains("messages") || page.what.contains("list of tables"), "{page:?}");
            lost += 1;
        }
        flip(&disk, FILE, extent.start + 30, 1);
    }
    assert!(lost > 0, "some page has messages");
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u64, u8),
    Cut(usize, u64),
    Lengthen(usize, u64),
    Fill(usize, u64, Vec<u8>),
    Copy(usize, u64, u64, u64),
    Remove(usize),
    Rename(usize, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let name = prop_oneof![
        Just("state.redb".to_owned()),
        Just("state.new".to_owned()),
        Just("ffffffffffffffff.log".to_owned()),
        Just("0000000000000009.damaged".to_owned()),
        "[0-9a-f]{16}\\.log",
    ];
    let (file, at) = (any::<usize>(), any::<u64>());
    prop_oneof![
        8 => (file, at, 0u8..8).prop_map(|(file, at, bit)| Damage::Flip(file, at, bit)),
        1 => (file, at).prop_map(|(file, len)| Damage::Cut(file, len)),
        1 => (file, 1u64..10_000).prop_map(|(file, more)| Damage::Lengthen(file, more)),
        2 => (file, at, vec(any::<u8>(), 1..600)).prop_map(|(file, at, bytes)| Damage::Fill(file, at, bytes)),
        2 => (file, at, at, 1u64..5000).prop_map(|(file, from, to, len)| Damage::Copy(file, from, to, len)),
        1 => file.prop_map(Damage::Remove),
        1 => (file, name).prop_map(|(file, name)| Damage::Rename(file, name)),
    ]
}

fn apply(disk: &Shared, damage: Damage) {
    let names = disk.list().unwrap();
    let chosen = |file: usize| {
        let name = names[file % names.len()].clone();
        let file = disk.open(&name).unwrap();
        let len = file.len().unwrap();
        (name, file, len)
    };
    match damage {
        _ if names.is_empty() => {}
        Damage::Flip(file, at, bit) => {
            let (name, _, len) = chosen(file);
            if len > 0 {
                flip(disk, &name, at % len, bit);
            }
        }
        Damage::Cut(file, to) => {
            let (_, file, len) = chosen(file);
            file.set_len(to % (len + 1)).unwrap();
        }
        Damage::Lengthen(file, more) => {
            let (_, file, len) = chosen(file);
            file.set_len(len + more).unwrap();
        }
        Damage::Fill(file, at, bytes) => {
            let (_, file, len) = chosen(file);
            file.write_at(at % (len + 1), &bytes).unwrap();
        }
        Damage::Copy(file, from, to, bytes) => {
            let (_, file, len) = chosen(file);
            let start = from % (len + 1);
            let mut part = vec![0; usize::try_from(bytes.min(len - start)).unwrap()];
            file.read_at(start, &mut part).unwrap();
            file.write_at(to % (len + 1), &part).unwrap();
        }
        Damage::Remove(file) => disk.remove(&chosen(file).0).unwrap(),
        Damage::Rename(file, name) => disk.rename(&chosen(file).0, &name).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Promise: whatever became of the files, looking at them ends, and nothing panics; what is clean is as it was.
    #[test]
    fn any_damage_is_survived(is_closed in any::<bool>(), damages in vec(damage(), 1..6)) {
        let disk = store(if is_closed { End::Closed } else { End::Killed });
        let (before, _) = export(&disk, Source::State);
        damages.into_iter().for_each(|damage| apply(&disk, damage));
        let looked = offline(&disk);
        let mut findings = 0;
        let summary = looked.verify(&mut |event| {
            findings += u64::from(matches!(event, Event::Finding(_)));
            Ok(())
        });
        drop(looked.inspect());
        for number in 0..20 {
            looked.records(Looked::Segment(number), &mut |_| Ok(())).unwrap();
        }
        drop(looked.export(Source::Log, &Wanted::default(), &mut |_| Ok(())));
        if summary.is_ok() && findings == 0 {
            let after = export(&disk, Source::State).0;
            let lost_its_end = || !is_closed && without_its_end().any(|earlier| earlier == after);
            prop_assert!(after == before || lost_its_end(), "{:?}\n{:?}", after, before);
        }
    }
}

/// What a store that was killed has when records are gone from the end of its log without a trace, one after the other: a crash
/// leaves the same of records that were never confirmed, so that nothing tells.
fn without_its_end() -> impl Iterator<Item = Vec<Exported>> {
    let disk = store(End::Killed);
    let mut starts = Vec::new();
    for segment in offline(&disk).inspect().unwrap().segments {
        let mut note = |record: RecordView| {
            starts.push((record.file, u64::from(record.offset)));
            Ok(())
        };
        offline(&disk).records(Looked::Segment(segment.number), &mut note).unwrap();
    }
    starts.sort();
    starts.into_iter().rev().map(|(last, start)| {
        let disk = store(End::Killed);
        let is_later = |name: &String| number_of(name).is_some() && *name > last;
        let later = disk.list().unwrap().into_iter().filter(is_later);
        later.for_each(|name| disk.remove(&name).unwrap());
        if start == 0 {
            disk.remove(&last).unwrap();
        } else {
            disk.open(&last).unwrap().set_len(start).unwrap();
        }
        export(&disk, Source::State).0
    })
}
