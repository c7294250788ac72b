//! One redb file, written once per batch.
//!
//! `docs/storage-format.md` has the tables byte by byte. Everything stored carries a CRC32C, since redb does not verify
//! what it reads.

use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Changes, Entropy, Loaded, Meta, QueueRecord, StoreError, codec};
use crate::memory::{Memorized, MemoryKey};
use crate::message::{Payload, QueueId, Seq};

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const QUEUES: TableDefinition<u32, &[u8]> = TableDefinition::new("queues");
pub(super) const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
pub(super) const PAYLOADS: TableDefinition<u64, &[u8]> = TableDefinition::new("payloads");
pub(super) const MEMORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("memory");

/// The one row of META.
pub(super) const META_KEY: &str = "shard";
/// Page cache of redb. Enough for the working set of a backlog of millions; a pod of 128 MiB still fits.
const CACHE_BYTES: usize = 32 << 20;
pub(super) const FILE: &str = "state.redb";

/// The file of one shard.
pub(super) struct RedbFile {
    pub(super) database: Database,
    path: Option<PathBuf>,
}

impl RedbFile {
    pub(super) fn open(folder: &Path, entropy: Entropy) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::CreateDirectory(folder.into(), source))?;
        let path = folder.join(FILE);
        if !path.exists() {
            create(&path, entropy)?;
        }
        let database = builder().open(&path).map_err(|source| open_error(&path, source))?;
        Ok(Self { database, path: Some(path) })
    }

    pub(super) fn in_memory(entropy: Entropy) -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = builder()
            .create_with_backend(backend)
            .map_err(|source| open_error(Path::new("memory"), source))?;
        initialise(&database, entropy)?;
        Ok(Self { database, path: None })
    }

    pub(super) fn disk_used(&self) -> u64 {
        self.path.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |metadata| metadata.len())
    }

    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let meta = read.open_table(META).map_err(read_error)?;
        let meta = meta.get(META_KEY).map_err(read_error)?;
        let meta = read_meta(meta.as_ref().map(redb::AccessGuard::value))?;
        Ok(Loaded {
            meta,
            queues: scan(&read, QUEUES, "queue", |key, value| {
                Some((QueueId(key), codec::decode_queue(value)?))
            })?,
            rows: scan(&read, MESSAGES, "message", |key, value| Some((Seq(key), codec::decode_row(value)?)))?,
            memory: scan_memory(&read)?,
        })
    }

    pub(super) fn payload(&self, seq: Seq) -> Result<Option<Payload>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let table = read.open_table(PAYLOADS).map_err(read_error)?;
        let Some(value) = table.get(seq.0).map_err(read_error)? else { return Ok(None) };
        codec::decode_payload(value.value()).map(Some).ok_or_else(|| corrupt("payload", seq.0.to_string()))
    }

    pub(super) fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        let mut write = self.database.begin_write().map_err(commit_error)?;
        write.set_durability(Durability::Immediate).map_err(commit_error)?;
        // Without it, opening after a crash reads the whole file; it costs one more write per commit.
        write.set_quick_repair(true);
        write_meta(&write, &changes.meta).map_err(StoreError::Commit)?;
        write_queues(&write, &changes.queues).map_err(StoreError::Commit)?;
        write_rows(&write, changes).map_err(StoreError::Commit)?;
        write_memory(&write, &changes.memory).map_err(StoreError::Commit)?;
        write.commit().map_err(commit_error)
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the file under another name first: a crash between redb's first two syncs leaves a file that never opens.
fn create(path: &Path, entropy: Entropy) -> Result<(), StoreError> {
    let failed = |source| StoreError::Create(path.into(), source);
    let unfinished = path.with_extension("new");
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(failed)?;
    }
    let database = builder().create(&unfinished).map_err(|source| open_error(&unfinished, source))?;
    initialise(&database, entropy)?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(failed)?;
    let folder = path.parent().expect("the store lies in a folder");
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn initialise(database: &Database, entropy: Entropy) -> Result<(), StoreError> {
    let meta = Meta::new(entropy);
    let write = database.begin_write().map_err(commit_error)?;
    write_meta(&write, &meta).map_err(StoreError::Commit)?;
    // Opened once, so that reading never meets a missing table.
    write.open_table(QUEUES).map_err(commit_error)?;
    write.open_table(MESSAGES).map_err(commit_error)?;
    write.open_table(PAYLOADS).map_err(commit_error)?;
    write.open_table(MEMORY).map_err(commit_error)?;
    write.commit().map_err(commit_error)
}

fn read_meta(value: Option<&[u8]>) -> Result<Meta, StoreError> {
    match value.and_then(codec::format_of) {
        Some(found) if found != codec::FORMAT => Err(StoreError::Format { found, supported: codec::FORMAT }),
        _ => value.and_then(codec::decode_meta).ok_or_else(|| corrupt("meta", META_KEY)),
    }
}

fn write_meta(write: &redb::WriteTransaction, meta: &Meta) -> Result<(), redb::Error> {
    write.open_table(META)?.insert(META_KEY, codec::encode_meta(meta).as_slice())?;
    Ok(())
}

fn write_queues(
    write: &redb::WriteTransaction,
    queues: &[(QueueId, Option<&QueueRecord>)],
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

fn write_rows(write: &redb::WriteTransaction, changes: &Changes<'_>) -> Result<(), redb::Error> {
    let mut messages = write.open_table(MESSAGES)?;
    let mut payloads = write.open_table(PAYLOADS)?;
    for (seq, payload) in changes.payloads {
        payloads.insert(seq.0, codec::encode_payload(payload).as_slice())?;
    }
    for (seq, row) in &changes.rows {
        if let Some(row) = row {
            messages.insert(seq.0, codec::encode_row(row).as_slice())?;
        } else {
            messages.remove(seq.0)?;
            payloads.remove(seq.0)?;
        }
    }
    Ok(())
}

fn write_memory(
    write: &redb::WriteTransaction,
    memory: &[(&MemoryKey, Option<&Memorized>)],
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

fn commit_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Commit(source.into())
}

fn open_error(path: &Path, source: redb::DatabaseError) -> StoreError {
    match source {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.into()),
        source => StoreError::Open(path.into(), source),
    }
}
