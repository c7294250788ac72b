//! The tables behind one door: redb goes on after no failed write, so that they are opened anew when the volume was full.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::disk::Disk;
use super::on_disk::Checkpoint;
use super::tables::{PAGE, Tables};
use super::{Entropy, Loaded, StoreError, unreadable};
use crate::dense::{Page, PageNo};
use crate::message::Row;

#[derive(Debug)]
pub(super) struct State {
    disk: Arc<dyn Disk>,
    entropy: Entropy,
    /// `None`: they could not be opened anew.
    tables: RwLock<Option<Tables>>,
}

/// What became of a checkpoint.
pub(super) enum Written {
    /// It is durable.
    All,
    /// There was no room: it is as if it had not been begun.
    Nothing,
}

impl State {
    /// Opens the tables, or makes them.
    pub(super) fn open(disk: Arc<dyn Disk>, entropy: Entropy) -> Result<Self, StoreError> {
        let tables = RwLock::new(Some(Tables::open(&disk, entropy)?));
        Ok(Self { disk, entropy, tables })
    }

    /// What they have, also while a checkpoint is being written.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().ok_or(StoreError::Failed)?;
        tables.guarded(|| read(tables))
    }

    /// All but the rows, which are read when they are needed.
    pub(super) fn load(self: &Arc<Self>) -> Result<Loaded, StoreError> {
        let state = Arc::clone(self);
        self.read(|tables| tables.load(Arc::new(move |no| state.rows_or_end(no))))
    }

    /// A page that makes no sense is set aside: the store opens again without it.
    fn rows_or_end(&self, no: PageNo) -> Arc<Page<Row>> {
        let rows = |tables: &Tables| match tables.rows(no) {
            Err(error @ StoreError::Corrupt { what: PAGE, .. }) => tables.set_page_aside(no).and(Err(error)),
            read => read,
        };
        self.read(rows).unwrap_or_else(|error| unreadable::end_with(error))
    }

    pub(super) fn write(&self, checkpoint: &Checkpoint) -> Result<Written, StoreError> {
        match self.read(|tables| tables.write(checkpoint)) {
            Err(error) if error.is_disk_full() => self.reopen().map(|()| Written::Nothing),
            written => written.map(|()| Written::All),
        }
    }

    /// See [`Disk::uptime`].
    pub(super) fn uptime(&self) -> Duration {
        self.disk.uptime()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Two of them would write one file.
        drop(tables.take());
        *tables = Some(Tables::open(&self.disk, self.entropy)?);
        Ok(())
    }
}
