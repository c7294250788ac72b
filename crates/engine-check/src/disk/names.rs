//! The names of a folder, and which of them may not be on the medium yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::survival::{Judge, Tick};

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// Who has which name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    shown: BTreeMap<String, FileId>,
    synced: BTreeMap<String, FileId>,
    unsynced: Vec<Change>,
}

/// One change of the folder, as what becomes of the names: never half of it.
#[derive(Clone, Debug)]
struct Change {
    at: Tick,
    names: Vec<(String, Option<FileId>)>,
}

impl Names {
    pub(super) fn get(&self, name: &str) -> io::Result<FileId> {
        self.shown.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, FileId)> {
        self.shown.iter().map(|(name, id)| (name.as_str(), *id))
    }

    pub(super) fn create(&mut self, tick: &mut Tick, name: &str, id: FileId) -> io::Result<()> {
        if self.shown.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(tick, vec![(name.to_owned(), Some(id))]);
        Ok(())
    }

    pub(super) fn rename(&mut self, tick: &mut Tick, from: &str, to: &str) -> io::Result<()> {
        let id = self.get(from)?;
        if from != to {
            self.change(tick, vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, tick: &mut Tick, name: &str) -> io::Result<()> {
        self.get(name)?;
        self.change(tick, vec![(name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        self.synced.clone_from(&self.shown);
        self.unsynced.clear();
    }

    pub(super) fn oldest_unsynced(&self) -> Option<Tick> {
        self.unsynced.first().map(|change| change.at)
    }

    /// What is left after a power cut. A change is lost with those before it that have a name in common with it: two
    /// changes of one name are not made in the other order.
    pub(super) fn survive(&self, judge: &mut Judge) -> Self {
        let mut shown = self.synced.clone();
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for Change { at, names } in &self.unsynced {
            let is_kept =
                judge.kept(&[*at]) == 1 && names.iter().all(|(name, _)| !lost.contains(name.as_str()));
            if is_kept {
                assign(&mut shown, names);
            } else {
                lost.extend(names.iter().map(|(name, _)| name.as_str()));
            }
        }
        Self { synced: shown.clone(), shown, unsynced: Vec::new() }
    }

    fn change(&mut self, tick: &mut Tick, names: Vec<(String, Option<FileId>)>) {
        assign(&mut self.shown, &names);
        self.unsynced.push(Change { at: *tick, names });
        *tick += 1;
    }
}

fn assign(entries: &mut BTreeMap<String, FileId>, names: &[(String, Option<FileId>)]) {
    for (name, id) in names {
        match id {
            Some(id) => _ = entries.insert(name.clone(), *id),
            None => _ = entries.remove(name),
        }
    }
}
