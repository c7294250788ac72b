//! redb on a [`DiskFile`].

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;

/// A file that redb may have. Takes no locks: who opened the disk has all of its files.
#[derive(Debug)]
pub struct Backend(pub Arc<dyn DiskFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
