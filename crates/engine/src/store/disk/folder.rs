//! A folder of the operating system.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Disk, DiskFile, Space};

/// Who has it locked has the folder. Its content means nothing, and it is not one of the store's files.
pub(in crate::store) const LOCK: &str = "lock";

/// A folder that nobody else has open.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    handle: File,
    lock: Arc<File>,
    opened: Instant,
}

impl Folder {
    /// Makes the folder if need be, and locks it. [`ResourceBusy`](io::ErrorKind::ResourceBusy) when another one has it,
    /// in this process or another, until the last handle of its files is dropped.
    pub fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
            TryLockError::Error(error) => error,
        })?;
        #[expect(
            clippy::disallowed_methods,
            reason = "what a disk takes is measured here, and decides nothing"
        )]
        let opened = Instant::now();
        Ok(Self { path: path.into(), handle: File::open(path)?, lock: Arc::new(lock), opened })
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if is_plain && name != LOCK {
            Ok(self.path.join(name))
        } else {
            Err(io::ErrorKind::InvalidFilename.into())
        }
    }

    fn file(&self, name: &str, options: &OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let file = options.open(self.path(name)?)?;
        Ok(Arc::new(FolderFile { file, _lock: Arc::clone(&self.lock) }))
    }
}

/// With every folder above that is missing; each is durable before the next.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    make(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(above)?.sync_all(),
    }
}

impl Disk for Folder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name, OpenOptions::new().read(true).write(true))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name, OpenOptions::new().read(true).write(true).create_new(true))
    }

    /// Without what others put beside the store: folders, and names that are no text.
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.file_type()?.is_file() && self.path(&name).is_ok() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let volume = rustix::fs::fstatvfs(&self.handle)?;
        Ok(Space {
            total_bytes: volume.f_blocks.saturating_mul(volume.f_frsize),
            free_bytes: volume.f_bavail.saturating_mul(volume.f_frsize),
        })
    }

    fn uptime(&self) -> Duration {
        self.opened.elapsed()
    }
}

#[derive(Debug)]
struct FolderFile {
    file: File,
    /// A handle that outlives its [`Folder`] could still write.
    _lock: Arc<File>,
}

impl DiskFile for FolderFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            allocated => Ok(allocated?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
