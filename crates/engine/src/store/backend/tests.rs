use redb::{Database, ReadableDatabase, TableDefinition};

use super::*;
use crate::store::disk::{Disk, Folder};

const NUMBERS: TableDefinition<u64, &[u8]> = TableDefinition::new("numbers");

fn open(file: Arc<dyn DiskFile>) -> Database {
    Database::builder().create_with_backend(Backend(file)).unwrap()
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
