//! All file I/O of a store: a flat folder of files, behind one trait, so that tests can cut its power.
//!
//! What survives a power cut, of any [`Disk`]:
//! - of a file, what was written before its last [`DiskFile::sync`] that returned; of later writes and lengths any part;
//! - of the folder, what was created, renamed and removed before the last [`Disk::sync_folder`] that returned; of later
//!   changes any, each as a whole. A file that is synced is still lost when its name is not.
//!
//! After any error of a write or a sync nothing may be believed of the file: it is opened anew, never synced again.

mod folder;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use folder::Folder;
pub(super) use folder::LOCK;

/// All files of one store. Names are plain: no separators.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing. [`NotFound`](io::ErrorKind::NotFound) when it is missing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file. [`AlreadyExists`](io::ErrorKind::AlreadyExists) when the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file; one that has the new name already is replaced. Handles keep their file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Handles keep it until they are dropped.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed durable.
    fn sync_folder(&self) -> io::Result<()>;

    /// Of the volume, which others may share.
    fn space(&self) -> io::Result<Space>;

    /// How long it has been open, for those who want to know how long it takes. Nothing is decided by it; a disk that is not
    /// real has no time.
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file. All functions may be called from several threads at once.
#[expect(clippy::len_without_is_empty, reason = "nobody asks a file whether it is empty")]
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// In bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills the buffer, or fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all bytes; the file grows as needed, with zeros in between.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Lengthens the file with zeros, and takes the room for all of it, so that writing into it never finds the volume full.
    /// Where a volume cannot do that, it is as [`set_len`](Self::set_len).
    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    /// Makes content and length durable; not the name.
    fn sync(&self) -> io::Result<()>;
}

/// Room of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
}
