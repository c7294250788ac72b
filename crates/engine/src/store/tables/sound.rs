//! Whether the file makes sense to redb, and what is done when it does not.
//!
//! redb believes what it reads: of a page that was damaged it may panic, or lose what lies below, and when it writes it may
//! abort. So a file that is not too large is checked whenever it is opened, and a larger one after redb has stumbled over it.
//! Of one that fails, whatever rows can be read are copied into a new file, from both ends of each table; that these are their
//! own rows, their checksums tell. The old one is kept as `state.damaged`.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use redb::{
    Database, DatabaseError, Key, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition, WriteTransaction,
};

use super::aside::{self, DAMAGED};
use super::{
    Backend, DELIVERIES, FILE, INDEX, MEMORY, MESSAGES, META, PAYLOADS, QUEUES, UNFINISHED, builder,
    checkpoint_error, corrupt,
};
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::suspect::{self, Watched};

/// Checking takes twice as long as reading: of so much, half a second on a slow disk.
const CHECKED_BYTES: u64 = 64 << 20;
pub(super) const KEPT: &str = "state.damaged";

/// Which files are looked through before they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Those that are not too large.
    Small,
    /// Any.
    All,
}

/// Opens the file; one that makes no sense is made anew from what can be read of it.
pub(super) fn open(disk: &Arc<dyn Disk>, check: Check) -> Result<Guarded, StoreError> {
    let len = super::bytes(&**disk);
    if check == Check::Small && len > CHECKED_BYTES {
        return guarded(&**disk, || open_file(disk, &builder()));
    }
    let mut checking = builder();
    checking.set_check_integrity_on_open(true);
    let opened = guarded(&**disk, || open_file(disk, &checking));
    match opened {
        Err(
            StoreError::OpenState(DatabaseError::Storage(StorageError::Corrupted(_)))
            | StoreError::Corrupt { .. },
        ) => {
            make_anew(disk)?;
            guarded(&**disk, || open_file(disk, &builder()))
        }
        opened => opened,
    }
}

fn open_file(disk: &Arc<dyn Disk>, builder: &redb::Builder) -> Result<Guarded, StoreError> {
    let file = disk.open(FILE).map_err(StoreError::Files)?;
    let file = Arc::new(Watched { file, disk: Arc::clone(disk) });
    builder
        .create_with_backend(Backend::new(file))
        .map(|database| Guarded(Some(database)))
        .map_err(StoreError::OpenState)
}

/// What redb cannot make sense of is an error, and the next opening looks into it.
pub(super) fn guarded<T>(
    disk: &dyn Disk,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let ended = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => return result,
        Err(ended) => ended,
    };
    // Not all that unwinds is a panic.
    if ended.is::<StoreError>() {
        resume_unwind(ended);
    }
    suspect::mark(disk);
    Err(corrupt("the file", FILE))
}

/// A database that takes nobody with it when it cannot be closed.
#[derive(Debug)]
pub(in crate::store) struct Guarded(Option<Database>);

const OPEN: &str = "it is open until it is dropped";

impl Deref for Guarded {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect(OPEN)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let database = self.0.take();
        // What could not be written is missing when it is opened, which finds out.
        _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// Copies what can be read. redb reads a copy of the old file, which it may write to.
fn make_anew(disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
    let names = disk.list().map_err(StoreError::Files)?;
    for name in [UNFINISHED, KEPT].into_iter().filter(|name| names.iter().any(|there| there == name)) {
        disk.remove(name).map_err(StoreError::Files)?;
    }
    let copy = disk.create(KEPT).map_err(StoreError::Files)?;
    let file = disk.open(FILE).map_err(StoreError::Files)?;
    suspect::copy(&*file, &*copy).map_err(StoreError::Files)?;
    let old = guarded(&**disk, || {
        let opened = builder().create_with_backend(Backend::new(copy)).map_err(StoreError::OpenState)?;
        Ok(Guarded(Some(opened)))
    })?;
    let new = disk.create(UNFINISHED).map_err(StoreError::Files)?;
    let new = builder().create_with_backend(Backend::new(new)).map_err(StoreError::OpenState)?;
    copy_all(disk, &old, &new)?;
    new.close().map_err(StoreError::OpenState)?;
    disk.rename(UNFINISHED, FILE).map_err(StoreError::Files)?;
    disk.sync_folder().map_err(StoreError::Files)
}

fn copy_all(disk: &Arc<dyn Disk>, old: &Database, new: &Database) -> Result<(), StoreError> {
    let read = guarded(&**disk, || old.begin_read().map_err(super::read_error))?;
    let write = new.begin_write().map_err(checkpoint_error)?;
    let done = (|| {
        // Without these nothing can be decided.
        if !copy_table(&read, &write, META)? || !copy_table(&read, &write, QUEUES)? {
            return Ok(false);
        }
        copy_table(&read, &write, MESSAGES)?;
        copy_table(&read, &write, INDEX)?;
        copy_table(&read, &write, DELIVERIES)?;
        copy_table(&read, &write, PAYLOADS)?;
        copy_table(&read, &write, MEMORY)?;
        copy_table(&read, &write, DAMAGED)?;
        write.open_table(DAMAGED)?.insert(aside::WHOLE_FILE, b"".as_slice())?;
        Ok(true)
    })();
    if !done.map_err(StoreError::Checkpoint)? {
        return Err(corrupt("the file", FILE));
    }
    write.commit().map_err(checkpoint_error)
}

/// From its beginning as far as can be read, and from its end. Says whether that was all.
fn copy_table<K: Key + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<K, &[u8]>,
) -> Result<bool, redb::Error> {
    let mut to = write.open_table(table)?;
    for is_reversed in [false, true] {
        let is_whole = catch_unwind(AssertUnwindSafe(|| copy_rows(read, &mut to, table, is_reversed)));
        match is_whole {
            Ok(Ok(())) => return Ok(!is_reversed),
            Ok(Err(redb::Error::Corrupted(_) | redb::Error::TableDoesNotExist(_))) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn copy_rows<K: Key + 'static>(
    read: &ReadTransaction,
    to: &mut Table<'_, K, &'static [u8]>,
    table: TableDefinition<K, &'static [u8]>,
    is_reversed: bool,
) -> Result<(), redb::Error> {
    let from = read.open_table(table)?;
    let mut rows = from.iter()?;
    while let Some(row) = if is_reversed { rows.next_back() } else { rows.next() } {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}
