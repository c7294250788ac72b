//! All of one disk: files, names, and what becomes of each operation.

use std::collections::BTreeMap;
use std::io;

use ackwell_engine::store::disk::Space;

use super::faults::{Fate, Lie, Operation, Struck};
use super::names::{FileId, Names};
use super::pages::{PAGE, Pages};
use super::survival::{Judge, Sector, Survival, Tick};
use crate::dice::Dice;

/// Of a volume that is not told to be small.
const ROOM_BYTES: u64 = 1 << 40;
/// Why the file of a handle, or of a name, is there.
const HANDLE: &str = "files are never forgotten";

#[derive(Debug)]
pub(super) struct World {
    pub(super) sector: Sector,
    pub(super) fate: Fate,
    dice: Dice,
    /// Of the next change.
    tick: Tick,
    next_id: u64,
    names: Names,
    /// Removed ones too: somebody may have them open, and the removal may be lost.
    files: BTreeMap<FileId, Pages>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            sector: dice.pick(&[Sector::Small, Sector::Large]),
            fate: Fate::default(),
            dice,
            tick: 0,
            next_id: 0,
            names: Names::default(),
            files: BTreeMap::new(),
        }
    }

    pub(super) fn survive(&self, seed: u64, survival: Option<Survival>) -> Self {
        let oldest =
            self.files.values().filter_map(Pages::oldest_unsynced).chain(self.names.oldest_unsynced());
        let oldest = oldest.min().unwrap_or(self.tick);
        let mut judge = Judge::new(seed, survival, self.sector, oldest, self.tick);
        let names = self.names.survive(&mut judge);
        let files = names.all().map(|(_, id)| (id, self.files[&id].survive(&mut judge))).collect();
        Self { sector: self.sector, next_id: self.next_id, names, files, ..Self::new(seed) }
    }

    /// As it is, for another process.
    pub(super) fn restarted(&self) -> Self {
        Self {
            fate: Fate::default(),
            dice: self.dice.clone(),
            names: self.names.clone(),
            files: self.files.clone(),
            ..*self
        }
    }

    pub(super) fn flip(&mut self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let id = self.names.get(name)?;
        let pages = self.pages(id);
        if offset >= pages.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pages.flip(offset, bit);
        Ok(())
    }

    pub(super) fn content(&self, name: &str) -> io::Result<Vec<u8>> {
        let pages = &self.files[&self.names.get(name)?];
        let mut content = vec![0; usize::try_from(pages.len()).expect("files of tests fit into memory")];
        pages.read_at(0, &mut content)?;
        Ok(content)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.all().map(|(_, id)| self.files[&id].allocated() * PAGE as u64).sum()
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<FileId> {
        self.fate.strike(Operation::Open)?;
        self.names.get(name)
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<FileId> {
        self.fate.strike(Operation::Create)?;
        let id = FileId(self.next_id);
        self.names.create(&mut self.tick, name, id)?;
        self.next_id += 1;
        self.files.insert(id, Pages::default());
        Ok(id)
    }

    pub(super) fn list(&mut self) -> io::Result<Vec<String>> {
        self.fate.strike(Operation::List)?;
        Ok(self.names.all().map(|(name, _)| name.to_owned()).collect())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.fate.strike(Operation::Rename)?;
        self.names.rename(&mut self.tick, from, to)
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.fate.strike(Operation::Remove)?;
        self.names.remove(&mut self.tick, name)
    }

    pub(super) fn sync_folder(&mut self) -> io::Result<()> {
        self.fate.strike(Operation::SyncFolder)?;
        if self.fate.faults.lie != Some(Lie::FolderSync) {
            self.names.sync();
        }
        Ok(())
    }

    pub(super) fn space(&mut self) -> io::Result<Space> {
        self.fate.strike(Operation::Space)?;
        let total_bytes = self.fate.faults.room_bytes.unwrap_or(ROOM_BYTES);
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(self.used_bytes()) })
    }

    pub(super) fn len(&mut self, id: FileId) -> io::Result<u64> {
        self.fate.strike(Operation::Len)?;
        Ok(self.pages(id).len())
    }

    pub(super) fn read_at(&mut self, id: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fate.strike(Operation::Read)?;
        self.pages(id).read_at(offset, buffer)
    }

    /// A write that is struck is done up to anywhere.
    pub(super) fn write_at(&mut self, id: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let was_off = self.fate.is_off;
        match self.fate.strike(Operation::Write) {
            Ok(()) => self.write_what_fits(id, offset, data),
            Err(struck) if was_off => Err(struck.into()),
            Err(struck) => {
                let end = self.dice.count(0, data.len() as u64);
                self.write_what_fits(id, offset, &data[..end])?;
                Err(struck.into())
            }
        }
    }

    pub(super) fn set_len(&mut self, id: FileId, len: u64) -> io::Result<()> {
        self.fate.strike(Operation::SetLen)?;
        self.files.get_mut(&id).expect(HANDLE).set_len(&mut self.tick, len);
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: FileId, len: u64) -> io::Result<()> {
        self.fate.strike(Operation::SetLen)?;
        let room = self.room_pages();
        let pages = self.files.get_mut(&id).expect(HANDLE);
        if pages.allocate(&mut self.tick, len, room) {
            return Ok(());
        }
        self.fate.errors += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
        let struck = self.fate.strike(Operation::Sync);
        let pages = self.files.get_mut(&id).expect(HANDLE);
        match struck {
            Ok(()) if self.fate.faults.lie == Some(Lie::FileSync) => {}
            Ok(()) => pages.sync(),
            Err(Struck::DeviceError) => pages.fail_sync(&mut self.dice),
            Err(Struck::PowerCut) => {}
        }
        Ok(struck?)
    }

    fn write_what_fits(&mut self, id: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let room = self.room_pages();
        let pages = self.files.get_mut(&id).expect(HANDLE);
        let written = pages.write_at(&mut self.tick, offset, data, room);
        if written == data.len() {
            return Ok(());
        }
        self.fate.errors += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn room_pages(&self) -> u64 {
        let room = |bytes: u64| bytes.saturating_sub(self.used_bytes()) / PAGE as u64;
        self.fate.faults.room_bytes.map_or(u64::MAX, room)
    }

    fn pages(&mut self, id: FileId) -> &mut Pages {
        self.files.get_mut(&id).expect(HANDLE)
    }
}
