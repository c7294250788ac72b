//! Applying what follows a gap in the log.
//!
//! Behind damaged records the places, deliveries and queues that commands speak of may not be those that they were given
//! out as: whatever was given out behind the gap is not known. So nothing of it is honoured, and no confirmed message is
//! given up: `docs/storage-format.md` says of each command what becomes of it.

use std::vec::IntoIter;

use super::Engine;
use super::send::Room;
use crate::command::{
    Batch as Whole, Command, Commit, Outgoing, Refusal, Reply, Send, Sent, Settle, Settled,
};
use crate::memory::{MemoryKey, Remembered};
use crate::message::{DeadReason, Location, QueueId};
use crate::moving::Import;
use crate::settings::IDEMPOTENCY_WINDOW_MS;
use crate::store::record::Batch;
use crate::store::{Damage, Harm, LogDamage, Replayed, StoreError};
use crate::time::Timestamp;

/// More places and deliveries than were given out between two checkpoints, and far fewer than there are.
const SKIPPED: u64 = 1 << 32;
/// The same of queues.
const SKIPPED_QUEUES: u32 = 1 << 16;

impl Engine {
    /// Applies what was written since the checkpoint. Behind a gap that is salvaged, which is written at once, so that no gap is
    /// met twice: from then on the log goes on as if nothing were missing.
    pub(super) fn replay(&mut self) -> Result<(), StoreError> {
        let mut is_salvaging = false;
        while let Some(replayed) = self.store.replay()? {
            if replayed.is_behind_gap && !is_salvaging {
                is_salvaging = true;
                self.begin_salvage();
            }
            if is_salvaging {
                self.salvage(replayed);
            } else {
                self.run(replayed.batch, replayed.locations);
            }
            self.expired.clear();
        }
        self.log_damage.splice(0..0, self.store.log_damage());
        if self.log_damage.iter().any(LogDamage::is_certain) {
            self.store.quarantine(&self.log_damage);
            self.checkpoint()?;
            self.store.settle()?;
        }
        Ok(())
    }

    /// What could not be read and is missing therefore: of the state, now or in earlier times; of the log, when it was opened.
    pub fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        let of_log = self.log_damage.iter().filter(|damage| damage.is_certain()).map(LogDamage::told);
        Ok(self.store.damage()?.into_iter().chain(of_log).collect())
    }

    /// What of the log was found damaged when it was opened, also what need not be damage.
    pub fn log_damage(&self) -> &[LogDamage] {
        &self.log_damage
    }

    /// Nothing that was given out behind the gap may be taken for what is given out from now on.
    fn begin_salvage(&mut self) {
        self.meta.next_seq += SKIPPED;
        self.meta.next_epoch += SKIPPED;
        self.meta.next_queue += SKIPPED_QUEUES;
        for queue in self.queues.values_mut() {
            queue.record.moves.departure.transfers.values_mut().for_each(|transfer| *transfer += SKIPPED);
        }
    }

    /// Applies a record behind a gap.
    fn salvage(&mut self, replayed: Replayed) {
        let Replayed { batch: Batch { now, resumes, corrupt, commands }, locations, at, .. } = replayed;
        self.meta.clock = now;
        if resumes {
            return self.resume(now);
        }
        for (seq, epoch) in corrupt {
            if self.is_held(seq, epoch) {
                self.bury(now, seq, DeadReason::Corrupt);
            }
        }
        self.sweep(now);
        let mut locations = locations.into_iter();
        for command in commands {
            for (queue, messages) in self.salvage_command(now, command, &mut locations) {
                let what = Harm::Unplaced { queue: queue.0, messages };
                self.log_damage.push(LogDamage { what, segment: at.segment, offset: at.offset });
            }
        }
    }

    /// Says which queues are not known, and how many messages were for each.
    fn salvage_command(
        &mut self,
        now: Timestamp,
        command: Command,
        locations: &mut IntoIter<Location>,
    ) -> Vec<(QueueId, u64)> {
        match command {
            // One gave out deliveries that nobody knows. The other fixed a page of places that may hold others now: what it removed
            // comes twice, and nothing is lost.
            Command::Receive(_) | Command::Depart(_) => Vec::new(),
            Command::Send(send) => self.salvage_send(now, send, locations).1.into_iter().collect(),
            Command::Commit(commit) => self.salvage_commit(now, commit, locations),
            Command::Import(import) => self.salvage_import(import, locations).into_iter().collect(),
            // Receipts and ids that were given out behind the gap fit nothing.
            Command::Configure(_)
            | Command::Pause(_)
            | Command::Delete(_)
            | Command::HandOver(_)
            | Command::Settle(_)
            | Command::Extend(_)
            | Command::Cancel(_)
            | Command::Redrive(_)
            | Command::Purge(_)
            | Command::Place(_)
            | Command::Arrive(_)
            | Command::Forget(_)
            | Command::Task(_) => {
                self.execute(now, command, locations);
                Vec::new()
            }
        }
    }

    /// A page whose arrival is not known is stored under new ids: its source has forgotten it.
    fn salvage_import(
        &mut self,
        import: Import,
        locations: &mut IntoIter<Location>,
    ) -> Option<(QueueId, u64)> {
        let (queue, messages) = (import.queue, import.messages.len());
        let locations: Vec<Location> = locations.take(messages).collect();
        match self.import(import.clone(), locations.clone().into_iter()) {
            Ok(_) => None,
            Err(Refusal::UnknownQueue) => Some((queue, messages as u64)),
            Err(_) => {
                self.store_astray(import, locations.into_iter());
                None
            }
        }
    }

    /// Stores what there was room for in the first life, when more may have been gone.
    fn salvage_send(
        &mut self,
        now: Timestamp,
        send: Send,
        locations: &mut IntoIter<Location>,
    ) -> (Vec<Sent>, Option<(QueueId, u64)>) {
        let (queue, messages) = (send.queue, send.messages.len());
        let locations = locations.take(messages).collect();
        match self.send_into(now, send, locations, &mut Room::boundless()) {
            Ok(results) => (results.into_iter().flatten().collect(), None),
            Err(Refusal::UnknownQueue) => (Vec::new(), Some((queue, messages as u64))),
            Err(_) => (Vec::new(), None),
        }
    }

    /// Does what can be done of it: that it was done as a whole is known, if it was done at all.
    fn salvage_commit(
        &mut self,
        now: Timestamp,
        commit: Commit,
        locations: &mut IntoIter<Location>,
    ) -> Vec<(QueueId, u64)> {
        let Commit { settle, send, request_id } = commit;
        let key = MemoryKey::Request(QueueId::NONE, request_id.into());
        let messages = send.iter().map(|outgoing| outgoing.messages.len()).sum();
        let mut locations = locations.take(messages).collect::<Vec<_>>().into_iter();
        if self.recall(&key).is_some() {
            return Vec::new();
        }
        let settled: Vec<_> = settle.into_iter().map(|settle| self.salvage_settle(now, settle)).collect();
        let (mut sent, mut unknown) = (Vec::new(), Vec::new());
        for Outgoing { queue, messages } in send {
            let whole = Send { queue, messages, batch: Whole::Each, request_id: String::new() };
            let (stored, lost) = self.salvage_send(now, whole, &mut locations);
            sent.push(stored);
            unknown.extend(lost);
        }
        // A repetition is answered with what was done, if that was all of it.
        let settled = settled.into_iter().collect::<Option<Vec<_>>>().filter(|_| unknown.is_empty());
        if let Some(settled) = settled.filter(|_| !key.is_empty_request()) {
            self.memory.put(key, now.plus_ms(IDEMPOTENCY_WINDOW_MS), Remembered::Committed(settled, sent));
        }
        unknown
    }

    /// `None`: not all of it could be settled.
    fn salvage_settle(&mut self, now: Timestamp, settle: Settle) -> Option<Vec<Settled>> {
        match self.settle(now, settle) {
            Ok(Reply::Settled(results)) => results.into_iter().collect::<Result<_, _>>().ok(),
            _ => None,
        }
    }
}
