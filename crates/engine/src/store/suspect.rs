//! After a failed sync Linux may keep what was written readable and count it as written: no later sync writes it, and it is
//! gone when the power is cut. The log writes its last record anew when it is opened. redb cannot tell what was not written;
//! its file is marked, and whoever opens it next copies all of it.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};

const MARK: &str = "state.suspect";
/// Copied in steps of so much.
const STEP_BYTES: u64 = 1 << 20;

/// A file that is marked when a sync of it fails.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) disk: Arc<dyn Disk>,
}

/// Best effort. If the power is cut before the mark is durable, nothing is left that could be read and is not.
pub(super) fn mark(disk: &dyn Disk) {
    if let Err(error) = disk.create(MARK)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return;
    }
    _ = disk.sync_folder();
}

impl DiskFile for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| mark(&*self.disk))
    }
}

/// Makes all of the file durable that can be read, if it is marked, and says whether it was. The copy has the name
/// `unfinished` until it is whole.
pub(super) fn renew(disk: &dyn Disk, name: &str, unfinished: &str) -> io::Result<bool> {
    let names = disk.list()?;
    let is_there = |wanted: &str| names.iter().any(|name| name == wanted);
    if !is_there(MARK) {
        return Ok(false);
    }
    if is_there(name) {
        if is_there(unfinished) {
            disk.remove(unfinished)?;
        }
        copy(&*disk.open(name)?, &*disk.create(unfinished)?)?;
        disk.rename(unfinished, name)?;
        disk.sync_folder()?;
    }
    disk.remove(MARK)?;
    disk.sync_folder()?;
    Ok(true)
}

/// Makes the whole content durable in another file.
pub(super) fn copy(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let len = from.len()?;
    to.set_len(len)?;
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < len {
        buffer.resize(usize::try_from(STEP_BYTES.min(len - offset)).map_err(io::Error::other)?, 0);
        from.read_at(offset, &mut buffer)?;
        to.write_at(offset, &buffer)?;
        offset += buffer.len() as u64;
    }
    to.sync()
}
