//! What tests may do to a store that the engine may not, and what opening one promises.

use redb::ReadableTable;

use super::redb_file::{FILE, MESSAGES, META, META_KEY, PAYLOADS};
use super::*;

pub(crate) const ENTROPY: Entropy = Entropy { receipt_key: [7; 16], salt: 0x00ab_cdef };

impl Store {
    fn database(&self) -> &redb::Database {
        match &self.0 {
            Kind::File(file) => &file.database,
            Kind::Memory(_) => unreachable!("these tests are about what is written"),
        }
    }

    /// Flips a bit of a stored payload, as a failing disk would.
    pub(crate) fn damage_payload(&self, seq: Seq) {
        self.edit(|payloads| {
            let mut value = payloads.get(seq.0).unwrap().unwrap().value().to_vec();
            value[4] ^= 1;
            payloads.insert(seq.0, value.as_slice()).unwrap();
        });
    }

    /// Loses a stored payload.
    pub(crate) fn lose_payload(&self, seq: Seq) {
        self.edit(|payloads| _ = payloads.remove(seq.0).unwrap());
    }

    fn damage_row(&self, seq: Seq) {
        let write = self.database().begin_write().unwrap();
        write.open_table(MESSAGES).unwrap().insert(seq.0, b"not a row".as_slice()).unwrap();
        write.commit().unwrap();
    }

    fn edit(&self, edit: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
        let write = self.database().begin_write().unwrap();
        edit(&mut write.open_table(PAYLOADS).unwrap());
        write.commit().unwrap();
    }

    fn put_meta(&self, value: &[u8]) {
        let write = self.database().begin_write().unwrap();
        write.open_table(META).unwrap().insert(META_KEY, value).unwrap();
        write.commit().unwrap();
    }
}

/// Promise: a store of another format is named as such, not taken for a damaged one, and left as it is.
#[test]
fn store_of_another_format_is_refused_by_name() {
    let store = Store::in_memory(ENTROPY).unwrap();
    let mut meta = vec![codec::FORMAT + 1, 0, 0];
    meta.extend(crc32c::crc32c(&meta).to_le_bytes());
    store.put_meta(&meta);
    assert!(matches!(store.load(), Err(StoreError::Format { found: 3, supported: 2 })));
    store.put_meta(&[codec::FORMAT + 1, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(store.load(), Err(StoreError::Corrupt { what: "meta", .. })));
}

/// Promise: a row that cannot be trusted is named, and nothing is decided without it.
#[test]
fn damaged_row_keeps_the_store_from_opening() {
    let store = Store::in_memory(ENTROPY).unwrap();
    store.damage_row(Seq(7));
    let Err(error) = store.load() else { panic!("it was loaded") };
    assert_eq!(error.to_string(), "message 7 is corrupt in the store");
}

/// Promise: whatever a crash left of making the store, opening works.
#[test]
fn unfinished_store_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("state.new"), b"torn").unwrap();
    let store = Store::open(folder.path(), ENTROPY).unwrap();
    assert_eq!(store.load().unwrap().meta.next_seq, 1);
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
    assert!(store.disk_used() > 0);
}

/// Promise: two processes never write one store.
#[test]
fn store_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Store::open(folder.path(), ENTROPY).unwrap();
    assert!(matches!(Store::open(folder.path(), ENTROPY), Err(StoreError::InUse(_))));
}

/// Promise: the receipts' key is of the store, not of the process that opens it.
#[test]
fn secrets_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), ENTROPY).unwrap());
    let other = Entropy { receipt_key: [8; 16], salt: 1 };
    let meta = Store::open(folder.path(), other).unwrap().load().unwrap().meta;
    assert_eq!((meta.receipt_key, meta.salt), (ENTROPY.receipt_key, ENTROPY.salt));
}
