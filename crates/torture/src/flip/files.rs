//! A store's files in memory, copied for each flip.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell_engine::store::disk::{Disk, DiskFile, Space};

/// A folder that forgets nothing but itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    files: Arc<Mutex<BTreeMap<String, File>>>,
    /// The store in it has keys.
    pub(super) is_sealed: bool,
}

#[derive(Clone, Debug, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Files {
    /// An empty one.
    pub(super) fn new(is_sealed: bool) -> Self {
        Self { files: Arc::default(), is_sealed }
    }

    /// Everything as it is, for somebody else.
    pub(super) fn copy(&self) -> Self {
        let copy =
            |(name, file): (&String, &File)| (name.clone(), File(Arc::new(Mutex::new(file.bytes().clone()))));
        let files = Arc::new(Mutex::new(self.names().iter().map(copy).collect()));
        Self { files, is_sealed: self.is_sealed }
    }

    /// Sectors of files with that end of their names that are not all zeros.
    pub(super) fn sectors(&self, ending: &str, sector_bytes: usize) -> Vec<(String, usize)> {
        let mut sectors = Vec::new();
        for (name, file) in self.names().iter().filter(|(name, _)| name.ends_with(ending)) {
            let bytes = file.bytes();
            let chunks = bytes.chunks(sector_bytes).enumerate();
            let used = chunks.filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
            sectors.extend(used.map(|(index, _)| (name.clone(), index * sector_bytes)));
        }
        sectors
    }

    pub(super) fn flip(&self, name: &str, at: usize, bit: u8) {
        if let Some(file) = self.names().get(name)
            && let Some(byte) = file.bytes().get_mut(at)
        {
            *byte ^= 1 << bit;
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Files {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.names().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.names();
        if names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = names.entry(name.to_owned()).or_default();
        Ok(Arc::new(file.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names();
        let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.names().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total_bytes: 1 << 40, free_bytes: 1 << 40 })
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (bytes, start) = (self.bytes(), index(offset)?);
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, written: &[u8]) -> io::Result<()> {
        let (mut bytes, start) = (self.bytes(), index(offset)?);
        let end = start.checked_add(written.len()).filter(|end| *end <= MOST_BYTES);
        let end = end.ok_or(io::ErrorKind::StorageFull)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        if len > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Of one file: a flipped length must not take all memory.
const MOST_BYTES: usize = 256 << 20;

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
