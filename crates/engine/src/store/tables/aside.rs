//! Damaged rows of tables, set aside: kept as they were found, for `ackwell export` and whoever looks into it, and no longer
//! part of the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{INDEX, MESSAGES, Tables, checkpoint_error, read_error};
use crate::dense::{Page, PageNo};
use crate::message::{Row, Seq};
use crate::messages::Summary;
use crate::store::damage::Damage;
use crate::store::{StoreError, codec};

/// By the name of the table and the key there.
pub(in crate::store) const DAMAGED: TableDefinition<(&str, &[u8]), &[u8]> = TableDefinition::new("damaged");

/// A row that stands for what is missing since the file was made anew.
pub(super) const WHOLE_FILE: (&str, &[u8]) = ("file", b"state.redb");

impl Tables {
    /// Takes a page of messages, and what is known of it, out of the state.
    pub(in crate::store) fn set_page_aside(&self, no: PageNo) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(checkpoint_error)?;
        page_aside(&write, no).map_err(StoreError::Checkpoint)?;
        write.commit().map_err(checkpoint_error)
    }

    /// Makes what is known of pages agree with the pages: one that cannot be read is set aside.
    pub(super) fn mend_index(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(checkpoint_error)?;
        mend_index(&write).map_err(StoreError::Checkpoint)?;
        write.commit().map_err(checkpoint_error)
    }

    /// Takes rows of another table out of the state.
    pub(super) fn set_aside<K>(
        &self,
        table: TableDefinition<K, &[u8]>,
        keys: &[K::SelfType<'_>],
    ) -> Result<(), StoreError>
    where
        K: redb::Key + 'static,
    {
        if keys.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(checkpoint_error)?;
        for key in keys {
            move_aside(&write, table, key).map_err(StoreError::Checkpoint)?;
        }
        write.commit().map_err(checkpoint_error)
    }

    /// All that was set aside.
    pub(in crate::store) fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        let read = self.database.begin_read().map_err(read_error)?;
        let table = read.open_table(DAMAGED).map_err(read_error)?;
        let mut found = Vec::new();
        for entry in table.iter().map_err(read_error)? {
            let (key, value) = entry.map_err(read_error)?;
            let (table, key) = key.value();
            found.extend(describe(table, key, value.value()));
        }
        Ok(found)
    }
}

fn page_aside(write: &WriteTransaction, no: PageNo) -> Result<(), redb::Error> {
    move_aside(write, MESSAGES, &no)?;
    move_aside(write, INDEX, &no)
}

fn move_aside<K>(
    write: &WriteTransaction,
    from: TableDefinition<K, &[u8]>,
    key: &K::SelfType<'_>,
) -> Result<(), redb::Error>
where
    K: redb::Key + 'static,
{
    use redb::TableHandle;
    let name = from.name().to_owned();
    let mut table = write.open_table(from)?;
    let mut damaged = write.open_table(DAMAGED)?;
    if let Some(value) = table.remove(key)? {
        damaged.insert((name.as_str(), K::as_bytes(key).as_ref()), value.value())?;
    }
    Ok(())
}

fn mend_index(write: &WriteTransaction) -> Result<(), redb::Error> {
    for no in pages(write)? {
        let summary = {
            let index = write.open_table(INDEX)?;
            let summary = index.get(no)?;
            summary.and_then(|bytes| codec::decode_summary(bytes.value()))
        };
        match (page(write, no)?, summary) {
            (Some(_), Some(_)) => {}
            (Some(page), None) => {
                let summary = codec::encode_summary(&Summary::of(&page));
                write.open_table(INDEX)?.insert(no, summary.as_slice())?;
            }
            (None, _) => page_aside(write, no)?,
        }
    }
    Ok(())
}

/// All that either table has.
fn pages(write: &WriteTransaction) -> Result<BTreeSet<PageNo>, redb::Error> {
    let mut numbers = BTreeSet::new();
    for table in [MESSAGES, INDEX] {
        for entry in write.open_table(table)?.iter()? {
            numbers.insert(entry?.0.value());
        }
    }
    Ok(numbers)
}

fn page(write: &WriteTransaction, no: PageNo) -> Result<Option<Arc<Page<Row>>>, redb::Error> {
    let messages = write.open_table(MESSAGES)?;
    let bytes = messages.get(no)?;
    Ok(bytes.and_then(|bytes| codec::decode_page(bytes.value(), codec::read_row)))
}

/// What it was, where that can be told. Nothing of a summary: its page is there, or is listed itself.
fn describe(table: &str, key: &[u8], value: &[u8]) -> Option<Damage> {
    let no = || Some(u64::from_le_bytes(key.try_into().ok()?));
    let (what, lost) = match table {
        "messages" => (format!("page {} of messages", no()?), "these messages are missing".to_owned()),
        "index" => {
            let summary = codec::decode_summary(value)?;
            (format!("page {} of messages", no()?), missing(no()?, &summary))
        }
        "file" => {
            let lost =
                "it was made anew from what could be read; messages and what is remembered may be missing";
            (String::from_utf8_lossy(key).into_owned(), lost.to_owned())
        }
        "deliveries" => {
            let lost = "settling one of its deliveries again is refused instead of repeating the answer";
            (format!("page {} of deliveries", no()?), lost.to_owned())
        }
        _ => {
            let lost = "a request or dedup id is not remembered: a repeated send is stored twice".to_owned();
            (format!("row {key:02x?} of {table}"), lost)
        }
    };
    Some(Damage { what, lost })
}

fn missing(no: PageNo, summary: &Summary) -> String {
    let groups = summary.groups.iter().map(|group| {
        let places = group.slots.runs().map(|(first, last)| {
            let [first, last] = [first, last].map(|slot| crate::dense::number_at::<Seq>(no, slot).0);
            format!("{first}..={last}")
        });
        let places: Vec<String> = places.collect();
        format!(
            "{} {:?} of queue {} at {}",
            group.slots.len(),
            group.alike.state,
            group.alike.queue.0,
            places.join(", ")
        )
    });
    let groups: Vec<String> = groups.collect();
    format!("messages are missing: {}", groups.join("; "))
}
