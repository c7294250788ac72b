//! The state as of the last checkpoint, in one redb file.
//!
//! `docs/storage-format.md` has the tables byte by byte. Everything stored carries a CRC32C, since redb does not verify
//! what it reads.

use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::Backend;
use super::disk::{Disk, DiskFile};
use super::encoding::Writer;
use super::on_disk::Checkpoint;
use super::record::Position;
use super::suspect::{self, Watched};
use super::{Entropy, Loaded, Meta, QueueState, StoreError, codec};
use crate::dense::{Page, PageNo};
use crate::memory::{FrozenMemory, Memorized, MemoryKey};
use crate::message::{Location, QueueId};

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const QUEUES: TableDefinition<u32, &[u8]> = TableDefinition::new("queues");
pub(super) const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
const DELIVERIES: TableDefinition<u64, &[u8]> = TableDefinition::new("deliveries");
/// By segment and offset.
const PAYLOADS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("payloads");
pub(super) const MEMORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("memory");

/// The rows of META: what the engine counts, and how far the log is applied.
pub(super) const SHARD: &str = "shard";
const APPLIED: &str = "applied";
/// Page cache of redb. What a checkpoint touches fits; a pod of 128 MiB still does.
const CACHE_BYTES: usize = 32 << 20;
pub(super) const FILE: &str = "state.redb";
const UNFINISHED: &str = "state.new";

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) database: Database,
}

impl Tables {
    /// Opens the file, or makes it.
    pub(super) fn open(disk: &Arc<dyn Disk>, entropy: Entropy) -> Result<Self, StoreError> {
        suspect::renew(&**disk, FILE, UNFINISHED).map_err(StoreError::Files)?;
        let names = disk.list().map_err(StoreError::Files)?;
        if !names.iter().any(|name| name == FILE) {
            create(&**disk, &names, entropy)?;
        }
        let file = disk.open(FILE).map_err(StoreError::Files)?;
        let file = Arc::new(Watched { file, disk: Arc::clone(disk) });
        let database = builder().create_with_backend(Backend(file)).map_err(StoreError::OpenState)?;
        Ok(Self { database })
    }

    /// How far the log is applied to what [`Tables::load`] reads.
    pub(super) fn applied(&self) -> Result<Position, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        read_meta(&read)?;
        let table = read.open_table(META).map_err(read_error)?;
        let applied = table.get(APPLIED).map_err(read_error)?;
        applied
            .and_then(|value| codec::decode_position(value.value()))
            .ok_or_else(|| corrupt("meta", APPLIED))
    }

    /// All of it.
    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        Ok(Loaded {
            meta: read_meta(&read)?,
            queues: scan(&read, QUEUES, "queue", |key, value| {
                Some((QueueId(key), codec::decode_queue(value)?))
            })?,
            rows: scan(&read, MESSAGES, "messages, page", |no, value| {
                Some((no, codec::decode_page(value, codec::read_row)?))
            })?,
            deliveries: scan(&read, DELIVERIES, "deliveries, page", |no, value| {
                Some((no, codec::decode_page(value, codec::read_ended)?))
            })?,
            memory: scan_memory(&read)?,
        })
    }

    /// The segments that payloads were moved from, and not all of these are gone.
    pub(super) fn moved(&self) -> Result<Vec<u64>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let table = read.open_table(PAYLOADS).map_err(read_error)?;
        let mut moved = Vec::new();
        let mut from = 0;
        while let Some(first) = table.range((from, 0)..).map_err(read_error)?.next() {
            let segment = first.map_err(read_error)?.0.value().0;
            moved.push(segment);
            from = segment + 1;
        }
        Ok(moved)
    }

    /// The bytes of a moved payload.
    pub(super) fn payload(&self, location: Location) -> Result<Option<Bytes>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let table = read.open_table(PAYLOADS).map_err(read_error)?;
        let bytes = table.get((location.segment, location.offset)).map_err(read_error)?;
        Ok(bytes.map(|bytes| Bytes::copy_from_slice(bytes.value())))
    }

    /// Writes all of it or nothing, and returns when it is durable.
    pub(super) fn write(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let Checkpoint { changes, applied, moves, dropped } = checkpoint;
        let mut write = self.database.begin_write().map_err(checkpoint_error)?;
        write.set_durability(Durability::Immediate).map_err(checkpoint_error)?;
        // Without it, opening after a crash reads the whole file; it costs one more write.
        write.set_quick_repair(true);
        write_meta(&write, &changes.meta, *applied).map_err(StoreError::Checkpoint)?;
        write_queues(&write, &changes.queues).map_err(StoreError::Checkpoint)?;
        let FrozenMemory { deliveries, texts } = &changes.memory;
        write_pages(&write, MESSAGES, &changes.rows, codec::write_row).map_err(StoreError::Checkpoint)?;
        write_pages(&write, DELIVERIES, deliveries, codec::write_ended).map_err(StoreError::Checkpoint)?;
        write_memory(&write, texts).map_err(StoreError::Checkpoint)?;
        for (file, locations) in moves {
            move_payloads(&write, &**file, locations)?;
        }
        drop_payloads(&write, dropped).map_err(StoreError::Checkpoint)?;
        write.commit().map_err(checkpoint_error)
    }
}

/// As they lie there: a damaged one is found out when it is delivered.
fn move_payloads(
    write: &redb::WriteTransaction,
    file: &dyn DiskFile,
    locations: &[Location],
) -> Result<(), StoreError> {
    let mut table = write.open_table(PAYLOADS).map_err(checkpoint_error)?;
    let mut bytes = Vec::new();
    for Location { segment, offset, len, .. } in locations {
        bytes.resize(*len as usize, 0);
        file.read_at((*offset).into(), &mut bytes).map_err(StoreError::ReadLog)?;
        table.insert((*segment, *offset), bytes.as_slice()).map_err(checkpoint_error)?;
    }
    Ok(())
}

fn drop_payloads(write: &redb::WriteTransaction, dropped: &[Location]) -> Result<(), redb::Error> {
    let mut table = write.open_table(PAYLOADS)?;
    for location in dropped {
        table.remove((location.segment, location.offset))?;
    }
    Ok(())
}

/// Length of the file.
pub(super) fn bytes(disk: &dyn Disk) -> u64 {
    disk.open(FILE).and_then(|file| file.len()).unwrap_or(0)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the file under another name first: a crash between redb's first two syncs leaves a file that never opens.
fn create(disk: &dyn Disk, names: &[String], entropy: Entropy) -> Result<(), StoreError> {
    if names.iter().any(|name| name == UNFINISHED) {
        disk.remove(UNFINISHED).map_err(StoreError::Files)?;
    }
    let file = disk.create(UNFINISHED).map_err(StoreError::Files)?;
    let database = builder().create_with_backend(Backend(file)).map_err(StoreError::OpenState)?;
    initialise(&database, entropy)?;
    // Not dropped: that would hide a sync that failed, and then what is read of the file may not be on the disk.
    database.close().map_err(StoreError::OpenState)?;
    disk.rename(UNFINISHED, FILE).map_err(StoreError::Files)?;
    disk.sync_folder().map_err(StoreError::Files)
}

fn initialise(database: &Database, entropy: Entropy) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(checkpoint_error)?;
    write_meta(&write, &Meta::new(entropy), Position::first(&entropy.receipt_key))
        .map_err(StoreError::Checkpoint)?;
    // Opened once, so that reading never meets a missing table.
    write.open_table(QUEUES).map_err(checkpoint_error)?;
    write.open_table(MESSAGES).map_err(checkpoint_error)?;
    write.open_table(DELIVERIES).map_err(checkpoint_error)?;
    write.open_table(MEMORY).map_err(checkpoint_error)?;
    write.open_table(PAYLOADS).map_err(checkpoint_error)?;
    write.commit().map_err(checkpoint_error)
}

fn read_meta(read: &redb::ReadTransaction) -> Result<Meta, StoreError> {
    let table = read.open_table(META).map_err(read_error)?;
    let value = table.get(SHARD).map_err(read_error)?;
    let value = value.as_ref().map(redb::AccessGuard::value);
    match value.and_then(codec::format_of) {
        Some(found) if found != codec::FORMAT => Err(StoreError::Format { found, supported: codec::FORMAT }),
        _ => value.and_then(codec::decode_meta).ok_or_else(|| corrupt("meta", SHARD)),
    }
}

fn write_meta(write: &redb::WriteTransaction, meta: &Meta, applied: Position) -> Result<(), redb::Error> {
    let mut table = write.open_table(META)?;
    table.insert(SHARD, codec::encode_meta(meta).as_slice())?;
    table.insert(APPLIED, codec::encode_position(&applied).as_slice())?;
    Ok(())
}

fn write_queues(
    write: &redb::WriteTransaction,
    queues: &[(QueueId, Option<QueueState>)],
) -> Result<(), redb::Error> {
    let mut table = write.open_table(QUEUES)?;
    for (id, queue) in queues {
        match queue {
            Some(queue) => _ = table.insert(id.0, codec::encode_queue(queue).as_slice())?,
            None => _ = table.remove(id.0)?,
        }
    }
    Ok(())
}

fn write_pages<V>(
    write: &redb::WriteTransaction,
    table: TableDefinition<u64, &[u8]>,
    pages: &[(PageNo, Option<Arc<Page<V>>>)],
    value: impl Fn(&mut Writer, &V),
) -> Result<(), redb::Error> {
    let mut table = write.open_table(table)?;
    for (no, page) in pages {
        match page {
            Some(page) => _ = table.insert(no, codec::encode_page(page, &value).as_slice())?,
            None => _ = table.remove(no)?,
        }
    }
    Ok(())
}

fn write_memory(
    write: &redb::WriteTransaction,
    memory: &[(MemoryKey, Option<Memorized>)],
) -> Result<(), redb::Error> {
    let mut table = write.open_table(MEMORY)?;
    for (key, entry) in memory {
        let key = codec::encode_memory_key(key);
        match entry {
            Some(entry) => _ = table.insert(key.as_slice(), codec::encode_memorized(entry).as_slice())?,
            None => _ = table.remove(key.as_slice())?,
        }
    }
    Ok(())
}

fn scan<K, T>(
    read: &redb::ReadTransaction,
    table: TableDefinition<K, &[u8]>,
    what: &'static str,
    decode: impl Fn(K, &[u8]) -> Option<T>,
) -> Result<Vec<T>, StoreError>
where
    K: redb::Key + for<'a> redb::Value<SelfType<'a> = K> + Copy + ToString + 'static,
{
    let table = read.open_table(table).map_err(read_error)?;
    let mut found = Vec::new();
    for entry in table.iter().map_err(read_error)? {
        let (key, value) = entry.map_err(read_error)?;
        let key = key.value();
        found.push(decode(key, value.value()).ok_or_else(|| corrupt(what, key.to_string()))?);
    }
    Ok(found)
}

fn scan_memory(read: &redb::ReadTransaction) -> Result<Vec<(MemoryKey, Memorized)>, StoreError> {
    let table = read.open_table(MEMORY).map_err(read_error)?;
    let mut found = Vec::new();
    for entry in table.iter().map_err(read_error)? {
        let (key, value) = entry.map_err(read_error)?;
        let decoded = codec::decode_memory_key(key.value()).zip(codec::decode_memorized(value.value()));
        found.push(decoded.ok_or_else(|| corrupt("memory", format!("{:x?}", key.value())))?);
    }
    Ok(found)
}

fn corrupt(what: &'static str, key: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what, key: key.into() }
}

fn read_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Read(source.into())
}

fn checkpoint_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Checkpoint(source.into())
}
