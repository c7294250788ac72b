//! What outlives the process: every batch, durable before anyone is told.
//!
//! A batch is [appended](Store::append), then applied by the engine; from time to time the engine's state is written as a
//! checkpoint, from which a restart goes on with the batches behind it. Which kind of store it is makes no difference to
//! what the engine decides.

pub mod backend;
pub(crate) mod codec;
mod damage;
pub mod disk;
mod encoding;
mod log;
mod memory;
pub mod offline;
mod on_disk;
pub(crate) mod record;
mod reserve;
pub mod seal;
mod state;
mod suspect;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod unreadable;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::dense::{Fetch, Page, PageNo};
use crate::memory::{Ended, FrozenMemory, Memorized, MemoryKey};
use crate::message::{Location, Payload, QueueId, Row, Seq};
use crate::messages::{Summary, Turns};
use crate::moving::Moves;
use crate::settings::Settings;
use crate::task::Tasks;
use crate::time::Timestamp;
pub use damage::Damage;
use disk::{Disk, Folder, Space};
pub(crate) use log::Replayed;
pub use log::{Harm, LogDamage};
use memory::MemoryTables;
use on_disk::OnDisk;
use record::Batch;
use seal::{KeyError, Keys};
pub(crate) use unreadable::catching;

/// Why the store could not do it. After any of these but `Corrupt` and `Full` nothing may be confirmed until it was opened anew.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder could not be made or read.
    #[error("open the data directory {0}")]
    OpenFolder(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(PathBuf),
    /// Files could not be made, found or removed.
    #[error("manage the files of the store")]
    Files(#[source] io::Error),
    /// Nothing is wrong with it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// redb refused its file.
    #[error("open the state of the last checkpoint")]
    OpenState(#[source] redb::DatabaseError),
    /// Another version of the program wrote it.
    #[error("the store has format {found}, this version reads {supported}; run the version that wrote it")]
    Format {
        /// As stored.
        found: u8,
        /// What this version reads and writes.
        supported: u8,
    },
    /// A batch could not be made durable.
    #[error("append to the log")]
    Append(#[source] io::Error),
    /// The volume has no room for what was asked, which is as if it had not been asked.
    #[error("find room on the volume")]
    Full(#[source] io::Error),
    /// Reading the log failed.
    #[error("read from the log")]
    ReadLog(#[source] io::Error),
    /// A checkpoint failed.
    #[error("write a checkpoint")]
    Checkpoint(#[source] redb::Error),
    /// An earlier write failed.
    #[error("an earlier write failed: the store must be opened anew")]
    Failed,
    /// Reading the state failed.
    #[error("read the state of the last checkpoint")]
    Read(#[source] redb::Error),
    /// What is stored fails its checksum, or makes no sense.
    #[error("{what} {key} is corrupt in the store")]
    Corrupt {
        /// Which table, or the log.
        what: &'static str,
        /// Which row or record.
        key: String,
    },
}

impl StoreError {
    /// Whether the volume is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Append(source) | Self::Files(source) | Self::Checkpoint(redb::Error::Io(source)) => {
                reserve::is_full(source)
            }
            _ => false,
        }
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
    /// Boxed: it is rarely used, and records lie in small enumerations.
    pub(crate) moves: Box<Moves>,
    pub(crate) tasks: Box<Tasks>,
}

impl QueueRecord {
    pub(crate) fn new(name: String, generation: u64, settings: Settings) -> Self {
        let (moves, tasks) = (Box::default(), Box::default());
        Self { name, generation, settings, is_paused: false, is_closed: false, moves, tasks }
    }

    /// Nothing is handed out.
    pub(crate) fn gives_nothing(&self) -> bool {
        self.is_paused || self.is_closed || self.moves.placement.drains()
    }
}

/// A queue with its turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) record: QueueRecord,
    pub(crate) turns: Turns,
}

/// The state as of a checkpoint.
pub(crate) struct Loaded {
    pub(crate) meta: Meta,
    pub(crate) queues: Vec<(QueueId, QueueState)>,
    /// Of each page of rows, what is in it.
    pub(crate) rows: Vec<(PageNo, Summary)>,
    /// Reads a page of rows, as the last checkpoint wrote it. Ends by [`unreadable`] what asked for one that cannot be read.
    pub(crate) fetch: Fetch<Row>,
    pub(crate) deliveries: Vec<(PageNo, Arc<Page<Ended>>)>,
    pub(crate) memory: Vec<(MemoryKey, Memorized)>,
}

/// What changed since the last checkpoint; `None` deletes.
pub(crate) struct Changes {
    pub(crate) meta: Meta,
    pub(crate) queues: Vec<(QueueId, Option<QueueState>)>,
    pub(crate) rows: Vec<(PageNo, Option<Arc<Page<Row>>>)>,
    pub(crate) memory: FrozenMemory,
    /// Segments whose payloads are moved, so that the files are free, and between which messages these were stored.
    pub(crate) sparse: Vec<(u64, RangeInclusive<Seq>)>,
}

/// How a store uses its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of a segment of the log, except where one record needs more.
    pub segment_bytes: u64,
    /// Log between two checkpoints. A restart reads as much, about half a gigabyte a second.
    pub checkpoint_bytes: u64,
    /// Rows of messages in memory, about 200 bytes each and what failed attempts were told about; more are only there while
    /// a checkpoint is being written. The others are read when they are needed.
    pub max_rows: usize,
    /// Room that is kept back for a full volume, see [`Store::space`].
    pub reserve_bytes: u64,
    /// Who writes.
    pub threads: Threads,
}

/// Who writes records and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The engine's, which waits: for tests that must see the same order of things every time.
    One,
    /// One of its own for each.
    Several,
}

/// Overwritten in place, a segment of this size is used up in a tenth of a second at full speed.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Of the volume, at most so much is one segment: a small one must hold several.
const SEGMENTS_OF_VOLUME: u64 = 64;
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Rows in memory unless [`Store::open_with`] is told otherwise. 50 MB: what is stored within a second at full speed need not be
/// written and read before it is delivered.
pub const MAX_ROWS: usize = 256 << 10;
/// What acks of a full volume are written to until a checkpoint makes room, and that checkpoint.
const RESERVED_SEGMENTS: u64 = 4;
const MAX_RESERVE_BYTES: u64 = 128 << 20;

impl Options {
    fn for_volume(total_bytes: u64) -> Self {
        let segment_bytes = (total_bytes / SEGMENTS_OF_VOLUME).clamp(MIN_SEGMENT_BYTES, SEGMENT_BYTES);
        Self {
            segment_bytes,
            checkpoint_bytes: segment_bytes,
            max_rows: MAX_ROWS,
            reserve_bytes: (segment_bytes * RESERVED_SEGMENTS).min(MAX_RESERVE_BYTES),
            threads: Threads::Several,
        }
    }
}

/// What one shard keeps.
pub struct Store(Kind);

/// What a store takes of its volume, and how its checkpoints go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Length of the log's segments, those included that wait to be used again.
    pub log_bytes: u64,
    /// Length of the file of the state.
    pub state_bytes: u64,
    /// Written to the log since the last checkpoint began: what a restart reads again.
    pub replay_bytes: u64,
    /// Checkpoints that were written since the store was opened.
    pub checkpoints: u64,
    /// How long these took in all, as the disk tells.
    pub checkpoint_time: Duration,
    /// Files in use that are sealed with another key than the newest.
    pub older_key_files: u64,
}

enum Kind {
    Disk(Box<OnDisk>),
    Memory(Box<MemoryTables>),
}

impl Store {
    /// Opens the store in `folder`, or makes it.
    pub fn open(folder: &Path, entropy: Entropy) -> Result<Self, StoreError> {
        Self::open_with(folder, entropy, MAX_ROWS, None)
    }

    /// The same, with so many rows in memory (see [`Options::max_rows`]), and sealed if there are keys.
    pub fn open_with(
        folder: &Path,
        entropy: Entropy,
        max_rows: usize,
        keys: Option<Keys>,
    ) -> Result<Self, StoreError> {
        let opened = Folder::open(folder).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => StoreError::InUse(folder.into()),
            _ => StoreError::OpenFolder(folder.into(), source),
        })?;
        let total_bytes = opened.space().map_err(StoreError::Files)?.total_bytes;
        let options = Options { max_rows, ..Options::for_volume(total_bytes) };
        Self::on_sealed_disk(Arc::new(opened), entropy, options, keys)
    }

    /// Opens the store on a disk that nobody else uses, or makes it.
    pub fn on_disk(disk: Arc<dyn Disk>, entropy: Entropy, options: Options) -> Result<Self, StoreError> {
        Self::on_sealed_disk(disk, entropy, options, None)
    }

    /// The same, sealed if there are keys. A store that was made with keys needs them ever after, and one that was not takes none.
    pub fn on_sealed_disk(
        disk: Arc<dyn Disk>,
        entropy: Entropy,
        options: Options,
        keys: Option<Keys>,
    ) -> Result<Self, StoreError> {
        OnDisk::open(disk, entropy, options, keys).map(|store| Self(Kind::Disk(Box::new(store))))
    }

    /// The keys without which something of it cannot be read, and how many files are sealed with each.
    pub fn keys_in_use(&self) -> BTreeMap<String, u64> {
        match &self.0 {
            Kind::Disk(store) => store.keys_in_use(),
            Kind::Memory(_) => BTreeMap::new(),
        }
    }

    /// A store that writes nothing anywhere and outlives only its engine: for models.
    pub fn volatile(entropy: Entropy) -> Self {
        Self(Kind::Memory(Box::new(MemoryTables::new(entropy))))
    }

    /// The same, but it does not even outlive its engine: it keeps payloads and nothing else, so that what is measured is the
    /// engine.
    pub fn forgetful(entropy: Entropy) -> Self {
        Self(Kind::Memory(Box::new(MemoryTables::forgetful(entropy))))
    }

    pub(crate) fn copy(&self) -> Option<Self> {
        match &self.0 {
            Kind::Disk(_) => None,
            Kind::Memory(tables) if tables.is_forgetful() => None,
            Kind::Memory(tables) => Some(Self(Kind::Memory(Box::new(tables.copy())))),
        }
    }

    /// What it takes of its volume, and how its checkpoints go.
    pub fn usage(&self) -> Usage {
        match &self.0 {
            Kind::Disk(store) => store.usage(),
            Kind::Memory(_) => Usage::default(),
        }
    }

    /// Room of its volume. What it keeps back for acks and checkpoints counts as free: who stores must leave more than that.
    pub fn space(&self) -> Result<Space, StoreError> {
        match &self.0 {
            Kind::Disk(store) => store.space(),
            Kind::Memory(_) => Ok(Space { total_bytes: u64::MAX, free_bytes: u64::MAX }),
        }
    }

    /// The state as of the last checkpoint; the batches since follow by [`Store::replay`].
    pub(crate) fn load(&mut self) -> Result<Loaded, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.load(),
            Kind::Memory(tables) => Ok(tables.load()),
        }
    }

    /// The next batch since the last checkpoint; `None` behind the last.
    pub(crate) fn replay(&mut self) -> Result<Option<Replayed>, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.replay(),
            Kind::Memory(_) => Ok(None),
        }
    }

    /// What of the log was found damaged, once all was replayed.
    pub(crate) fn log_damage(&self) -> Vec<LogDamage> {
        match &self.0 {
            Kind::Disk(store) => store.log.damage(),
            Kind::Memory(_) => Vec::new(),
        }
    }

    /// Keeps copies of the segments in which something is damaged, before they may be used again.
    pub(crate) fn quarantine(&self, damage: &[LogDamage]) {
        if let Kind::Disk(store) = &self.0 {
            store.log.quarantine(damage);
        }
    }

    /// Has the batch written once those before it are durable. Tells where the payloads of its messages will lie, in order.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<Vec<Location>, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.append(batch),
            Kind::Memory(tables) => Ok(tables.append(batch)),
        }
    }

    /// Returns when the oldest batch that was not yet applied is durable.
    pub(crate) fn wait(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.wait(),
            Kind::Memory(_) => Ok(()),
        }
    }

    /// `None`: what lies there is not the payload.
    pub(crate) fn payload(&self, location: Location) -> Result<Option<Payload>, StoreError> {
        match &self.0 {
            Kind::Disk(store) => store.payload(location),
            Kind::Memory(tables) => Ok(tables.payload(location)),
        }
    }

    /// A message was stored whose payload lies there.
    pub(crate) fn stored(&mut self, seq: Seq, location: Location) {
        if let Kind::Disk(store) = &mut self.0 {
            store.stored(seq, location);
        }
    }

    /// It is gone.
    pub(crate) fn freed(&mut self, location: Location) {
        match &mut self.0 {
            Kind::Disk(store) => store.freed(location),
            Kind::Memory(tables) => tables.freed(location),
        }
    }

    /// Segments from which the next checkpoint should move what is left, and between which messages these were stored.
    pub(crate) fn sparse(&mut self) -> Result<Vec<(u64, RangeInclusive<Seq>)>, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.sparse(),
            Kind::Memory(_) => Ok(Vec::new()),
        }
    }

    /// The oldest batch that was not yet is applied.
    pub(crate) fn applied(&mut self) {
        if let Kind::Disk(store) = &mut self.0 {
            store.applied();
        }
    }

    /// What was set aside, now or in earlier times, since it could not be read.
    pub(crate) fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        match &self.0 {
            Kind::Disk(store) => store.state.read(tables::Tables::damage),
            Kind::Memory(_) => Ok(Vec::new()),
        }
    }

    /// Pages of rows that may stay in memory.
    pub(crate) fn max_pages(&self) -> usize {
        match &self.0 {
            Kind::Disk(store) => store.max_pages(),
            // Little, so that models see pages come and go.
            Kind::Memory(_) => 1,
        }
    }

    /// How many of the checkpoints since it was loaded are durable.
    pub(crate) fn checkpoints(&self) -> u64 {
        match &self.0 {
            Kind::Disk(store) => store.checkpoints(),
            Kind::Memory(tables) => tables.checkpoints(),
        }
    }

    /// Whether a checkpoint is due, after so many pages of rows changed.
    pub(crate) fn is_due(&mut self, changed_pages: usize) -> Result<bool, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.is_due(changed_pages),
            Kind::Memory(tables) => Ok(!tables.is_forgetful()),
        }
    }

    /// Whether a checkpoint that nothing is due for may begin: not while one waits for room.
    pub(crate) fn is_ready(&mut self) -> Result<bool, StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.is_ready(),
            Kind::Memory(_) => Ok(true),
        }
    }

    /// Everything applied is in the state that the changes lead to.
    pub(crate) fn checkpoint(&mut self, changes: Changes) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.checkpoint(changes),
            Kind::Memory(tables) => {
                tables.commit(changes);
                Ok(())
            }
        }
    }

    /// Waits until nothing is being written.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Disk(store) => store.settle(),
            Kind::Memory(_) => Ok(()),
        }
    }
}
