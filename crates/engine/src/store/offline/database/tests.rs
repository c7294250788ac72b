//! What this reads is what redb wrote, and what it does not read is damaged.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::*;
use crate::store::backend::Backend;
use crate::store::disk::Disk;
use crate::store::tests::MemoryDisk;

const NUMBERS: TableDefinition<u64, &[u8]> = TableDefinition::new("numbers");
const PAIRS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("pairs");
const TEXTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("texts");

type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Tables of the three kinds that a store has, filled and half emptied in several commits, as redb has them in the end.
fn written() -> (Arc<dyn DiskFile>, Rows) {
    let disk = MemoryDisk::default();
    let file = disk.create("file").unwrap();
    let database = redb::Database::builder().create_with_backend(Backend::new(Arc::clone(&file))).unwrap();
    for round in 0..3u64 {
        let mut write = database.begin_write().unwrap();
        write.set_quick_repair(true);
        let (mut numbers, mut pairs) = (write.open_table(NUMBERS).unwrap(), write.open_table(PAIRS).unwrap());
        let mut texts = write.open_table(TEXTS).unwrap();
        for n in 0..80u64 {
            let value = vec![u8::try_from(n % 251).unwrap(); usize::try_from(n * 37 % 500).unwrap()];
            numbers.insert(round * 80 + n, value.as_slice()).unwrap();
            pairs.insert((n, u32::try_from(round).unwrap()), value.as_slice()).unwrap();
            texts.insert(format!("{n}-{round}").as_bytes(), value.as_slice()).unwrap();
            numbers.remove(round * 40 + n / 2).unwrap();
        }
        numbers.insert(u64::MAX - round, vec![7; 20_000].as_slice()).unwrap();
        drop((numbers, pairs, texts));
        write.commit().unwrap();
    }
    let read = database.begin_read().unwrap();
    let mut rows = Rows::new();
    for row in read.open_table(NUMBERS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(("numbers".into(), key.value().to_le_bytes().to_vec()), value.value().to_vec());
    }
    for row in read.open_table(PAIRS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        let (one, other) = key.value();
        let key = [&one.to_le_bytes()[..], &other.to_le_bytes()].concat();
        rows.insert(("pairs".into(), key), value.value().to_vec());
    }
    for row in read.open_table(TEXTS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(("texts".into(), key.value().to_vec()), value.value().to_vec());
    }
    drop(read);
    drop(database);
    (file, rows)
}

/// All rows, all that is in use, and all damage.
fn read(file: &Arc<dyn DiskFile>) -> Result<(Rows, Vec<Range<u64>>, usize), &'static str> {
    let database = Database::open(Arc::clone(file)).unwrap()?;
    let (tables, mut steps) = database.tables().unwrap();
    let mut rows = Rows::new();
    for table in &tables {
        for step in database.walk(table).map(Result::unwrap) {
            if let (Step::Leaf(leaf), false) = (&step, table.is_internal) {
                let of = |(key, value): (&[u8], &[u8])| ((table.name.clone(), key.to_vec()), value.to_vec());
                rows.extend(leaf.rows().map(of));
            }
            steps.push(step);
        }
    }
    let mut damage = database.suspicions().len();
    let mut used = Vec::new();
    for step in steps {
        match step {
            Step::Branch(extent) => used.push(extent),
            Step::Leaf(leaf) => used.push(leaf.used()),
            Step::Bad(_) => damage += 1,
        }
    }
    Ok((rows, used, damage))
}

/// Promise: every row that redb has is found, by going through and by its key, and nothing is taken for damage.
#[test]
fn rows_are_those_of_redb() {
    let (file, expected) = written();
    let (rows, _, damage) = read(&file).unwrap();
    assert_eq!(damage, 0);
    assert!(rows == expected, "{} rows of {}", rows.len(), expected.len());

    let database = Database::open(Arc::clone(&file)).unwrap().ok().unwrap();
    let tables = database.tables().unwrap().0;
    let table = tables.iter().find(|table| table.name == "numbers").unwrap();
    let number = |key: &[u8]| u64::from_le_bytes(key.try_into().unwrap());
    for wanted in (0..250).chain(u64::MAX - 8..=u64::MAX) {
        let found = database.get(table, |key| wanted.cmp(&number(key))).unwrap().unwrap();
        assert_eq!(
            found.as_ref(),
            expected.get(&("numbers".into(), wanted.to_le_bytes().to_vec())),
            "{wanted}"
        );
    }
}

/// Promise: no changed bit is believed. One in a page that is in use costs this page and what is below it, and is found;
/// the rows that are left are as they were.
#[test]
fn flipped_bits_in_use_are_found_and_nothing_wrong_is_read() {
    let (file, expected) = written();
    let (_, used, _) = read(&file).unwrap();
    let mut flips = 0;
    for extent in used {
        for at in [extent.start, extent.start + 2, extent.start + 9, extent.end - 1] {
            let mut byte = [0];
            file.read_at(at, &mut byte).unwrap();
            file.write_at(at, &[byte[0] ^ 1 << (at % 8)]).unwrap();
            let (rows, _, damage) = read(&file).unwrap();
            assert!(damage > 0, "byte {at}");
            assert!(rows.iter().all(|(key, value)| expected.get(key) == Some(value)), "byte {at}");
            file.write_at(at, &byte).unwrap();
            flips += 1;
        }
    }
    assert!(flips > 100, "{flips}");
}

/// Promise: whatever is in the header, it is read or refused, and nothing panics.
#[test]
fn flipped_bits_of_the_header_do_no_harm() {
    let (file, expected) = written();
    for bit in (0..HEADER_BYTES * 8).step_by(3) {
        let (at, mut byte) = ((bit / 8) as u64, [0]);
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
        let is_found = read(&file).is_ok_and(|(rows, _, damage)| damage == 0 && rows != expected);
        assert!(!is_found, "bit {bit}: other rows, and no damage");
        file.write_at(at, &byte).unwrap();
    }
}
