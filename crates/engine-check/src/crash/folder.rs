//! Any files where those of a store were, as a fuzzer makes them up.
//!
//! The store opens or says why it does not, serves no body that is not that of its message, and what opened is a store like
//! any other. How much may be missing is not looked at here: [`endure`](super::endure) does.

use std::io;
use std::sync::Arc;

use ackwell_engine::store::disk::{Disk, DiskFile};

use super::rot::{is_its_own, read};
use super::{Fallen, Plan, Schedule, Tally, Troubles, store, told};
use crate::disk::{Faults, SimDisk};
use crate::violation::Violation;

/// No store of a schedule has larger files.
const MOST_BYTES: u64 = 4 << 20;
const SECTOR_BYTES: u64 = 512;

/// What becomes of the files of a stopped store. Files are meant by their place in the list of all names.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Edit {
    /// Other bytes; the file grows as needed.
    Overwrite {
        /// Which file.
        file: u8,
        /// From where.
        offset: u32,
        /// With what.
        bytes: Vec<u8>,
    },
    /// Sectors written to where others belong, checksums and all.
    Misdirect {
        /// Which file they are of.
        from: u8,
        /// The first of them.
        sector: u16,
        /// How many.
        sectors: u8,
        /// Which file they come into.
        to: u8,
        /// The first that they replace.
        at: u16,
    },
    /// The file ends earlier, or goes on with zeros.
    Resize {
        /// Which file.
        file: u8,
        /// In bytes.
        len: u32,
    },
    /// The file is gone.
    Remove(u8),
    /// One file has another's name, too.
    Copy {
        /// Which file.
        file: u8,
        /// The number of the segment that it is called.
        number: u8,
    },
}

/// Plays the schedule of the seed until its process is down, and opens what became of its folder.
pub fn reopen(seed: u64, edits: &[Edit]) -> Result<Tally, Box<Fallen>> {
    let plan = Plan { troubles: Troubles::PowerCuts, lie: None };
    Schedule::new(seed, plan).play(seed, |schedule| schedule.reopen(edits))
}

impl Schedule {
    fn reopen(&mut self, edits: &[Edit]) -> Result<(), Violation> {
        self.client.be_gentle();
        let mut engine = self.recover(None)?;
        self.disk.set_faults(Faults::default());
        self.live(&mut engine)?;
        self.end(engine)?;
        for edit in edits {
            edit.apply(&self.disk).map_err(|error| Violation::new("disk", told(&error)))?;
        }
        let Ok((found, mut engine)) = self.open_by_and_by() else { return Ok(()) };
        found.iter().try_for_each(is_its_own)?;
        self.go_on(&mut engine)?;
        let again = self.killed(engine)?;
        read(&again).map_err(store)?.iter().try_for_each(is_its_own)
    }
}

impl Edit {
    fn apply(&self, disk: &SimDisk) -> io::Result<()> {
        match self {
            Self::Overwrite { file, offset, bytes } => {
                any(disk, *file)?.write_at(u64::from(*offset) % MOST_BYTES, bytes)
            }
            Self::Misdirect { from, sector, sectors, to, at } => {
                let moved = sectors_of(&*any(disk, *from)?, u64::from(*sector), u64::from(*sectors))?;
                any(disk, *to)?.write_at(u64::from(*at) * SECTOR_BYTES % MOST_BYTES, &moved)
            }
            Self::Resize { file, len } => any(disk, *file)?.set_len(u64::from(*len) % MOST_BYTES),
            Self::Remove(file) => disk.remove(&name(disk, *file)?),
            Self::Copy { file, number } => copy(disk, *file, &format!("{number}.log")),
        }
    }
}

fn sectors_of(file: &dyn DiskFile, first: u64, count: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    let from = (first * SECTOR_BYTES).min(len);
    let until = (from + count * SECTOR_BYTES).min(len);
    let mut bytes = vec![0; usize::try_from(until - from).expect("at most 255 sectors")];
    file.read_at(from, &mut bytes)?;
    Ok(bytes)
}

fn copy(disk: &SimDisk, file: u8, to: &str) -> io::Result<()> {
    let content = disk.content(&name(disk, file)?)?;
    let _ = disk.remove(to);
    disk.create(to)?.write_at(0, &content)
}

fn any(disk: &SimDisk, file: u8) -> io::Result<Arc<dyn DiskFile>> {
    disk.open(&name(disk, file)?)
}

/// A store keeps one file at least, and the edits may have taken that.
fn name(disk: &SimDisk, file: u8) -> io::Result<String> {
    let mut names = disk.list()?;
    names.sort();
    if names.is_empty() {
        disk.create("0.log")?;
        return Ok("0.log".to_owned());
    }
    Ok(names.swap_remove(usize::from(file) % names.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn below<T: TryFrom<u64>>(dice: &mut Dice, end: u64) -> T
    where
        T::Error: std::fmt::Debug,
    {
        T::try_from(dice.below(end)).expect("the end fits")
    }

    fn any_edit(dice: &mut Dice) -> Edit {
        let (file, to) = (below(dice, 256), below(dice, 256));
        match dice.below(6) {
            0 => Edit::Remove(file),
            1 => Edit::Resize { file, len: below(dice, 200_000) },
            2 => Edit::Copy { file, number: below(dice, 8) },
            3 | 4 => Edit::Misdirect {
                from: file,
                sector: below(dice, 130),
                sectors: below(dice, 40),
                to,
                at: below(dice, 130),
            },
            _ => Edit::Overwrite {
                file,
                offset: below(dice, 70_000),
                bytes: (0..dice.below(2000)).map(|_| below(dice, 256)).collect(),
            },
        }
    }

    #[test]
    fn no_folder_makes_a_store_serve_wrong_bodies() {
        for seed in 0..60 {
            let mut dice = Dice::new(seed);
            let edits: Vec<_> = (0..dice.count(1, 4)).map(|_| any_edit(&mut dice)).collect();
            let result = reopen(seed % 16, &edits);
            assert!(result.is_ok(), "{edits:?}: {result:?}");
        }
    }
}
