//! The state as of the last checkpoint, read from its file without redb.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use redb::TableHandle;

use super::OfflineError;
use super::database::{BadPage, Database, Leaf, Step, Suspicion, Table};
use crate::dense::{Page, PageNo, number_at};
use crate::message::{Location, QueueId, Row, Seq};
use crate::messages::Summary;
use crate::store::disk::Disk;
use crate::store::record::Position;
use crate::store::tables::{
    APPLIED, DAMAGED, DELIVERIES, FILE, INDEX, MEMORY, MESSAGES, META, PAYLOADS, QUEUES, SHARD,
};
use crate::store::{Meta, QueueState, codec};

/// The file.
pub(super) struct Checkpoint {
    database: Database,
    tables: Vec<Table>,
    pub(super) kept: Kept,
}

/// What is needed all the time.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) meta: Option<Meta>,
    pub(super) applied: Option<Position>,
    pub(super) queues: BTreeMap<QueueId, QueueState>,
    /// Segments that payloads were moved from.
    moved: BTreeSet<u64>,
}

/// A piece of the file that cannot be believed.
#[derive(Clone, Debug)]
pub(super) enum Flaw {
    /// Nothing of it can be read.
    File(&'static str),
    Header(Suspicion),
    /// Of a table; of the list of tables, whose name is empty.
    Page(String, BadPage),
    /// A row, by its key, although its page is whole.
    Row {
        table: String,
        key: String,
        at: Range<u64>,
    },
    /// A table has not as many rows as it should.
    Count {
        table: String,
        expected: u64,
        found: u64,
    },
    /// What every store has is not there.
    Missing {
        table: &'static str,
        key: &'static str,
    },
}

/// What a row says, as far as it is wanted.
enum Said {
    Shard(Meta),
    Applied(Position),
    Queue(QueueId, QueueState),
    Payload(u64),
    /// It is whole.
    Other,
}

/// What one table has.
#[derive(Clone, Debug)]
pub(super) struct TableSize {
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Checkpoint {
    /// Reads all of it once. Every flaw is told; `Err` inside: nothing can be read, or there is no such file.
    pub(super) fn open(
        disk: &dyn Disk,
        flaw: &mut dyn FnMut(Flaw),
        progress: &mut dyn FnMut(Range<u64>),
    ) -> Result<Option<(Self, Vec<TableSize>)>, OfflineError> {
        let file = match disk.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                flaw(Flaw::File("it is not there"));
                return Ok(None);
            }
            opened => opened?,
        };
        let database = match Database::open(file)? {
            Ok(database) => database,
            Err(why) => {
                flaw(Flaw::File(why));
                return Ok(None);
            }
        };
        database.suspicions().iter().for_each(|suspicion| flaw(Flaw::Header(suspicion.clone())));
        let (tables, steps) = database.tables()?;
        for step in steps {
            match step {
                Step::Branch(used) => progress(used),
                Step::Leaf(leaf) => progress(leaf.used()),
                Step::Bad(page) => flaw(Flaw::Page(String::new(), page)),
            }
        }
        let mut kept = Kept::default();
        let mut sizes = Vec::new();
        for table in &tables {
            sizes.push(kept.read(&database, table, flaw, progress)?);
        }
        let checkpoint = Self { database, tables, kept };
        checkpoint.miss(flaw);
        Ok(Some((checkpoint, sizes)))
    }

    fn miss(&self, flaw: &mut dyn FnMut(Flaw)) {
        let known = [
            META.name(),
            QUEUES.name(),
            MESSAGES.name(),
            INDEX.name(),
            DELIVERIES.name(),
            MEMORY.name(),
            PAYLOADS.name(),
            DAMAGED.name(),
        ];
        for table in known {
            if !self.tables.iter().any(|there| there.name == table) {
                flaw(Flaw::Missing { table, key: "" });
            }
        }
        let rows = [(SHARD, self.kept.meta.is_some()), (APPLIED, self.kept.applied.is_some())];
        for (key, _) in rows.into_iter().filter(|(_, is_there)| !is_there) {
            flaw(Flaw::Missing { table: META.name(), key });
        }
    }

    /// Pages of messages whose summary is not what they are; a broker makes it anew.
    pub(super) fn wrong_summaries(&self, tell: &mut dyn FnMut(PageNo)) -> Result<(), OfflineError> {
        let Some(index) = self.table(INDEX.name()) else { return Ok(()) };
        for page in self.pages() {
            let (no, page) = page?;
            let order = |key: &[u8]| no.cmp(&number(key).unwrap_or_default());
            let summary = self.database.get(index, order)?.ok().flatten();
            if summary.and_then(|bytes| codec::decode_summary(&bytes)) != Some(Summary::of(&page)) {
                tell(no);
            }
        }
        Ok(())
    }

    /// The rows of messages that can be read, in stored order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Result<(Seq, Row), OfflineError>> {
        self.pages().flat_map(|page| match page {
            Ok((no, page)) => rows_of(no, &page).into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    fn pages(&self) -> impl Iterator<Item = Result<(PageNo, Arc<Page<Row>>), OfflineError>> {
        let table = self.table(MESSAGES.name());
        let steps = table.into_iter().flat_map(|table| self.database.walk(table));
        let leaves = steps.filter_map(|step| match step {
            Ok(Step::Leaf(leaf)) => Some(Ok(leaf)),
            Ok(Step::Branch(_) | Step::Bad(_)) => None,
            Err(error) => Some(Err(error.into())),
        });
        leaves.flat_map(|leaf: Result<Leaf, OfflineError>| match leaf {
            Ok(leaf) => {
                leaf.rows().filter_map(|(key, value)| messages(key, value)).map(Ok).collect::<Vec<_>>()
            }
            Err(error) => vec![Err(error)],
        })
    }

    /// Whether payloads of this segment lie here.
    pub(super) fn has_moved(&self, segment: u64) -> bool {
        self.kept.moved.contains(&segment)
    }

    /// The bytes of a moved payload, if they can be read.
    pub(super) fn payload(&self, location: Location) -> io::Result<Option<Vec<u8>>> {
        let Some(table) = self.table(PAYLOADS.name()) else { return Ok(None) };
        let wanted = (location.segment, location.offset);
        let order = |key: &[u8]| wanted.cmp(&place(key).unwrap_or_default());
        Ok(self.database.get(table, order)?.ok().flatten())
    }
}

impl Kept {
    /// Reads a table once.
    fn read(
        &mut self,
        database: &Database,
        table: &Table,
        flaw: &mut dyn FnMut(Flaw),
        progress: &mut dyn FnMut(Range<u64>),
    ) -> Result<TableSize, OfflineError> {
        let mut size = TableSize { name: table.name.clone(), rows: 0, bytes: 0 };
        let mut is_whole = true;
        for step in database.walk(table) {
            match step? {
                Step::Branch(used) => progress(used),
                Step::Bad(page) => {
                    is_whole = false;
                    flaw(Flaw::Page(table.name.clone(), page));
                }
                Step::Leaf(leaf) => {
                    progress(leaf.used());
                    let extent = leaf.extent();
                    size.bytes += extent.end - extent.start;
                    size.rows += leaf.rows().count() as u64;
                    self.read_rows(table, &leaf, flaw)?;
                }
            }
        }
        if is_whole && size.rows != table.rows {
            flaw(Flaw::Count { table: table.name.clone(), expected: table.rows, found: size.rows });
        }
        Ok(size)
    }

    fn read_rows(
        &mut self,
        table: &Table,
        leaf: &Leaf,
        flaw: &mut dyn FnMut(Flaw),
    ) -> Result<(), OfflineError> {
        if table.is_internal {
            return Ok(());
        }
        for ((key, value), at) in leaf.rows().zip(leaf.places()) {
            match say(&table.name, key, value)? {
                Some(said) => self.keep(said),
                None => flaw(Flaw::Row { table: table.name.clone(), key: key_name(&table.name, key), at }),
            }
        }
        Ok(())
    }

    fn keep(&mut self, said: Said) {
        match said {
            Said::Shard(meta) => self.meta = Some(meta),
            Said::Applied(applied) => self.applied = Some(applied),
            Said::Queue(id, queue) => _ = self.queues.insert(id, queue),
            Said::Payload(segment) => _ = self.moved.insert(segment),
            Said::Other => {}
        }
    }
}

fn rows_of(no: PageNo, page: &Page<Row>) -> Vec<(Seq, Row)> {
    page.iter().map(|(slot, row)| (number_at(no, slot), row.clone())).collect()
}

/// What a row says; `None`: it is corrupt.
fn say(table: &str, key: &[u8], value: &[u8]) -> Result<Option<Said>, OfflineError> {
    if table == META.name() && key == SHARD.as_bytes() {
        return match codec::format_of(value) {
            Some(found) if found != codec::FORMAT => {
                Err(OfflineError::Format { found, supported: codec::FORMAT })
            }
            _ => Ok(codec::decode_meta(value).map(Said::Shard)),
        };
    }
    let is = |definition: &str| table == definition;
    Ok(if is(META.name()) {
        codec::decode_position(value).filter(|_| key == APPLIED.as_bytes()).map(Said::Applied)
    } else if is(QUEUES.name()) {
        key.try_into().ok().map(u32::from_le_bytes).map(QueueId).zip(codec::decode_queue(value)).map(queue)
    } else if is(MESSAGES.name()) {
        messages(key, value).map(|_| Said::Other)
    } else if is(INDEX.name()) {
        number(key).zip(codec::decode_summary(value)).map(|_| Said::Other)
    } else if is(DELIVERIES.name()) {
        number(key).and(codec::decode_page(value, codec::read_ended)).map(|_| Said::Other)
    } else if is(MEMORY.name()) {
        codec::decode_memory_key(key).zip(codec::decode_memorized(value)).map(|_| Said::Other)
    } else if is(PAYLOADS.name()) {
        place(key).map(|(segment, _)| Said::Payload(segment))
    } else {
        Some(Said::Other)
    })
}

fn queue((id, queue): (QueueId, QueueState)) -> Said {
    Said::Queue(id, queue)
}

fn messages(key: &[u8], value: &[u8]) -> Option<(PageNo, Arc<Page<Row>>)> {
    number(key).zip(codec::decode_page(value, codec::read_row))
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_le_bytes)
}

/// Segment and offset.
fn place(key: &[u8]) -> Option<(u64, u32)> {
    let (segment, offset) = key.split_at_checked(8)?;
    Some((number(segment)?, offset.try_into().ok().map(u32::from_le_bytes)?))
}

/// A key as people write it.
pub(super) fn key_name(table: &str, key: &[u8]) -> String {
    if table == META.name() || table.is_empty() {
        return String::from_utf8_lossy(key).into_owned();
    }
    let number = match key.len() {
        4 => key.try_into().ok().map(u32::from_le_bytes).map(u64::from),
        8 => number(key),
        _ => None,
    };
    match (number, place(key)) {
        (Some(number), _) => number.to_string(),
        (None, Some((segment, offset))) => format!("segment {segment:016x}, byte {offset}"),
        (None, None) => format!("{key:02x?}"),
    }
}

/// The places of messages whose rows such a page had.
pub(super) fn places(table: &str, page: &BadPage) -> Option<Range<u64>> {
    if table != MESSAGES.name() {
        return None;
    }
    let slots = Page::<Row>::SLOTS as u64;
    let first = page.after.as_deref().and_then(number).map_or(0, |after| after.saturating_add(1));
    let end =
        page.up_to.as_deref().and_then(number).map_or(u64::MAX / slots, |up_to| up_to.saturating_add(1));
    Some(first.saturating_mul(slots)..end.saturating_mul(slots))
}
