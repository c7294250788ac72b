//! The folder of a stopped broker: read, and never written.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OfflineError;
use crate::store::disk::{Disk, DiskFile, LOCK, Space};

/// A folder that no broker has, for as long as this lives. A [`Disk`] that refuses every change.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// `None` where no broker ever was, or somebody removed it: making one would be a change.
    _lock: Option<File>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, OfflineError> {
        let unreadable = |source| OfflineError::Folder(path.into(), source);
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Err(unreadable(io::ErrorKind::NotADirectory.into()));
        }
        let lock = match File::open(path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(unreadable)?),
        };
        if let Some(lock) = &lock {
            lock.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => OfflineError::InUse(path.into(), holder(lock)),
                TryLockError::Error(error) => unreadable(error),
            })?;
        }
        Ok(Self { path: path.into(), _lock: lock })
    }
}

/// The process that has the file locked, where the system tells: it must be on this machine, and not in a container beside us.
fn holder(lock: &File) -> Option<u32> {
    let inode = format!(":{}", lock.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
    let line = locks.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.any(|word| word.ends_with(&inode))
    })?;
    line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
}

impl Disk for Directory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(ReadOnly(File::open(self.path.join(name))?)))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.file_type()?.is_file() && name != LOCK && !name.starts_with('.') {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_folder(&self) -> io::Result<()> {
        refused()
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total_bytes: 0, free_bytes: 0 })
    }
}

#[derive(Debug)]
struct ReadOnly(File);

impl DiskFile for ReadOnly {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}
