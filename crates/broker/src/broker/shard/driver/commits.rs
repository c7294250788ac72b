//! Commits: made of what is to be done, and written while the one before is applied.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use ackwell_engine::command::NewMessage;
use ackwell_engine::message::QueueId;
use ackwell_engine::moving::Traveller;
use ackwell_engine::{Command, StoreError, Timestamp};
use ackwell_proto::Failure;
use tracing::{error, warn};

use super::asks::{Asked, arriving};
use super::{Asker, Driver, Then, stores};
use crate::broker::refusal;
use crate::clock;

/// Bodies taken into one commit, unless a single command has more. A record of the log holds them all, in memory too.
pub(super) const MAX_BATCH_BYTES: usize = 16 << 20;

/// What was submitted and is not applied.
#[derive(Default)]
pub(super) struct UnderWay {
    commits: VecDeque<Commit>,
}

struct Commit {
    now: Timestamp,
    begun: Instant,
    thens: Vec<Then>,
    /// What is to be done even if it fails.
    owed: Vec<(Command, Then)>,
    asked: HashMap<QueueId, Asked>,
    arriving: HashMap<QueueId, u64>,
}

impl UnderWay {
    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Whether somebody is being asked for there already.
    pub(super) fn has_asked(&self, queue: QueueId) -> bool {
        self.commits.iter().any(|commit| commit.asked.contains_key(&queue))
    }

    /// How many messages it may make available.
    pub(super) fn arriving(&self, queue: QueueId) -> u64 {
        self.commits.iter().filter_map(|commit| commit.arriving.get(&queue)).sum()
    }
}

impl Driver {
    /// Submits what there is to do, and applies what was submitted before.
    ///
    /// What was submitted before is durable by now or waited for, so that the disk writes one commit while this thread
    /// applies another.
    pub(super) fn step(&mut self) {
        let now = clock::now();
        self.add_due(now);
        if self.is_due(now) {
            self.in_vain.clear();
        }
        let were_under_way = !self.under_way.is_empty();
        self.submit(now);
        if were_under_way {
            self.finish();
        }
    }

    /// Whether there is something to do without any new job.
    pub(super) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
            || (self.engine.is_some() && (!self.batch.is_empty() || self.has_more_to_hand()))
    }

    /// Waits until what was submitted is durable.
    pub(super) fn sync(&mut self) {
        let synced = self.engine.as_mut().map_or(Ok(()), ackwell_engine::Engine::sync);
        if let Err(error) = synced {
            self.lose_store(&error);
        }
    }

    fn submit(&mut self, now: Timestamp) {
        let rest = self.batch.split_off(fitting(&self.batch));
        let arriving = arriving(&self.batch);
        let asked = self.add_asks(&arriving);
        self.is_behind = !rest.is_empty();
        let batch = std::mem::replace(&mut self.batch, rest);
        let (owed, has_stores) = (owed(&batch), batch.iter().any(|(command, _)| stores(command)));
        let (commands, thens): (Vec<Command>, Vec<Then>) = batch.into_iter().unzip();
        let is_idle = commands.is_empty() && !(self.under_way.is_empty() && self.is_due(now));
        self.under_way.commits.push_back(Commit {
            now,
            begun: clock::stopwatch(),
            thens,
            owed,
            asked,
            arriving,
        });
        match &mut self.engine {
            None => self.fail(&refusal::storage_unavailable()),
            Some(_) if is_idle => _ = self.under_way.commits.pop_back(),
            Some(engine) => match engine.submit(now, commands) {
                Ok(()) => {}
                Err(error @ StoreError::Full(_)) if has_stores => self.refuse_last(now, &error),
                Err(error) => self.lose_store(&error),
            },
        }
    }

    /// What was submitted last found no room, and is as if it had not been. What needs less may find it.
    fn refuse_last(&mut self, now: Timestamp, error: &StoreError) {
        warn!(error = error as &dyn std::error::Error, "the volume is full");
        self.volume.is_found_full(now);
        let Some(Commit { thens, owed, .. }) = self.under_way.commits.pop_back() else { return };
        let behind = std::mem::replace(&mut self.batch, owed);
        self.batch.extend(behind);
        thens.into_iter().for_each(|then| self.fail_one(now, then, &refusal::storage_failure(error)));
    }

    /// Whether something happens by itself. What is under way may be about to do it.
    fn is_due(&self, now: Timestamp) -> bool {
        let wakeup = self.engine.as_ref().and_then(ackwell_engine::Engine::next_wakeup);
        wakeup.is_some_and(|at| at <= now)
    }

    fn finish(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        match engine.finish() {
            Ok(applied) => {
                if let Some(Commit { now, begun, thens, asked, .. }) = self.under_way.commits.pop_front() {
                    self.told.measures.committed(begun.elapsed());
                    self.asked = asked;
                    if let Some(engine) = &self.engine {
                        self.told.levels.publish(engine);
                    }
                    self.conclude(now, applied, thens);
                }
            }
            Err(error) => self.lose_store(&error),
        }
    }

    fn lose_store(&mut self, error: &StoreError) {
        error!(error = error as &dyn std::error::Error, "the store failed; reopening it");
        if error.is_disk_full() {
            self.volume.is_found_full(clock::now());
        }
        self.engine = None;
        self.told.measures.store_failed();
        self.told.ready.send_replace(false);
        self.fail(&refusal::storage_failure(error));
    }

    /// Whatever is under way fails, and what waits behind it. What is owed is done once the store is open again.
    fn fail(&mut self, failure: &Failure) {
        let now = clock::now();
        let behind = std::mem::take(&mut self.batch);
        let owed_behind = owed(&behind);
        let mut failed = Vec::new();
        for commit in std::mem::take(&mut self.under_way.commits) {
            self.batch.extend(commit.owed);
            failed.extend(commit.thens);
        }
        self.batch.extend(owed_behind);
        failed.extend(behind.into_iter().map(|(_, then)| then));
        failed.into_iter().for_each(|then| self.fail_one(now, then, failure));
    }

    fn fail_one(&mut self, now: Timestamp, then: Then, failure: &Failure) {
        match then {
            Then::Answer(answer) | Then::AnswerSettled(answer, _) => answer.fail(failure.clone()),
            Then::Hand(Asker::Poll(poll)) => _ = poll.reply.send(Err(failure.clone())),
            // Streams stay open: they are served again, and their deliveries extended, once the store is open.
            Then::Extended(id, _) => self.schedule_extension(id, now),
            Then::Hand(Asker::Consumer(..)) | Then::Nothing => {}
        }
    }
}

/// How many commands of the batch make one commit.
pub(super) fn fitting(batch: &[(Command, Then)]) -> usize {
    let mut bytes = 0;
    let fits = |(command, _): &&(Command, Then)| {
        bytes += body_bytes(command);
        bytes <= MAX_BATCH_BYTES
    };
    let fitting = batch.iter().take_while(fits).count();
    fitting.max(1).min(batch.len())
}

pub(super) fn body_bytes(command: &Command) -> usize {
    let of = |messages: &[NewMessage]| messages.iter().map(|message| message.payload.body.len()).sum();
    match command {
        Command::Send(send) => of(&send.messages),
        Command::Commit(commit) => commit.send.iter().map(|outgoing| of(&outgoing.messages)).sum(),
        Command::Import(import) => import.messages.iter().map(Traveller::body_bytes).sum(),
        _ => 0,
    }
}

/// What is to be done even if this commit fails: ends and extensions that nobody would ask for again.
fn owed(batch: &[(Command, Then)]) -> Vec<(Command, Then)> {
    let owed = batch.iter().filter(|(_, then)| matches!(then, Then::Nothing));
    owed.map(|(command, _)| (command.clone(), Then::Nothing)).collect()
}
