//! The state as of the last checkpoint, in one redb file.
//!
//! `docs/storage-format.md` has the tables byte by byte. Everything stored carries a CRC32C, since redb does not verify
//! what it reads.

mod aside;
mod sound;

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::backend::Backend;
use super::disk::{Disk, DiskFile};
use super::encoding::Writer;
use super::log::Source;
use super::on_disk::Checkpoint;
use super::record::Position;
use super::suspect;
use super::{Entropy, Loaded, Meta, QueueState, StoreError, codec};
use crate::dense::{Fetch, Page, PageNo, page_of};
use crate::memory::{FrozenMemory, Memorized, MemoryKey};
use crate::message::{Location, QueueId, Row, Seq};
use crate::messages::Summary;
pub(super) use aside::DAMAGED;
use sound::{Check, Guarded};

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const QUEUES: TableDefinition<u32, &[u8]> = TableDefinition::new("queues");
pub(super) const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
/// What is in each page of messages.
pub(super) const INDEX: TableDefinition<u64, &[u8]> = TableDefinition::new("index");
pub(super) const DELIVERIES: TableDefinition<u64, &[u8]> = TableDefinition::new("deliveries");
/// By segment and offset.
pub(super) const PAYLOADS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("payloads");
pub(super) const MEMORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("memory");

/// The rows of META: what the engine counts, and how far the log is applied.
pub(super) const SHARD: &str = "shard";
pub(super) const APPLIED: &str = "applied";
/// Page cache of redb. What a checkpoint touches fits; a pod of 128 MiB still does.
const CACHE_BYTES: usize = 32 << 20;
pub(super) const FILE: &str = "state.redb";
const UNFINISHED: &str = "state.new";
/// All that redb opens.
pub(super) const FILES: [&str; 3] = [FILE, UNFINISHED, sound::KEPT];
/// How its files begin.
const MAGIC: [u8; 4] = *b"redb";
/// What is called corrupt when a page of messages is.
pub(super) const PAGE: &str = "messages, page";

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) database: Guarded,
    disk: Arc<dyn Disk>,
}

impl Tables {
    /// Opens the file, or makes it.
    pub(super) fn open(disk: &Arc<dyn Disk>, entropy: Entropy) -> Result<Self, StoreError> {
        let was_suspect = suspect::renew(&**disk, FILE, UNFINISHED).map_err(StoreError::Files)?;
        let names = disk.list().map_err(StoreError::Files)?;
        if !names.iter().any(|name| name == FILE) {
            create(&**disk, &names, entropy)?;
        }
        let check = if was_suspect { Check::All } else { Check::Small };
        Ok(Self { database: sound::open(disk, check)?, disk: Arc::clone(disk) })
    }

    /// What redb cannot make sense of is an error, and the next opening looks into it.
    pub(super) fn guarded<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        sound::guarded(&*self.disk, read)
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

    /// The rows of a page of messages.
    pub(super) fn rows(&self, no: PageNo) -> Result<Arc<Page<Row>>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let table = read.open_table(MESSAGES).map_err(read_error)?;
        let bytes = table.get(no).map_err(read_error)?;
        let page = bytes.and_then(|bytes| codec::decode_page(bytes.value(), codec::read_row));
        page.ok_or_else(|| corrupt(PAGE, no.to_string()))
    }

    /// All but the rows. What makes no sense is set aside, where the rest can do without it.
    pub(super) fn load(&self, fetch: Fetch<Row>) -> Result<Loaded, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let deliveries =
            scan(&read, DELIVERIES, |no, value| Some((no, codec::decode_page(value, codec::read_ended)?)))?;
        let memory = scan_memory(&read)?;
        self.set_aside(DELIVERIES, &deliveries.damaged)?;
        self.set_aside(MEMORY, &memory.damaged.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(Loaded {
            meta: read_meta(&read)?,
            queues: load_queues(&read)?,
            rows: self.load_index()?,
            fetch,
            deliveries: deliveries.sound,
            memory: memory.sound,
        })
    }

    fn load_index(&self) -> Result<Vec<(PageNo, Summary)>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let index = summaries(&read)?;
        let pages = read.open_table(MESSAGES).map_err(read_error)?.len().map_err(read_error)?;
        if index.damaged.is_empty() && index.sound.len() as u64 == pages {
            return Ok(index.sound);
        }
        self.mend_index()?;
        let read = self.database.begin_read().map_err(read_error)?;
        Ok(summaries(&read)?.sound)
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
        let Checkpoint { changes, applied, files, dropped } = checkpoint;
        let mut write = self.database.begin_write().map_err(checkpoint_error)?;
        write.set_durability(Durability::Immediate).map_err(checkpoint_error)?;
        // Without it, opening after a crash reads the whole file; it costs one more write.
        write.set_quick_repair(true);
        write_meta(&write, &changes.meta, *applied).map_err(StoreError::Checkpoint)?;
        write_queues(&write, &changes.queues).map_err(StoreError::Checkpoint)?;
        let FrozenMemory { deliveries, texts } = &changes.memory;
        write_pages(&write, MESSAGES, &changes.rows, codec::write_row).map_err(StoreError::Checkpoint)?;
        write_index(&write, &changes.rows).map_err(StoreError::Checkpoint)?;
        write_pages(&write, DELIVERIES, deliveries, codec::write_ended).map_err(StoreError::Checkpoint)?;
        write_memory(&write, texts).map_err(StoreError::Checkpoint)?;
        for ((segment, seqs), file) in changes.sparse.iter().zip(files) {
            let locations = payloads_in(&write, *segment, seqs).map_err(StoreError::Checkpoint)?;
            move_payloads(&write, file, &locations)?;
        }
        drop_payloads(&write, dropped).map_err(StoreError::Checkpoint)?;
        write.commit().map_err(checkpoint_error)
    }
}

/// The payloads of this segment that messages of the range have. Of a page that makes no sense it has none: whoever needs
/// that page finds out.
fn payloads_in(
    write: &redb::WriteTransaction,
    segment: u64,
    seqs: &RangeInclusive<Seq>,
) -> Result<Vec<Location>, redb::Error> {
    let pages = page_of(*seqs.start())..=page_of(*seqs.end());
    let table = write.open_table(MESSAGES)?;
    let mut found = Vec::new();
    for entry in table.range(pages)? {
        let page = codec::decode_page(entry?.1.value(), codec::read_row);
        let locations = page.iter().flat_map(|page| page.iter()).map(|(_, row)| row.location);
        found.extend(locations.filter(|location| location.segment == segment));
    }
    Ok(found)
}

/// As they lie there, or nothing of what cannot be opened: a damaged one is found out when it is delivered.
fn move_payloads(
    write: &redb::WriteTransaction,
    from: &Source,
    locations: &[Location],
) -> Result<(), StoreError> {
    let mut table = write.open_table(PAYLOADS).map_err(checkpoint_error)?;
    for location in locations {
        let bytes = from.read(*location).map_err(StoreError::ReadLog)?.unwrap_or_default();
        table.insert((location.segment, location.offset), &*bytes).map_err(checkpoint_error)?;
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

/// Whether the file is one of redb, in clear.
pub(super) fn begins_as_redb(file: &dyn DiskFile) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    if file.len()? < MAGIC.len() as u64 {
        return Ok(false);
    }
    file.read_at(0, &mut magic)?;
    Ok(magic == MAGIC)
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
    let database = builder().create_with_backend(Backend::new(file)).map_err(StoreError::OpenState)?;
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
    write.open_table(INDEX).map_err(checkpoint_error)?;
    write.open_table(DELIVERIES).map_err(checkpoint_error)?;
    write.open_table(MEMORY).map_err(checkpoint_error)?;
    write.open_table(PAYLOADS).map_err(checkpoint_error)?;
    write.open_table(DAMAGED).map_err(checkpoint_error)?;
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

fn write_index(
    write: &redb::WriteTransaction,
    pages: &[(PageNo, Option<Arc<Page<Row>>>)],
) -> Result<(), redb::Error> {
    let mut table = write.open_table(INDEX)?;
    for (no, page) in pages {
        match page {
            Some(page) => _ = table.insert(no, codec::encode_summary(&Summary::of(page)).as_slice())?,
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

/// Rows of a table: what was read, and the keys of those that make no sense.
struct Scanned<T, K> {
    sound: Vec<T>,
    damaged: Vec<K>,
}

fn scan<K, T>(
    read: &redb::ReadTransaction,
    table: TableDefinition<K, &[u8]>,
    decode: impl Fn(K, &[u8]) -> Option<T>,
) -> Result<Scanned<T, K>, StoreError>
where
    K: redb::Key + for<'a> redb::Value<SelfType<'a> = K> + Copy + 'static,
{
    let table = read.open_table(table).map_err(read_error)?;
    let mut scanned = Scanned { sound: Vec::new(), damaged: Vec::new() };
    for entry in table.iter().map_err(read_error)? {
        let (key, value) = entry.map_err(read_error)?;
        match decode(key.value(), value.value()) {
            Some(row) => scanned.sound.push(row),
            None => scanned.damaged.push(key.value()),
        }
    }
    Ok(scanned)
}

fn summaries(read: &redb::ReadTransaction) -> Result<Scanned<(PageNo, Summary), PageNo>, StoreError> {
    scan(read, INDEX, |no, value| Some((no, codec::decode_summary(value)?)))
}

fn scan_memory(read: &redb::ReadTransaction) -> Result<Scanned<(MemoryKey, Memorized), Vec<u8>>, StoreError> {
    let table = read.open_table(MEMORY).map_err(read_error)?;
    let mut scanned = Scanned { sound: Vec::new(), damaged: Vec::new() };
    for entry in table.iter().map_err(read_error)? {
        let (key, value) = entry.map_err(read_error)?;
        match codec::decode_memory_key(key.value()).zip(codec::decode_memorized(value.value())) {
            Some(entry) => scanned.sound.push(entry),
            None => scanned.damaged.push(key.value().to_vec()),
        }
    }
    Ok(scanned)
}

/// Nothing can be decided without the settings of a queue.
fn load_queues(read: &redb::ReadTransaction) -> Result<Vec<(QueueId, QueueState)>, StoreError> {
    let queues = scan(read, QUEUES, |key, value| Some((QueueId(key), codec::decode_queue(value)?)))?;
    match queues.damaged.first() {
        Some(key) => Err(corrupt("queue", key.to_string())),
        None => Ok(queues.sound),
    }
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
