//! What a broker would go on from.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::overlay::Overlay;
use super::{Offline, OfflineError};
use crate::engine::Engine;
use crate::message::{MessageId, QueueId, Row, Seq};
use crate::messages::Counts;
use crate::moving::Moves;
use crate::store::backend::Backend;
use crate::store::seal;
use crate::store::tables::FILE;
use crate::store::{Damage, Entropy, Options, QueueRecord, Store, Threads};
use crate::time::Timestamp;

/// The mark after a failed sync, because of which opening copies all of state.redb, and the copy of a damaged segment: here both
/// would be copied into memory and for nothing.
const NOT_COPIED: &[&str] = &["state.suspect", "damaged.new"];
/// Of new segments, which stay empty and take no memory.
const SEGMENT_BYTES: u64 = 1 << 20;
/// So far apart that none is written: it would fill the memory.
const CHECKPOINT_BYTES: u64 = u64::MAX / 16;
/// Kept in memory of those that are read one after the other, once.
const MAX_ROWS: usize = 16 << 10;
/// Page cache of redb while it checks itself.
const CACHE_BYTES: usize = 16 << 20;

/// The messages of a store.
pub(super) struct State<'a> {
    rows: Rows<'a>,
    pub(super) queues: BTreeMap<QueueId, QueueRecord>,
    salt: Option<u32>,
}

enum Rows<'a> {
    /// With all that the log has behind the checkpoint.
    Engine(Box<Engine>),
    /// As of the checkpoint, as far as it can be read.
    Checkpoint(&'a Checkpoint),
    None,
}

impl<'a> State<'a> {
    /// As an engine has it that opens the store, on a copy of what opening changes. `Err`: why it does not open.
    pub(super) fn current(offline: &Offline) -> Result<Self, String> {
        let engine = quietly(|| open(offline))??;
        let queues = engine.queue_records().map(|(id, record)| (id, record.clone())).collect();
        Ok(Self { queues, salt: Some(engine.meta().salt), rows: Rows::Engine(Box::new(engine)) })
    }

    /// As far as the checkpoint can be read.
    pub(super) fn of_checkpoint(checkpoint: Option<&'a Checkpoint>) -> Self {
        let Some(checkpoint) = checkpoint else {
            return Self { rows: Rows::None, queues: BTreeMap::new(), salt: None };
        };
        let queues = checkpoint.kept.queues.iter().map(|(id, queue)| (*id, queue.record.clone())).collect();
        let salt = checkpoint.kept.meta.map(|meta| meta.salt);
        Self { rows: Rows::Checkpoint(checkpoint), queues, salt }
    }

    /// All rows, in stored order.
    pub(super) fn rows(&self) -> Box<dyn Iterator<Item = Result<(Seq, Row), OfflineError>> + '_> {
        match &self.rows {
            Rows::Engine(engine) => Box::new(engine.survey().map(|row| row.map_err(OfflineError::State))),
            Rows::Checkpoint(checkpoint) => Box::new(checkpoint.rows()),
            Rows::None => Box::new(std::iter::empty()),
        }
    }

    /// What a broker set aside, now or earlier, since it could not be read.
    pub(super) fn damage(&self) -> Vec<Damage> {
        match &self.rows {
            Rows::Engine(engine) => engine.damage().unwrap_or_default(),
            Rows::Checkpoint(_) | Rows::None => Vec::new(),
        }
    }

    /// What the engine counts; `None` when there is none.
    pub(super) fn counted(&self, queue: QueueId) -> Option<Counts> {
        match &self.rows {
            Rows::Engine(engine) => Some(engine.stats(queue).counts),
            Rows::Checkpoint(_) | Rows::None => None,
        }
    }

    /// The highest place given out plus 1.
    pub(super) fn next_seq(&self) -> Option<Seq> {
        match &self.rows {
            Rows::Engine(engine) => Some(Seq(engine.meta().next_seq)),
            Rows::Checkpoint(checkpoint) => checkpoint.kept.meta.map(|meta| Seq(meta.next_seq)),
            Rows::None => None,
        }
    }

    /// `None` when what ids are made of is lost.
    pub(super) fn id(&self, seq: Seq, row: &Row) -> Option<MessageId> {
        let moves = self.queues.get(&row.queue).map(|record| &*record.moves);
        self.salt.map(|salt| Moves::id(moves, salt, seq, row.stored_at))
    }

    pub(super) fn queue_name(&self, id: QueueId) -> String {
        self.queues.get(&id).map_or_else(|| format!("#{}", id.0), |record| record.name.clone())
    }
}

fn overlay(offline: &Offline) -> Result<Arc<Overlay>, String> {
    Overlay::over(Arc::clone(&offline.raw), NOT_COPIED).map(Arc::new).map_err(|error| error.to_string())
}

fn open(offline: &Offline) -> Result<Engine, String> {
    let entropy = Entropy { receipt_key: [0; 16], salt: 0 };
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: CHECKPOINT_BYTES,
        max_rows: MAX_ROWS,
        reserve_bytes: 0,
        threads: Threads::One,
    };
    let store =
        Store::on_sealed_disk(overlay(offline)?, entropy, options, offline.keys.clone()).map_err(told)?;
    // At no time of its own: nothing expires by being looked at.
    Engine::open(store, Timestamp(0)).map_err(told)
}

/// redb's own opinion of its file. `Err`: what it found.
pub(super) fn check_redb(offline: &Offline) -> Result<(), String> {
    quietly(|| {
        let disk = seal::cover(overlay(offline)?, offline.keys.clone()).map_err(told)?;
        let file = disk.open(FILE).map_err(|error| error.to_string())?;
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create_with_backend(Backend::new(file)).map(drop).map_err(told)
    })?
}

/// What is damaged in a way that nobody foresaw may panic: here that is one more answer.
fn quietly<T>(look: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(look)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no given reason");
        format!("a broker would panic: {text}")
    })
}

/// With its causes.
fn told(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
