//! What outlives the process: everything that a batch changed, durable before anyone is told.
//!
//! The engine sees no more of it than the four functions of [`Store`]. Which kind it is makes no difference to what the
//! engine decides.

pub mod backend;
pub(crate) mod codec;
pub mod disk;
mod encoding;
mod memory;
#[cfg_attr(not(any(test, fuzzing)), expect(dead_code, reason = "the log is being built on it"))]
pub(crate) mod record;
mod redb_file;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

use crate::memory::{Memorized, MemoryKey};
use crate::message::{Payload, QueueId, Row, Seq};
use crate::settings::Settings;
use crate::time::Timestamp;
use memory::MemoryTables;
use redb_file::RedbFile;

/// Why the store could not do it. After any of these but `Corrupt` nothing may be confirmed until it was opened anew.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder could not be made.
    #[error("create the data directory {0}")]
    CreateDirectory(PathBuf, #[source] std::io::Error),
    /// The file could not be made in its place.
    #[error("create the store {0}")]
    Create(PathBuf, #[source] std::io::Error),
    /// The file could not be opened.
    #[error("open the store {0}")]
    Open(PathBuf, #[source] redb::DatabaseError),
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(PathBuf),
    /// Another version of the program wrote it.
    #[error("the store has format {found}, this version reads {supported}; run the version that wrote it")]
    Format {
        /// As stored.
        found: u8,
        /// What this version reads and writes.
        supported: u8,
    },
    /// A commit failed.
    #[error("commit to the store")]
    Commit(#[source] redb::Error),
    /// Reading failed.
    #[error("read from the store")]
    Read(#[source] redb::Error),
    /// What is stored fails its checksum, or makes no sense.
    #[error("{what} {key} is corrupt in the store")]
    Corrupt {
        /// Which table.
        what: &'static str,
        /// Which row.
        key: String,
    },
}

impl StoreError {
    /// Whether the volume is full.
    pub fn is_disk_full(&self) -> bool {
        let Self::Commit(redb::Error::Io(source)) = self else { return false };
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }
}

/// Numbers that a store is made with. They must differ between stores and stay secret: they key the receipts.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// Keys the receipts.
    pub receipt_key: [u8; 16],
    /// Keeps the message ids of shards apart.
    pub salt: u32,
}

/// What the engine counts across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) receipt_key: [u8; 16],
    pub(crate) salt: u32,
    pub(crate) next_seq: u64,
    pub(crate) next_epoch: u64,
    pub(crate) next_queue: u32,
    pub(crate) clock: Timestamp,
}

impl Meta {
    /// Of a store that nothing was stored in yet.
    fn new(entropy: Entropy) -> Self {
        let Entropy { receipt_key, salt } = entropy;
        Self { receipt_key, salt, next_seq: 1, next_epoch: 1, next_queue: 1, clock: Timestamp(0) }
    }
}

/// A queue as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRecord {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    pub(crate) is_paused: bool,
    /// It is being deleted.
    pub(crate) is_closed: bool,
}

/// Everything but the payloads.
pub(crate) struct Loaded {
    pub(crate) meta: Meta,
    pub(crate) queues: Vec<(QueueId, QueueRecord)>,
    pub(crate) rows: Vec<(Seq, Row)>,
    pub(crate) memory: Vec<(MemoryKey, Memorized)>,
}

/// The changes of one batch; `None` deletes.
pub(crate) struct Changes<'a> {
    pub(crate) meta: Meta,
    pub(crate) queues: Vec<(QueueId, Option<&'a QueueRecord>)>,
    pub(crate) rows: Vec<(Seq, Option<&'a Row>)>,
    pub(crate) payloads: &'a [(Seq, Payload)],
    pub(crate) memory: Vec<(&'a MemoryKey, Option<&'a Memorized>)>,
}

/// The state of one shard.
pub struct Store(Kind);

enum Kind {
    File(RedbFile),
    Memory(MemoryTables),
}

impl Store {
    /// Opens the store in `folder`, or makes it.
    pub fn open(folder: &Path, entropy: Entropy) -> Result<Self, StoreError> {
        RedbFile::open(folder, entropy).map(Kind::File).map(Self)
    }

    /// The same without a file: for tests of what is written.
    pub fn in_memory(entropy: Entropy) -> Result<Self, StoreError> {
        RedbFile::in_memory(entropy).map(Kind::File).map(Self)
    }

    /// A store that writes nothing anywhere and outlives only its engine: for models and measurements of the engine alone.
    pub fn volatile(entropy: Entropy) -> Self {
        Self(Kind::Memory(MemoryTables::new(entropy)))
    }

    pub(crate) fn copy(&self) -> Option<Self> {
        match &self.0 {
            Kind::File(_) => None,
            Kind::Memory(tables) => Some(Self(Kind::Memory(tables.clone()))),
        }
    }

    /// Size of the files.
    pub fn disk_used(&self) -> u64 {
        match &self.0 {
            Kind::File(file) => file.disk_used(),
            Kind::Memory(_) => 0,
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded, StoreError> {
        match &self.0 {
            Kind::File(file) => file.load(),
            Kind::Memory(tables) => Ok(tables.load()),
        }
    }

    /// `None`: no such message.
    pub(crate) fn payload(&self, seq: Seq) -> Result<Option<Payload>, StoreError> {
        match &self.0 {
            Kind::File(file) => file.payload(seq),
            Kind::Memory(tables) => Ok(tables.payload(seq)),
        }
    }

    /// Writes all of it or nothing, and returns when it is on disk.
    pub(crate) fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::File(file) => file.commit(changes),
            Kind::Memory(tables) => {
                tables.commit(changes);
                Ok(())
            }
        }
    }
}
