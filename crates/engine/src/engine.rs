//! The state machine: a batch of commands in, one durable commit and a reply each out.

mod commit;
mod digest;
mod explain;
mod fail;
mod peek;
mod queues;
mod receive;
mod select;
mod send;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::{Applied, Command, Delivery, Refusal, Reply};
use crate::memory::{Memory, MemoryKey, Remembered};
use crate::message::{DeadReason, Epoch, Message, MessageId, Payload, QueueId, Row, Seq, Stage};
use crate::messages::{Ageing, Counts, Messages};
use crate::receipt::{Receipt, Sealer};
use crate::settings::Settings;
use crate::store::{Changes, Loaded, Meta, QueueRecord, Store, StoreError};
use crate::time::Timestamp;

/// Most timers that fire in one batch. A million messages scheduled for midnight must not become one commit of seconds,
/// during which nobody is answered; `next_wakeup` stays in the past until the rest is done.
const MAX_SWEPT: usize = 10_000;

/// All queues of one store. Holds the rows in memory; bodies stay on disk.
pub struct Engine {
    store: Store,
    sealer: Sealer,
    meta: Meta,
    queues: BTreeMap<QueueId, Queue>,
    /// Queues that are gone since the last commit.
    deleted: Vec<QueueId>,
    messages: Messages,
    memory: Memory,
    payloads: Vec<(Seq, Payload)>,
    expired: Vec<Bytes>,
}

struct Queue {
    record: QueueRecord,
    totals: Totals,
    is_changed: bool,
}

/// What happened in a queue since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Stored.
    pub sent: u64,
    /// Done.
    pub acked: u64,
    /// Attempts that failed, in any way.
    pub failed: u64,
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

/// A reply whose bodies are read once the batch is on disk.
enum Pending {
    Done(Reply),
    Handed(Vec<(Seq, Epoch)>),
}

impl Engine {
    /// Reads the store. Deliveries of before are held on for one ack timeout at least, since while the process was away
    /// their holders had no way to extend them.
    pub fn open(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let Loaded { meta, queues, rows, memory } = store.load()?;
        let queues = queues.into_iter().map(|(id, record)| (id, Queue::new(record, false))).collect();
        let mut engine = Self {
            store,
            sealer: Sealer::new(meta.receipt_key),
            meta,
            queues,
            deleted: Vec::new(),
            messages: Messages::load(rows),
            memory: Memory::load(memory),
            payloads: Vec::new(),
            expired: Vec::new(),
        };
        engine.meta.clock = now.max(meta.clock);
        engine.renew_holds(engine.meta.clock);
        Ok(engine)
    }

    /// Applies the commands in order and returns when all their effects are on disk.
    ///
    /// After an error nothing of the batch may be confirmed, and the engine must be opened anew.
    pub fn apply(&mut self, now: Timestamp, commands: Vec<Command>) -> Result<Applied, StoreError> {
        let now = now.max(self.meta.clock);
        self.meta.clock = now;
        self.sweep(now);
        let pending: Vec<Pending> = commands.into_iter().map(|command| self.execute(now, command)).collect();
        self.persist()?;
        let replies = pending.into_iter().map(|reply| self.complete(reply)).collect::<Result<_, _>>()?;
        Ok(Applied { replies, expired: std::mem::take(&mut self.expired) })
    }

    /// When the engine has something to do by itself; `apply` with no commands does it.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.messages.next_timer()
    }

    /// Counts of a queue; zeros for one that does not exist.
    pub fn stats(&self, queue: QueueId) -> Stats {
        let oldest = self.messages.index(queue).and_then(|index| index.ready.first());
        Stats {
            counts: self.messages.counts(queue),
            totals: self.queues.get(&queue).map(|queue| queue.totals).unwrap_or_default(),
            oldest_ready: oldest.and_then(|seq| self.messages.get(*seq)).map(|row| row.stored_at),
        }
    }

    /// How many messages a Receive could get now.
    pub fn grantable(&self, queue: QueueId) -> u64 {
        if self.queues.get(&queue).is_none_or(|queue| queue.record.is_paused || queue.record.is_closed) {
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

    /// Size of the store's files.
    pub fn disk_used(&self) -> u64 {
        self.store.disk_used()
    }

    fn execute(&mut self, now: Timestamp, command: Command) -> Pending {
        let reply = match command {
            Command::Configure(configure) => Ok(self.configure(configure)),
            Command::Pause(pause) => self.pause(pause),
            Command::Delete(delete) => self.delete(delete),
            Command::Send(send) => self.send(now, send),
            Command::Receive(receive) => match self.receive(now, &receive) {
                Ok(handed) => return Pending::Handed(handed),
                Err(refusal) => Err(refusal),
            },
            Command::HandOver(handover) => self.hand_over(handover),
            Command::Settle(settle) => self.settle(now, settle),
            Command::Extend(extend) => self.extend(now, extend),
            Command::Commit(commit) => self.commit(now, commit),
            Command::Cancel(cancel) => self.cancel(cancel),
            Command::Redrive(selection) => self.redrive(&selection),
            Command::Purge(selection) => self.purge(&selection),
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
                Stage::Dead { .. } => _ = self.messages.remove(seq),
            }
        }
    }

    fn renew_holds(&mut self, now: Timestamp) {
        let held: Vec<(Seq, Row)> = self.messages.in_flight().map(|(seq, row)| (seq, row.clone())).collect();
        for (seq, mut row) in held {
            if let Stage::InFlight(hold) = &mut row.stage {
                hold.deadline = hold.deadline.max(now.plus_ms(hold.ack_timeout_ms));
            }
            self.messages.put(seq, row);
        }
    }

    /// Writes what changed since the last time.
    fn persist(&mut self) -> Result<(), StoreError> {
        let deleted = self.deleted.iter().map(|id| (*id, None));
        let changed = self.queues.iter().filter(|(_, queue)| queue.is_changed);
        let queues: Vec<_> = deleted.chain(changed.map(|(id, queue)| (*id, Some(&queue.record)))).collect();
        if queues.is_empty() && !self.messages.is_changed() && !self.memory.is_changed() {
            return Ok(());
        }
        self.store.commit(&Changes {
            meta: self.meta,
            queues,
            rows: self.messages.changes().collect(),
            payloads: &self.payloads,
            memory: self.memory.changes().collect(),
        })?;
        self.messages.committed();
        self.memory.committed();
        self.payloads.clear();
        self.deleted.clear();
        self.queues.values_mut().for_each(|queue| queue.is_changed = false);
        Ok(())
    }

    fn complete(&mut self, pending: Pending) -> Result<Reply, StoreError> {
        let handed = match pending {
            Pending::Done(reply) => return Ok(reply),
            Pending::Handed(handed) => handed,
        };
        let mut deliveries = Vec::with_capacity(handed.len());
        let mut bad = Vec::new();
        for (seq, epoch) in handed.into_iter().filter(|(seq, epoch)| self.is_held(*seq, *epoch)) {
            match self.store.payload(seq) {
                Ok(Some(payload)) => deliveries.push(self.delivery(seq, epoch, payload)),
                Ok(None) | Err(StoreError::Corrupt { .. }) => bad.push(seq),
                Err(error) => return Err(error),
            }
        }
        bad.into_iter().for_each(|seq| self.bury(self.meta.clock, seq, DeadReason::Corrupt));
        self.persist()?;
        Ok(Reply::Received(deliveries))
    }

    fn delivery(&self, seq: Seq, epoch: Epoch, payload: Payload) -> Delivery {
        let row = self.row(seq);
        Delivery {
            receipt: self.seal(seq, row.queue, epoch),
            deadline: row.hold().expect("the caller checked that it is held").deadline,
            epoch,
            message: Message::new(self.id(seq, row), row, payload),
        }
    }

    /// Whether this very delivery is in flight: the same batch may have ended it, or begun the next one.
    fn is_held(&self, seq: Seq, epoch: Epoch) -> bool {
        self.messages.get(seq).and_then(Row::hold).is_some_and(|hold| hold.epoch == epoch)
    }

    fn recall(&self, key: &MemoryKey) -> Option<&Remembered> {
        self.memory.get(key, self.meta.clock)
    }

    fn seal(&self, seq: Seq, queue: QueueId, epoch: Epoch) -> Bytes {
        self.sealer.seal(Receipt { queue, seq, epoch })
    }

    fn id(&self, seq: Seq, row: &Row) -> MessageId {
        MessageId::new(row.stored_at, self.meta.salt, seq)
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

    fn totals(&mut self, queue: QueueId) -> Option<&mut Totals> {
        self.queues.get_mut(&queue).map(|queue| &mut queue.totals)
    }
}

impl Queue {
    fn new(record: QueueRecord, is_changed: bool) -> Self {
        Self { record, totals: Totals::default(), is_changed }
    }
}
