//! A disk on which the files of redb are sealed. Those of the log are not: it seals what it writes itself, record by record.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::envelope::{self, Envelope, Enveloped};
use super::{Blocks, DataKey, KeyError, Keys};
use crate::store::disk::{Disk, DiskFile, Space};
use crate::store::{StoreError, suspect, tables};

/// These files have no number.
const NO_NUMBER: u64 = 0;

#[derive(Debug)]
struct Sealed {
    disk: Arc<dyn Disk>,
    keys: Keys,
}

/// The disk as a store sees it. Refuses keys for one that was made without, and none for one that was made with some.
pub(in crate::store) fn cover(disk: Arc<dyn Disk>, keys: Option<Keys>) -> Result<Arc<dyn Disk>, StoreError> {
    let Some(keys) = keys else {
        must_be_plain(&*disk)?;
        return Ok(disk);
    };
    Ok(Arc::new(Sealed::over(disk, keys)?))
}

/// Has the key of the state sealed with the newest of the keys, so that the others are needed no longer than what is in their
/// segments. Answers with which key it is sealed. Only for a store that was read whole: one that is refused for a key must be the
/// same to whoever brings back the keys that it had.
pub(in crate::store) fn rewrap(disk: &dyn Disk, keys: Option<&Keys>) -> Result<Option<String>, StoreError> {
    let Some(keys) = keys else { return Ok(None) };
    let Some((file, Some(envelope))) = state_of(disk).map_err(StoreError::Files)? else { return Ok(None) };
    let rewrapped = envelope::rewrap(&*file, &envelope, keys).inspect_err(|_| suspect::mark(disk));
    rewrapped.map(Some).map_err(StoreError::Files)
}

fn must_be_plain(disk: &dyn Disk) -> Result<(), StoreError> {
    match state_of(disk).map_err(StoreError::Files)? {
        Some((_, Some(envelope))) => Err(StoreError::Key(KeyError::NoneGiven { id: envelope.key_id })),
        _ => Ok(()),
    }
}

/// The file of the state, and what it is sealed with.
type StateFile = (Arc<dyn DiskFile>, Option<Envelope>);

fn state_of(disk: &dyn Disk) -> io::Result<Option<StateFile>> {
    match disk.open(tables::FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => {
            let file = opened?;
            let envelope = Envelope::find(&*file, NO_NUMBER)?;
            Ok(Some((file, envelope)))
        }
    }
}

impl Sealed {
    /// Refuses a store that was made without keys, or with others.
    fn over(disk: Arc<dyn Disk>, keys: Keys) -> Result<Self, StoreError> {
        match state_of(&*disk).map_err(StoreError::Files)? {
            None => {}
            Some((_, Some(envelope))) => envelope.open(&keys).map(drop).map_err(StoreError::Key)?,
            Some((file, None)) if tables::begins_as_redb(&*file).map_err(StoreError::Files)? => {
                return Err(StoreError::Key(KeyError::NotSealed));
            }
            Some((_, None)) => return Err(StoreError::Files(damaged())),
        }
        Ok(Self { disk, keys })
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what state.redb is sealed with cannot be read")
}

fn blocks(file: Arc<dyn DiskFile>, key: DataKey) -> Arc<dyn DiskFile> {
    Arc::new(Blocks { file: Enveloped(file), key: Arc::new(key) })
}

impl Disk for Sealed {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name)?;
        if !tables::FILES.contains(&name) {
            return Ok(file);
        }
        let envelope = Envelope::find(&*file, NO_NUMBER)?.ok_or_else(damaged)?;
        let key = envelope.open(&self.keys).map_err(io::Error::other)?;
        Ok(blocks(file, key))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(name)?;
        if !tables::FILES.contains(&name) {
            return Ok(file);
        }
        let key = envelope::renew(&*file, NO_NUMBER, &self.keys)?;
        Ok(blocks(file, key))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn uptime(&self) -> Duration {
        self.disk.uptime()
    }
}
