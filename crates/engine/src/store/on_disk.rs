//! A store on a disk: a log that makes every batch durable, and tables that the log's effects are carried into from time to
//! time, so that its beginning can be forgotten.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::disk::{Disk, Space};
use super::log::{Log, Replayed, Source};
use super::record::{self, Batch, Position};
use super::reserve::Reserved;
use super::seal::{self, Keys};
use super::state::{State, Written};
use super::tables::{self, Tables};
use super::worker::{Urgency, Worker};
use super::{Changes, Entropy, Loaded, Options, StoreError, Usage};
use crate::dense::{Page, number_at};
use crate::message::{Location, Payload, QueueId, Row, Seq};
use crate::messages::Stored;

/// A checkpoint that takes so much longer than its share is waited for: otherwise what it leaves to the next one grows, and
/// a restart takes ever longer.
const LATE: u64 = 4;
/// Room is short when less than one in so many bytes of the volume is free.
const SHORT: u64 = 5;

pub(super) struct OnDisk {
    disk: Arc<Reserved>,
    /// The same, as it is beneath what seals.
    files: Arc<dyn Disk>,
    keys: Option<Keys>,
    /// Which of them the state has been sealed with since it was loaded.
    state_key: Option<String>,
    pub(super) state: Arc<State>,
    pub(super) log: Log,
    checkpoints: Worker<Checkpoint>,
    /// One was begun, and it was not looked at yet what it has made needless.
    is_under_way: bool,
    /// A checkpoint for which there was no room, as the one who writes it leaves it.
    undone: Arc<Mutex<Option<Checkpoint>>>,
    /// How many were written, and how long that took.
    written: Arc<Mutex<(u64, Duration)>>,
    /// The same, once that was noticed.
    postponed: Option<Postponed>,
    checkpoint_bytes: u64,
    max_pages: usize,
    /// Checkpoints since it was loaded: begun, and durable.
    begun: u64,
    durable: u64,
    /// Behind the last record that was applied.
    applied: Position,
    /// Behind each that was not yet.
    ends: VecDeque<Position>,
    /// How many were applied that this process appended.
    applied_here: u64,
    /// Appended since the last checkpoint began.
    bytes_since: u64,
    /// Payloads that went since the last checkpoint began, or since the volume was found to have room.
    freed_since: u64,
    /// Segments that nothing needs once the checkpoint being written is durable.
    unused: Vec<u64>,
    /// Segments from which that checkpoint moves payloads into the tables.
    moving: Vec<u64>,
    /// Those from which one did, with how many of their payloads are there.
    moved: BTreeMap<u64, u64>,
    /// Moved payloads that the next checkpoint removes.
    dropped: Vec<Location>,
}

/// What a checkpoint writes.
pub(super) struct Checkpoint {
    pub(super) changes: Changes,
    pub(super) applied: Position,
    /// The sparse segments.
    pub(super) files: Vec<Source>,
    pub(super) dropped: Vec<Location>,
}

/// A checkpoint that waits for room.
struct Postponed {
    checkpoint: Checkpoint,
    /// As much was free when it found none, all of which it may have used up itself.
    free_bytes: u64,
}

impl OnDisk {
    /// Opens the store, or makes it.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        entropy: Entropy,
        options: Options,
        keys: Option<Keys>,
    ) -> Result<Self, StoreError> {
        let files = Arc::clone(&disk);
        let disk = seal::cover(disk, keys.clone())?;
        let disk = Reserved::find(disk, options.reserve_bytes).map_err(StoreError::Files)?;
        let disk = Arc::new(disk);
        let state = Arc::new(State::open(Arc::<Reserved>::clone(&disk), entropy)?);
        let applied = state.read(Tables::applied)?;
        let log = Log::open(Arc::<Reserved>::clone(&disk), options, keys.clone(), applied)?;
        // A process that was killed may have made or renamed what is here, and not made it durable.
        disk.sync_folder().map_err(StoreError::Files)?;
        disk.replenish();
        let (undone, written) = (Arc::default(), Arc::default());
        Ok(Self {
            disk,
            files,
            keys,
            state_key: None,
            checkpoints: Worker::new(
                options.threads,
                "checkpoint",
                Urgency::Low,
                writer(&state, &undone, &written),
            )?,
            is_under_way: false,
            undone,
            written,
            postponed: None,
            state,
            log,
            checkpoint_bytes: options.checkpoint_bytes,
            max_pages: options.max_rows.div_ceil(Page::<Row>::SLOTS),
            begun: 0,
            durable: 0,
            applied,
            ends: VecDeque::new(),
            applied_here: 0,
            bytes_since: 0,
            freed_since: 0,
            unused: Vec::new(),
            moving: Vec::new(),
            moved: BTreeMap::new(),
            dropped: Vec::new(),
        })
    }

    /// Nothing can be appended before everything behind it was replayed.
    pub(super) fn load(&mut self) -> Result<Loaded, StoreError> {
        self.settle()?;
        let applied = self.state.read(Tables::applied)?;
        self.log.rewind(applied);
        self.ends.clear();
        self.applied_here = self.log.appended();
        (self.begun, self.durable) = (0, 0);
        let loaded = State::load(&self.state)?;
        every_queue_is_known(&loaded)?;
        self.dropped.clear();
        let moved = self.state.read(Tables::moved)?;
        self.moved = moved.into_iter().map(|segment| (segment, 0)).collect();
        for (no, summary) in &loaded.rows {
            let seqs = number_at(*no, u8::MIN)..=number_at(*no, u8::MAX);
            summary.stored.iter().for_each(|stored| self.note_stored(seqs.clone(), *stored));
        }
        self.log.segments().can_be_read_from(applied.segment)?;
        self.state_key = seal::rewrap(&*self.files, self.keys.as_ref())?;
        let unused = self.log.segments().unused_before(applied.segment);
        self.log.segments().free(unused).map_err(StoreError::Files)?;
        Ok(loaded)
    }

    pub(super) fn replay(&mut self) -> Result<Option<Replayed>, StoreError> {
        let before = self.log.end();
        let replayed = self.log.replay()?;
        self.applied = self.log.end();
        self.bytes_since += self.log.bytes_since(before);
        Ok(replayed)
    }

    pub(super) fn append(&mut self, batch: &Batch) -> Result<Vec<Location>, StoreError> {
        let before = self.log.end();
        let locations = self.log.append(batch)?;
        self.ends.push_back(self.log.end());
        self.bytes_since += self.log.bytes_since(before);
        Ok(locations)
    }

    /// Returns when the oldest batch that was not yet applied is durable.
    pub(super) fn wait(&mut self) -> Result<(), StoreError> {
        self.log.wait_for(self.applied_here + 1)
    }

    pub(super) fn payload(&self, location: Location) -> Result<Option<Payload>, StoreError> {
        if !self.moved.contains_key(&location.segment) {
            return self.log.payload(location).map_err(StoreError::ReadLog);
        }
        let moved = self.state.read(|tables| tables.payload(location))?;
        Ok(moved.and_then(|bytes| record::decode_payload(&bytes, location.crc)))
    }

    pub(super) fn stored(&mut self, seq: Seq, location: Location) {
        let Location { segment, len, .. } = location;
        self.note_stored(seq..=seq, Stored { segment, messages: 1, bytes: len.into() });
    }

    fn note_stored(&mut self, seqs: RangeInclusive<Seq>, stored: Stored) {
        match self.moved.get_mut(&stored.segment) {
            Some(payloads) => *payloads += stored.messages,
            None => self.log.segments().stored(seqs, stored),
        }
    }

    pub(super) fn freed(&mut self, location: Location) {
        self.freed_since += u64::from(location.len);
        if let Some(payloads) = self.moved.get_mut(&location.segment) {
            *payloads -= 1;
            if *payloads == 0 {
                self.moved.remove(&location.segment);
            }
            self.dropped.push(location);
            return;
        }
        self.log.segments().freed(location);
        if self.moving.contains(&location.segment) {
            self.dropped.push(location);
        }
    }

    /// Segments that the next checkpoint, which begins now, should leave empty.
    pub(super) fn sparse(&mut self) -> Result<Vec<(u64, RangeInclusive<Seq>)>, StoreError> {
        // What the one before left empty is none of them.
        self.settle()?;
        Ok(self.log.segments().sparse_before(self.applied.segment))
    }

    pub(super) fn applied(&mut self) {
        self.applied = self.ends.pop_front().expect("what is applied was appended");
        self.applied_here += 1;
    }

    /// Whether the next checkpoint should begin; waits for the one before when that is late.
    pub(super) fn is_due(&mut self, changed_pages: usize) -> Result<bool, StoreError> {
        let mut is_idle = self.checkpoints.poll()?;
        if is_idle {
            self.forget()?;
        }
        if self.postponed.is_some() {
            self.try_again()?;
            return Ok(false);
        }
        if self.bytes_since >= self.checkpoint_bytes * LATE || changed_pages > self.max_pages {
            is_idle = self.is_ready()?;
        }
        let is_due = self.bytes_since >= self.checkpoint_bytes || changed_pages > self.max_pages / 2;
        Ok(is_idle && (is_due || self.would_make_room()))
    }

    /// Whether room is short and a checkpoint makes some. Without this a full volume from which everything was received could
    /// stay full: acks alone take long to fill as much of the log as makes a checkpoint due.
    fn would_make_room(&mut self) -> bool {
        if self.freed_since < self.checkpoint_bytes {
            return false;
        }
        let is_short = |space: Space| space.free_bytes.saturating_mul(SHORT) < space.total_bytes;
        if self.disk.space().is_ok_and(is_short) {
            return true;
        }
        self.freed_since = 0;
        false
    }

    /// Begins the checkpoint anew for which there was no room, if there is more now.
    fn try_again(&mut self) -> Result<(), StoreError> {
        let free_bytes = self.disk.space().map_err(StoreError::Files)?.free_bytes;
        let has_more = |postponed: &mut Postponed| {
            free_bytes >= postponed.free_bytes.saturating_add(self.checkpoint_bytes)
        };
        match self.postponed.take_if(has_more) {
            Some(Postponed { checkpoint, .. }) => self.begin(checkpoint),
            None => Ok(()),
        }
    }

    fn begin(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.is_under_way = true;
        self.checkpoints.begin(checkpoint)
    }

    /// Everything applied, which is durable, is in the state that the changes lead to.
    pub(super) fn checkpoint(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.settle()?;
        (self.bytes_since, self.freed_since) = (0, 0);
        self.unused = self.log.segments().unused_before(self.applied.segment);
        self.moving = changes.sparse.iter().map(|(segment, _)| *segment).collect();
        let files = self.moving.iter().map(|segment| self.log.segments().source(*segment));
        let files = files.collect::<Result<_, _>>().map_err(StoreError::ReadLog)?;
        let dropped = std::mem::take(&mut self.dropped);
        self.begun += 1;
        self.begin(Checkpoint { changes, applied: self.applied, files, dropped })
    }

    /// Waits until no checkpoint is being written; whether another may begin, as there was room for that one.
    pub(super) fn is_ready(&mut self) -> Result<bool, StoreError> {
        self.checkpoints.wait()?;
        self.forget()?;
        Ok(self.postponed.is_none())
    }

    /// Waits until no checkpoint is being written or has to be.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.is_ready()? {
            return Ok(());
        }
        if let Some(Postponed { checkpoint, .. }) = self.postponed.take() {
            self.begin(checkpoint)?;
        }
        if self.is_ready()? { Ok(()) } else { Err(StoreError::Full(io::ErrorKind::StorageFull.into())) }
    }

    pub(super) fn max_pages(&self) -> usize {
        self.max_pages
    }

    pub(super) fn checkpoints(&self) -> u64 {
        self.durable
    }

    /// What the checkpoint has made needless, unless there was no room for it.
    fn forget(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.is_under_way) {
            return Ok(());
        }
        if let Some(checkpoint) = self.undone.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let free_bytes = self.disk.space().map_err(StoreError::Files)?.free_bytes;
            self.postponed = Some(Postponed { checkpoint, free_bytes });
            return Ok(());
        }
        self.durable = self.begun;
        let mut unused = std::mem::take(&mut self.unused);
        for segment in std::mem::take(&mut self.moving) {
            let payloads = self.log.segments().moved(segment);
            if payloads > 0 {
                self.moved.insert(segment, payloads);
            }
            unused.push(segment);
        }
        self.log.segments().free(unused).map_err(StoreError::Files)?;
        self.disk.replenish();
        Ok(())
    }

    /// How many payloads are in the tables.
    #[cfg(test)]
    pub(super) fn moved_payloads(&self) -> u64 {
        self.moved.values().sum()
    }

    pub(super) fn usage(&self) -> Usage {
        let (checkpoints, checkpoint_time) = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        Usage {
            log_bytes: self.log.bytes(),
            state_bytes: tables::bytes(&*self.disk),
            replay_bytes: self.bytes_since,
            checkpoints,
            checkpoint_time,
            older_key_files: self.older_key_files(),
        }
    }

    /// How many files in use are sealed with each key.
    pub(super) fn keys_in_use(&self) -> BTreeMap<String, u64> {
        let mut used = self.log.keys_in_use();
        if let Some(id) = &self.state_key {
            *used.entry(id.clone()).or_default() += 1;
        }
        used
    }

    fn older_key_files(&self) -> u64 {
        let Some(newest) = self.keys.as_ref().map(Keys::newest_id) else { return 0 };
        self.keys_in_use().into_iter().filter(|(id, _)| *id != newest).map(|(_, files)| files).sum()
    }

    pub(super) fn space(&self) -> Result<Space, StoreError> {
        self.disk.space().map_err(StoreError::Files)
    }
}

/// Writes checkpoints, and leaves one for which there is no room.
fn writer(
    state: &Arc<State>,
    undone: &Arc<Mutex<Option<Checkpoint>>>,
    written: &Arc<Mutex<(u64, Duration)>>,
) -> impl FnMut(Checkpoint) -> Result<(), StoreError> + Send + 'static {
    let (state, undone, written) = (Arc::clone(state), Arc::clone(undone), Arc::clone(written));
    move |checkpoint| {
        let began = state.uptime();
        match state.write(&checkpoint)? {
            Written::Nothing => *undone.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint),
            Written::All => {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                *written = (written.0 + 1, written.1 + state.uptime().saturating_sub(began));
            }
        }
        Ok(())
    }
}

/// Messages of a queue without settings could not be decided over.
fn every_queue_is_known(loaded: &Loaded) -> Result<(), StoreError> {
    let known: BTreeSet<QueueId> = loaded.queues.iter().map(|(id, _)| *id).collect();
    let groups = loaded.rows.iter().flat_map(|(_, summary)| &summary.groups);
    match groups.map(|group| group.alike.queue).find(|queue| !known.contains(queue)) {
        None => Ok(()),
        Some(queue) => Err(StoreError::Corrupt { what: "queue", key: queue.0.to_string() }),
    }
}
