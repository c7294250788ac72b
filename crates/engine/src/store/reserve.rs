//! Room that is kept back for the day the volume is full, so that what makes room still works: acks, and the checkpoints that
//! let go of what they are for.
//!
//! It is a file that holds nothing. When a write finds no room the file is removed and the write is made once more; it is made
//! again when there is enough room for it and some more. A write without room has changed nothing that counts, unlike any other
//! that fails, so that it may be repeated; a sync is never. Who stores new messages is not told apart here: callers look at
//! [`Disk::space`] before, which counts the reserve as free.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile, Space};

pub(super) const FILE: &str = "reserve";
/// It is made again when there is so much more room than it takes, in parts of it.
const MARGIN: u64 = 4;

/// A disk on which writes may use up the reserve.
#[derive(Debug)]
pub(super) struct Reserved {
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct Reserve {
    disk: Arc<dyn Disk>,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_there: bool,
    /// How often it was removed.
    removals: u64,
}

#[derive(Debug)]
struct ReservedFile {
    file: Arc<dyn DiskFile>,
    reserve: Arc<Reserve>,
}

/// Whether it failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Reserved {
    /// Finds the reserve, if there is one. It is [made](Self::replenish) later, when there is room.
    pub(super) fn find(disk: Arc<dyn Disk>, bytes: u64) -> io::Result<Self> {
        let is_there = disk.list()?.iter().any(|name| name == FILE) && disk.open(FILE)?.len()? >= bytes;
        let state = Mutex::new(State { is_there, ..State::default() });
        let reserve = Reserve { disk: Arc::clone(&disk), bytes, state };
        Ok(Self { disk, reserve: Arc::new(reserve) })
    }

    /// Makes the reserve if it is missing and there is room for it. That it fails says nothing but that there is none.
    pub(super) fn replenish(&self) {
        self.reserve.replenish();
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(ReservedFile { file, reserve: Arc::clone(&self.reserve) })
    }
}

impl Reserve {
    /// Does it, and once more with the room of the reserve if there was none.
    fn lend<T>(&self, write: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let before = self.state().removals;
        match write() {
            Err(error) if is_full(&error) && self.give_up(before) => write(),
            done => done,
        }
    }

    /// Whether there is more room than there was when it had been removed so often.
    fn give_up(&self, removals: u64) -> bool {
        let mut state = self.state();
        if state.is_there {
            state.is_there = false;
            // The volume may know its room only when the removal is durable.
            let removed = self.disk.remove(FILE).and_then(|()| self.disk.sync_folder());
            state.removals += u64::from(removed.is_ok());
        }
        state.removals > removals
    }

    fn replenish(&self) {
        let mut state = self.state();
        if state.is_there || self.bytes == 0 {
            return;
        }
        let has_room =
            self.disk.space().is_ok_and(|space| space.free_bytes >= self.bytes + self.bytes / MARGIN);
        state.is_there = has_room && self.make().is_ok();
    }

    fn make(&self) -> io::Result<()> {
        let file = match self.disk.create(FILE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(FILE)?,
            created => created?,
        };
        let made = file.allocate(self.bytes);
        if made.is_err() {
            // Half of it would take room and be of no use.
            self.disk.remove(FILE)?;
        }
        made
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics with it in hand, and it is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Reserved {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.reserve.lend(|| self.disk.create(name))?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.reserve.lend(|| self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    fn space(&self) -> io::Result<Space> {
        let space = self.disk.space()?;
        let kept_back = if self.reserve.state().is_there { self.reserve.bytes } else { 0 };
        Ok(Space { free_bytes: space.free_bytes.saturating_add(kept_back), ..space })
    }

    fn uptime(&self) -> Duration {
        self.disk.uptime()
    }
}

impl DiskFile for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.reserve.lend(|| self.file.write_at(offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reserve.lend(|| self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.reserve.lend(|| self.file.allocate(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
