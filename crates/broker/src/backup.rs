//! Backups: what all shards of a queue have, in the files of a folder, and from there into the shards of a new queue.
//!
//! `docs/backup-format.md` says what is in the files, `docs/adr/0015-backups-are-read-by-place.md` why it is whole. These programs
//! read and write nothing but that folder, and know shards by their addresses. Both can be killed at any point and begun again.

mod calls;
mod file;
mod manifest;
mod restore;
mod take;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::tls::{Peers, ServerFiles};
pub use manifest::{Manifest, Shard, is_in};
pub use restore::{Restore, verify};
pub use take::Take;

/// The shards of a queue, and how to reach them.
#[derive(Clone)]
pub struct Reach {
    /// `namespace/name`.
    pub queue: String,
    /// `host:port` of each, by ordinal.
    pub shards: Vec<String>,
    /// What is shown to them, and the authorities of what they show; `None`: connections are plain, for one machine only.
    pub tls: Option<(ServerFiles, PathBuf)>,
}

/// What was done, or why not: for whoever started the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// For programs; empty: it is done.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Messages of the backup.
    pub messages: u64,
    /// Size of its files.
    pub bytes: u64,
    /// Messages of each of its shards, by ordinal.
    pub shards: Vec<u64>,
}

/// Why there is no backup, or it is not restored.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is nothing.
    #[error("{} has no backup: there is no {} in it", .0.display(), manifest::NAME)]
    Missing(PathBuf),
    /// A backup was begun and did not end.
    #[error(
        "{} has a backup that did not end: files of shards and no {}; make another one", .0.display(), manifest::NAME
    )]
    Unfinished(PathBuf),
    /// What is there is not what was written.
    #[error("the backup is damaged: {}: {why}", file.display())]
    Damaged {
        /// Where.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A newer version wrote it.
    #[error(
        "the backup has format {found}, and this version reads {} at most: use the version that made it, or a newer one",
        file::FORMAT
    )]
    TooNew {
        /// What it says.
        found: u64,
    },
    /// Nothing is overwritten.
    #[error("{} has another backup already, of task {task}, whole or not: name another path", folder.display())]
    Occupied {
        /// Where.
        folder: PathBuf,
        /// Whose it is.
        task: String,
    },
    /// A shard will not do it, now or later.
    #[error("{0}")]
    Refused(String),
    /// A shard cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// The folder cannot be read or written.
    #[error("{what} {}: {source}", path.display())]
    Folder {
        /// What was done to it.
        what: &'static str,
        /// Or to a file in it.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What a volume says that no other attempt changes: to read all shards again and again would only cost them time.
const FOR_A_PERSON: [io::ErrorKind; 4] = [
    io::ErrorKind::StorageFull,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::PermissionDenied,
];

impl Fault {
    /// For programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "BackupMissing",
            Self::Unfinished(_) => "BackupUnfinished",
            Self::Damaged { .. } => "BackupDamaged",
            Self::TooNew { .. } => "BackupTooNew",
            Self::Occupied { .. } => "FolderOccupied",
            Self::Refused(_) => "ShardRefused",
            Self::Unavailable(_) => "ShardUnavailable",
            Self::Folder { .. } => "FolderFailed",
        }
    }

    /// Whether trying again can be of use before a person has done something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unavailable(_) => false,
            Self::Folder { source, .. } => FOR_A_PERSON.contains(&source.kind()),
            _ => true,
        }
    }

    /// For whoever started the program.
    pub fn report(&self) -> Report {
        Report { reason: self.reason(), message: self.to_string(), ..Report::default() }
    }

    fn folder(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Folder { what, path, source }
    }

    fn damaged(file: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), why: why.into() }
    }
}

impl Report {
    fn done(manifest: &Manifest) -> Self {
        Self {
            messages: manifest.messages,
            bytes: manifest.bytes(),
            shards: manifest.shards.iter().map(|shard| shard.messages).collect(),
            ..Self::default()
        }
    }
}

impl Reach {
    fn peers(&self) -> Peers {
        let (own, authorities) = self.tls.clone().unzip();
        Peers::new(own, authorities)
    }
}
