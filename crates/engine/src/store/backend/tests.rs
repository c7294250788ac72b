use redb::{Database, ReadableDatabase, TableDefinition};

use super::*;
use crate::store::disk::{Disk, Folder};

const NUMBERS: TableDefinition<u64, &[u8]> = TableDefinition::new("numbers");

fn open(file: Arc<dyn DiskFile>) -> Database {
    Database::builder().create_with_backend(Backend::new(file)).unwrap()
}

/// Promise: a database in a file of the disk is there when the file is opened again, whatever its size.
#[test]
fn database_is_reopened_with_its_content() {
    let above = tempfile::tempdir().unwrap();
    let folder = Folder::open(above.path()).unwrap();
    let database = open(folder.create("state").unwrap());
    let value = vec![1; 100_000];
    let write = database.begin_write().unwrap();
    write.open_table(NUMBERS).unwrap().insert(7, value.as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let database = open(folder.open("state").unwrap());
    let table = database.begin_read().unwrap().open_table(NUMBERS).unwrap();
    assert_eq!(table.get(7).unwrap().unwrap().value(), value);
}

/// A file that counts its syncs, and the most that was written between two of them.
#[derive(Debug, Default)]
struct Counted {
    unsynced: AtomicU64,
    most: AtomicU64,
}

impl DiskFile for Counted {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _: u64, bytes: &[u8]) -> io::Result<()> {
        let unsynced = self.unsynced.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        self.most.fetch_max(unsynced, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// What a checkpoint writes is synced in portions, so that the log's syncs come in between.
#[test]
fn much_is_synced_in_portions() {
    let file = Arc::<Counted>::default();
    let backend = Backend::new(Arc::<Counted>::clone(&file));
    (0..1000).for_each(|page| redb::StorageBackend::write(&backend, page * 4096, &[0; 4096]).unwrap());
    assert_eq!(file.most.load(Ordering::Relaxed), PORTION_BYTES);
}
