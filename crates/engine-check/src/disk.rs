//! A disk in memory whose power can be cut, and which fails when it is told to; the same for the same seed.
//!
//! What was not synced may be lost, sector by sector and name by name, in any order; see [`Survival`]. The content of a file
//! survives whatever becomes of its name. Not simulated: writes that go elsewhere, stale sectors instead of zeros where a
//! file grew, and the lock on the folder.

mod faults;
mod names;
mod pages;
mod survival;
#[cfg(test)]
mod tests;
mod world;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell_engine::store::disk::{Disk, DiskFile, Space};

pub use faults::{DeviceError, Faults, Lasts, Lie, Operation, Struck};
use names::FileId;
pub use survival::{Sector, Survival};
use world::World;

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

/// What a disk was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Everything: where a [`DeviceError`] can be put.
    pub operations: u64,
    /// Without what only looks: where a power cut can be put.
    pub changes: u64,
    /// How many met a device error or a full volume, since the faults were set.
    pub errors: u64,
    /// The last operation that met a device error, counted from 0.
    pub last_error: Option<u64>,
}

impl SimDisk {
    /// An empty one; the seed decides over its sectors too.
    pub fn new(seed: u64) -> Self {
        Self::of(World::new(seed))
    }

    /// An empty one with such sectors.
    pub fn with_sectors(seed: u64, sector: Sector) -> Self {
        let mut world = World::new(seed);
        world.sector = sector;
        Self::of(world)
    }

    fn of(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// What goes wrong from now on. Says how many operations failed by what went wrong before.
    pub fn set_faults(&self, faults: Faults) -> u64 {
        let fate = &mut self.world().fate;
        fate.faults = faults;
        std::mem::take(&mut fate.errors)
    }

    /// Everything fails from now on, as after [`Faults::power_cut`].
    pub fn cut_power(&self) {
        self.world().fate.is_off = true;
    }

    /// Whether the power was cut.
    pub fn is_off(&self) -> bool {
        self.world().fate.is_off
    }

    /// How much it was asked.
    pub fn asked(&self) -> Asked {
        let fate = &self.world().fate;
        Asked {
            operations: fate.operations,
            changes: fate.changes,
            errors: fate.errors,
            last_error: fate.last_error,
        }
    }

    /// The disk that is found if the power fails now. This one goes on, until its power is cut: one run can be cut often.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::of(self.world().survive(seed, None))
    }

    /// The same in one of its ways.
    #[must_use]
    pub fn crash_as(&self, seed: u64, survival: Survival) -> Self {
        Self::of(self.world().survive(seed, Some(survival)))
    }

    /// The disk that the next process finds when this one is killed, and the machine goes on: nothing is lost, and nothing
    /// more is durable. Handles of before stay with the old one.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::of(self.world().restarted())
    }

    /// Turns one bit of a file over, unnoticed. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) behind its end.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        self.world().flip(name, offset, bit)
    }

    /// The whole content of a file.
    pub fn content(&self, name: &str) -> io::Result<Vec<u8>> {
        self.world().content(name)
    }

    /// What the files take: holes take nothing.
    pub fn used_bytes(&self) -> u64 {
        self.world().used_bytes()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // Who panicked with it in hand has panicked in an operation, and no operation leaves it half done.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: FileId) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), id })
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.world().open(name)?;
        Ok(self.file(id))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.world().create(name)?;
        Ok(self.file(id))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.world().list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.world().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.world().remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.world().sync_folder()
    }

    fn space(&self) -> io::Result<Space> {
        self.world().space()
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: FileId,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.world().len(self.id)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.world().read_at(self.id, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.world().write_at(self.id, offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.world().set_len(self.id, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.world().allocate(self.id, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.world().sync(self.id)
    }
}
