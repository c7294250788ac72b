//! redb on a [`DiskFile`].

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::DiskFile;

/// So much is written at most before it is synced. One sync of all that a checkpoint writes would hold up the log's for
/// milliseconds, and with it everybody who waits for a confirm; synced in such portions it goes in between.
const PORTION_BYTES: u64 = 128 << 10;

/// A file that redb may have. Takes no locks: who opened the disk has all of its files.
#[derive(Debug)]
pub struct Backend {
    file: Arc<dyn DiskFile>,
    /// Written since the last sync.
    unsynced_bytes: AtomicU64,
}

impl Backend {
    /// For one database at a time.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, unsynced_bytes: AtomicU64::new(0) }
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)?;
        let len = data.len() as u64;
        if self.unsynced_bytes.fetch_add(len, Ordering::Relaxed) + len >= PORTION_BYTES {
            self.sync_data()?;
        }
        Ok(())
    }
}
