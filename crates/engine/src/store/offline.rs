//! Looking at the folder of a stopped broker: what is in it, whether it is whole, and what can be had from it.
//!
//! Nothing is written, not even by opening the state: what redb and the engine write meanwhile stays in memory. Nothing is
//! believed that fails a checksum, and nothing that is damaged keeps the rest from being read.

mod checkpoint;
mod database;
mod directory;
mod export;
mod inspect;
mod overlay;
mod payloads;
mod scan;
mod segments;
mod state;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::seal::{self, KeyError, Keys};
use directory::Directory;
pub use export::{Exported, Source, Wanted};
pub use inspect::{Looked, Overview, QueueView, RecordView, SegmentView, StateView};
pub use verify::{Event, Finding, Hit, Severity, Summary};

/// Why a folder could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It could not be read.
    #[error("cannot read {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// A broker has it, under this process id if it is known.
    #[error("{} is in use by a broker{}: stop it first", .0.display(), .1.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse(PathBuf, Option<u32>),
    /// There is neither a state nor a log.
    #[error("{} has no store in it: neither state.redb nor segments of a log", .0.display())]
    NoStore(PathBuf),
    /// Another version wrote it.
    #[error("the store has format {found}, this version reads {supported}; use the version that wrote it")]
    Format {
        /// As stored.
        found: u8,
        /// What this version reads.
        supported: u8,
    },
    /// It is sealed with another key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What redb has could be verified, and not be read all the same.
    #[error("cannot read the state")]
    State(#[source] super::StoreError),
    /// A file could not be read.
    #[error("cannot read the store")]
    Read(#[from] io::Error),
    /// Who was told could not take it.
    #[error("cannot tell what was found")]
    Told(#[source] io::Error),
}

/// The folder of a stopped broker. No broker can start on it while this lives.
#[derive(Debug)]
pub struct Offline {
    /// As it lies there.
    raw: Arc<dyn Disk>,
    /// With what redb has opened.
    disk: Arc<dyn Disk>,
    keys: Option<Keys>,
}

impl Offline {
    /// Takes the folder, unless a broker has it. One that is sealed needs its keys.
    pub fn open(folder: &Path, keys: Option<Keys>) -> Result<Self, OfflineError> {
        let offline = Self::on_disk(Arc::new(Directory::open(folder)?), keys)?;
        if offline.has_store()? { Ok(offline) } else { Err(OfflineError::NoStore(folder.into())) }
    }

    /// A disk that nobody else uses; it is only read.
    pub fn on_disk(raw: Arc<dyn Disk>, keys: Option<Keys>) -> Result<Self, OfflineError> {
        let disk = seal::cover(Arc::clone(&raw), keys.clone()).map_err(OfflineError::State)?;
        let offline = Self { raw, disk, keys };
        for segment in segments::all(&offline)? {
            segment.must_open()?;
        }
        Ok(offline)
    }

    fn has_store(&self) -> io::Result<bool> {
        let names = self.disk.list()?;
        Ok(names.iter().any(|name| name == super::tables::FILE) || !segments::all(self)?.is_empty())
    }
}
