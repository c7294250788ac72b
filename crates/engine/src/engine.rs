//! The state machine: a batch of commands in, one durable commit and a reply each out.

mod arrive;
mod commit;
mod depart;
mod digest;
mod explain;
mod fail;
mod peek;
mod placement;
mod queues;
mod receive;
mod salvage;
mod select;
mod send;
mod settle;
mod snapshot;
mod survey;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::vec::IntoIter;

use bytes::Bytes;

use crate::command::{Applied, Command, Delivery, Refusal, Reply};
use crate::memory::{Memory, MemoryKey, Remembered};
use crate::message::{AttemptOutcome, DeadReason, Epoch, Hold, Location, Message, QueueId, Row, Seq, Stage};
use crate::messages::{Ageing, Counts, Messages};
use crate::receipt::{Receipt, Sealer};
use crate::settings::Settings;
use crate::store::disk::Space;
use crate::store::record::Batch;
use crate::store::{
    Changes, Loaded, LogDamage, Meta, QueueRecord, QueueState, Store, StoreError, Usage, catching,
};
use crate::time::Timestamp;

/// Most timers that fire in one batch. A million messages scheduled for midnight must not become one commit of seconds,
/// during which nobody is answered; `next_wakeup` stays in the past until the rest is done.
const MAX_SWEPT: usize = 10_000;

/// All queues of one store. Holds in memory what decides the order of messages, and the rows in use; the others and bodies stay on disk.
pub struct Engine {
    pub(crate) store: Store,
    sealer: Sealer,
    meta: Meta,
    queues: BTreeMap<QueueId, Queue>,
    /// Queues that are gone since the last checkpoint.
    deleted: Vec<QueueId>,
    messages: Messages,
    memory: Memory,
    expired: Vec<Bytes>,
    /// Deliveries whose payload could not be read. The next batch buries them.
    corrupt: Vec<(Seq, Epoch)>,
    submitted: VecDeque<Submitted>,
    /// What was found when the store was opened.
    log_damage: Vec<LogDamage>,
    /// One was made since the last checkpoint: without the record that did it nobody would know where messages for it belong.
    has_new_queue: bool,
}

struct Queue {
    record: QueueRecord,
    totals: Totals,
}

/// What happened in a queue since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Stored.
    pub sent: u64,
    /// Handed to an application, every time.
    pub delivered: u64,
    /// Done.
    pub acked: u64,
    /// Given back by their consumer.
    pub released: u64,
    /// Failed: the consumer said so.
    pub nacked: u64,
    /// Failed: never again, and so Dead.
    pub rejected: u64,
    /// Failed: neither settled nor extended in time.
    pub timed_out: u64,
    /// Failed: the consumer is gone.
    pub lost: u64,
    /// Dead since their attempts were used up.
    pub exhausted: u64,
    /// Dead since their ttl passed.
    pub expired: u64,
    /// Gone since their ttl passed, in a queue that does not keep those.
    pub dropped: u64,
    /// Dead since what is stored fails its checksum.
    pub corrupt: u64,
}

impl Totals {
    /// Attempts that failed, in any way.
    pub fn failed(&self) -> u64 {
        self.nacked + self.rejected + self.timed_out + self.lost
    }

    /// Counts an attempt that failed.
    pub fn add_failure(&mut self, outcome: AttemptOutcome) {
        *match outcome {
            AttemptOutcome::Nack => &mut self.nacked,
            AttemptOutcome::Reject => &mut self.rejected,
            AttemptOutcome::AckTimeout => &mut self.timed_out,
            AttemptOutcome::ConsumerLost => &mut self.lost,
        } += 1;
    }

    /// Counts a message that became Dead; those that were rejected are counted as failures.
    pub fn add_death(&mut self, reason: DeadReason) {
        match reason {
            DeadReason::MaxAttempts => self.exhausted += 1,
            DeadReason::Rejected => {}
            DeadReason::Expired => self.expired += 1,
            DeadReason::Corrupt => self.corrupt += 1,
        }
    }
}

/// A queue, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages by state.
    pub counts: Counts,
    /// Since the engine was opened.
    pub totals: Totals,
    /// When the first of the Ready messages was stored.
    pub oldest_ready: Option<Timestamp>,
}

/// A batch on its way.
struct Submitted {
    batch: Batch,
    /// Where the payloads of its messages lie. `None`: it changes nothing, and has no record.
    written: Option<Vec<Location>>,
}

/// A reply whose bodies are read once all of the batch is applied.
enum Pending {
    Done(Reply),
    Handed(Vec<(Seq, Epoch)>),
}

impl Engine {
    /// Goes on from the store's last checkpoint through all batches since. Deliveries of before are held on for one ack
    /// timeout at least, since while the process was away their holders had no way to extend them.
    pub fn open(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        catching(|| Self::load(store, now))
    }

    fn load(mut store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let Loaded { meta, queues, rows, fetch, deliveries, memory } = store.load()?;
        let mut engine = Self {
            store,
            sealer: Sealer::new(meta.receipt_key),
            meta,
            queues: BTreeMap::new(),
            deleted: Vec::new(),
            messages: Messages::load(&rows, fetch),
            memory: Memory::load(deliveries, memory),
            expired: Vec::new(),
            corrupt: Vec::new(),
            submitted: VecDeque::new(),
            log_damage: Vec::new(),
            has_new_queue: false,
        };
        for (id, QueueState { record, turns }) in queues {
            engine.queues.insert(id, Queue::new(record));
            engine.hold_slots(id);
            engine.messages.restore_turns(id, turns);
        }
        engine.replay()?;
        engine.queues.values_mut().for_each(|queue| queue.totals = Totals::default());
        let now = now.max(engine.meta.clock);
        engine.append(Batch { resumes: true, ..Batch::at(now) })?;
        engine.finish()?;
        Ok(engine)
    }

    /// Applies the commands in order, once they are durable.
    ///
    /// After an error nothing of the batch may be confirmed, and the engine must be opened anew; but
    /// [`Full`](StoreError::Full) is as if nothing had been asked.
    pub fn apply(&mut self, now: Timestamp, commands: Vec<Command>) -> Result<Applied, StoreError> {
        debug_assert!(self.submitted.is_empty(), "who submits also finishes");
        self.submit(now, commands)?;
        let mut applied = self.finish()?;
        while !self.corrupt.is_empty() {
            match self.submit(now, Vec::new()) {
                // What was asked is done and has to be answered; the rest waits for room.
                Err(StoreError::Full(_)) => break,
                submitted => submitted?,
            }
            applied.expired.extend(self.finish()?.expired);
        }
        Ok(applied)
    }

    /// Has a batch made durable, once those submitted before are. So that one batch can be written while another is applied:
    /// [`Engine::finish`] applies the oldest. After an error the engine must be opened anew; but
    /// [`Full`](StoreError::Full) is as if this batch had not been submitted.
    pub fn submit(&mut self, now: Timestamp, commands: Vec<Command>) -> Result<(), StoreError> {
        let latest = self.submitted.back().map_or(self.meta.clock, |submitted| submitted.batch.now);
        let corrupt = std::mem::take(&mut self.corrupt);
        let batch = Batch { corrupt, commands, ..Batch::at(now.max(latest)) };
        if self.submitted.is_empty() && !self.has_effect(&batch) {
            self.submitted.push_back(Submitted { batch, written: None });
            return Ok(());
        }
        self.append(batch)
    }

    /// Returns when the oldest batch that was submitted is durable, so that what arrived meanwhile can be submitted before [`Engine::finish`]
    /// applies it.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.store.wait()
    }

    /// Applies the batch that was submitted first, once it is durable. Nothing if there is none.
    pub fn finish(&mut self) -> Result<Applied, StoreError> {
        catching(|| self.finish_first())
    }

    fn finish_first(&mut self) -> Result<Applied, StoreError> {
        let Some(Submitted { batch, written }) = self.submitted.pop_front() else {
            return Ok(Applied::default());
        };
        let pending = match written {
            None => self.answer_alone(batch),
            Some(locations) => {
                self.store.wait()?;
                let pending = self.run(batch, locations);
                self.store.applied();
                pending
            }
        };
        let replies = pending.into_iter().map(|reply| self.complete(reply)).collect::<Result<_, _>>()?;
        let is_due = self.store.is_due(self.messages.changed_pages())?;
        // This batch is applied: that there is no room to make its queues known at once must not refuse it.
        if is_due || (self.has_new_queue && self.store.is_ready()?) {
            self.checkpoint()?;
        }
        self.let_go();
        Ok(Applied { replies, expired: std::mem::take(&mut self.expired) })
    }

    /// How many batches were submitted and not yet applied.
    pub fn submitted(&self) -> usize {
        self.submitted.len()
    }

    /// Writes the last checkpoint, so that the next opening has nothing to replay.
    pub fn close(mut self) -> Result<(), StoreError> {
        while self.submitted() > 0 {
            self.finish()?;
        }
        self.checkpoint()?;
        self.store.settle()
    }

    /// When the engine has something to do by itself; `apply` with no commands does it.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        if self.corrupt.is_empty() { self.messages.next_timer() } else { Some(self.meta.clock) }
    }

    /// Counts of a queue; zeros for one that does not exist.
    pub fn stats(&self, queue: QueueId) -> Stats {
        let oldest = self.messages.index(queue).and_then(|index| index.ready.first());
        // One that cannot be read is found out by who receives it.
        let stored_at = |seq| catching(|| Ok(self.messages.get(seq).map(|row| row.stored_at))).ok().flatten();
        Stats {
            counts: self.messages.counts(queue),
            totals: self.queues.get(&queue).map(|queue| queue.totals).unwrap_or_default(),
            oldest_ready: oldest.and_then(stored_at),
        }
    }

    /// How many messages a Receive could get now.
    pub fn grantable(&self, queue: QueueId) -> u64 {
        if self.queues.get(&queue).is_none_or(|queue| queue.record.gives_nothing()) {
            return 0;
        }
        let max_in_flight = self.settings(queue).map_or(0, |settings| settings.max_in_flight);
        let in_flight = self.messages.counts(queue).in_flight;
        self.messages.eligible(queue).min(max_in_flight.saturating_sub(in_flight))
    }

    /// A copy of what a crash would leave now; only a volatile store can be copied.
    pub fn survivor(&self) -> Option<Store> {
        self.store.copy()
    }

    /// What is left when the process ends, however it ends.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// Lets go of rows that are not in use. Applying does it, too; whoever looks at many messages does it afterwards.
    pub fn let_go(&mut self) {
        self.messages.let_go(self.store.max_pages(), self.store.checkpoints());
    }

    /// Room of the store's volume, see [`Store::space`].
    pub fn space(&self) -> Result<Space, StoreError> {
        self.store.space()
    }

    /// Size of the store's files.
    pub fn disk_used(&self) -> u64 {
        let Usage { log_bytes, state_bytes, .. } = self.store.usage();
        log_bytes + state_bytes
    }

    /// What the store takes, see [`Usage`].
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// See [`Store::keys_in_use`].
    pub fn keys_in_use(&self) -> BTreeMap<String, u64> {
        self.store.keys_in_use()
    }

    fn append(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        let written = self.store.append(&batch);
        if written.is_err() {
            self.corrupt.append(&mut batch.corrupt);
        }
        let written = Some(written?);
        self.submitted.push_back(Submitted { batch, written });
        Ok(())
    }

    /// Whether anything could be different behind the batch. Otherwise it needs no record: people and sidecars ask empty
    /// queues all the time.
    fn has_effect(&self, batch: &Batch) -> bool {
        let is_due = self.next_wakeup().is_some_and(|at| at <= batch.now);
        let is_vain = |command: &Command| match command {
            Command::Receive(receive) => receive.request_id.is_empty() && self.grantable(receive.queue) == 0,
            _ => false,
        };
        is_due || !batch.corrupt.is_empty() || !batch.commands.iter().all(is_vain)
    }

    fn answer_alone(&mut self, batch: Batch) -> Vec<Pending> {
        self.meta.clock = batch.now;
        let mut no_locations = Vec::new().into_iter();
        batch
            .commands
            .into_iter()
            .map(|command| self.execute(batch.now, command, &mut no_locations))
            .collect()
    }

    /// Applies a batch that is durable. The same batches lead to the same state, whenever and wherever they are run.
    fn run(&mut self, batch: Batch, locations: Vec<Location>) -> Vec<Pending> {
        let Batch { now, resumes, corrupt, commands } = batch;
        self.meta.clock = now;
        if resumes {
            self.resume(now);
            return Vec::new();
        }
        for (seq, epoch) in corrupt {
            if self.is_held(seq, epoch) {
                self.bury(now, seq, DeadReason::Corrupt);
            }
        }
        self.sweep(now);
        let mut locations = locations.into_iter();
        commands.into_iter().map(|command| self.execute(now, command, &mut locations)).collect()
    }

    /// Executes a command, whose messages have the next locations.
    fn execute(&mut self, now: Timestamp, command: Command, locations: &mut IntoIter<Location>) -> Pending {
        let reply = match command {
            Command::Configure(configure) => Ok(self.configure(configure)),
            Command::Pause(pause) => self.pause(pause),
            Command::Delete(delete) => self.delete(delete),
            Command::Send(send) => {
                let locations = locations.take(send.messages.len()).collect();
                self.send(now, send, locations)
            }
            Command::Receive(receive) => match self.receive(now, &receive) {
                Ok(handed) => return Pending::Handed(handed),
                Err(refusal) => Err(refusal),
            },
            Command::HandOver(handover) => self.hand_over(handover),
            Command::Settle(settle) => self.settle(now, settle),
            Command::Extend(extend) => self.extend(now, extend),
            Command::Commit(commit) => {
                let messages = commit.send.iter().map(|outgoing| outgoing.messages.len()).sum();
                let locations = locations.take(messages).collect();
                self.commit(now, commit, locations)
            }
            Command::Cancel(cancel) => self.cancel(cancel),
            Command::Redrive(selection) => self.redrive(&selection),
            Command::Purge(selection) => self.purge(&selection),
            Command::Place(place) => self.place(place),
            Command::Arrive(arrive) => self.arrive(arrive),
            Command::Import(import) => {
                let locations: Vec<Location> = locations.take(import.messages.len()).collect();
                self.import(import, locations.into_iter())
            }
            Command::Depart(depart) => self.depart(depart),
            Command::Forget(forget) => self.forget(forget),
            Command::Task(task) => self.task(now, task),
        };
        Pending::Done(reply.unwrap_or_else(Reply::Refused))
    }

    /// What happens by itself: deadlines, delays, ttls, retention; and forgetting.
    fn sweep(&mut self, now: Timestamp) {
        self.memory.sweep(now, MAX_SWEPT);
        for _ in 0..MAX_SWEPT {
            let Some(seq) = self.messages.pop_due(now) else { return };
            match &self.row(seq).stage {
                Stage::Ready => self.expire(now, seq),
                Stage::Delayed { .. } => _ = self.release(now, seq),
                Stage::InFlight(_) => self.time_out(now, seq),
                Stage::Dead { .. } => _ = self.remove(seq),
            }
        }
    }

    /// After a restart: deliveries are held on, and turns begin anew.
    fn resume(&mut self, now: Timestamp) {
        let held: Vec<Seq> = self.messages.in_flight().collect();
        for seq in held {
            self.messages.change(seq, |row| {
                if let Stage::InFlight(hold) = &mut row.stage {
                    hold.deadline = hold.deadline.max(now.plus_ms(hold.ack_timeout_ms));
                }
            });
        }
        self.messages.forget_turns();
    }

    /// Begins a checkpoint of what changed since the last one.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.has_new_queue = false;
        let deleted = self.deleted.drain(..).map(|id| (id, None));
        let state = |(id, queue): (&QueueId, &Queue)| {
            let turns = self.messages.turns(*id);
            (*id, Some(QueueState { record: queue.record.clone(), turns }))
        };
        let changes = Changes {
            sparse: self.store.sparse()?,
            meta: self.meta,
            queues: deleted.chain(self.queues.iter().map(state)).collect(),
            rows: self.messages.freeze(),
            memory: self.memory.freeze(),
        };
        self.store.checkpoint(changes)
    }

    fn complete(&mut self, pending: Pending) -> Result<Reply, StoreError> {
        let handed = match pending {
            Pending::Done(reply) => return Ok(reply),
            Pending::Handed(handed) => handed,
        };
        let mut deliveries = Vec::with_capacity(handed.len());
        for (seq, epoch) in handed {
            let Some((row, hold)) = self.held(seq, epoch) else { continue };
            match self.store.payload(row.location)? {
                Some(payload) => deliveries.push(Delivery {
                    receipt: self.seal(seq, row.queue, epoch),
                    deadline: hold.deadline,
                    epoch,
                    message: Message::new(self.id(seq, row), row, payload),
                }),
                None => self.corrupt.push((seq, epoch)),
            }
        }
        Ok(Reply::Received(deliveries))
    }

    /// Removes a message for good.
    fn remove(&mut self, seq: Seq) -> Option<Row> {
        let row = self.messages.remove(seq)?;
        self.store.freed(row.location);
        Some(row)
    }

    /// This very delivery, if it is in flight: the same batch may have ended it, or begun the next one.
    fn held(&self, seq: Seq, epoch: Epoch) -> Option<(&Row, &Hold)> {
        let row = self.messages.get(seq)?;
        row.hold().filter(|hold| hold.epoch == epoch).map(|hold| (row, hold))
    }

    fn is_held(&self, seq: Seq, epoch: Epoch) -> bool {
        self.held(seq, epoch).is_some()
    }

    fn recall(&self, key: &MemoryKey) -> Option<Remembered> {
        self.memory.get(key, self.meta.clock)
    }

    fn seal(&self, seq: Seq, queue: QueueId, epoch: Epoch) -> Bytes {
        self.sealer.seal(Receipt { queue, seq, epoch })
    }

    /// The row of a message that an index named.
    fn row(&self, seq: Seq) -> &Row {
        self.messages.get(seq).expect("indexes name only stored messages")
    }

    fn settings(&self, queue: QueueId) -> Result<&Settings, Refusal> {
        self.queues.get(&queue).map(|queue| &queue.record.settings).ok_or(Refusal::UnknownQueue)
    }

    /// The settings, unless the queue is being deleted.
    fn open_settings(&self, queue: QueueId) -> Result<&Settings, Refusal> {
        match self.queues.get(&queue) {
            None => Err(Refusal::UnknownQueue),
            Some(queue) if queue.record.is_closed => Err(Refusal::QueueDeleted),
            Some(queue) => Ok(&queue.record.settings),
        }
    }

    fn ageing(&self, queue: QueueId) -> Ageing {
        Ageing { step_ms: self.settings(queue).map_or(0, |settings| settings.priority_step_ms) }
    }

    fn count(&mut self, queue: QueueId, count: impl FnOnce(&mut Totals)) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            count(&mut queue.totals);
        }
    }
}

impl Queue {
    fn new(record: QueueRecord) -> Self {
        Self { record, totals: Totals::default() }
    }
}
