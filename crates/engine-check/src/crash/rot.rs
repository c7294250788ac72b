//! A disk that turns bits over, or loses a file, while the process is down.
//!
//! What was confirmed must be there with its exact body, or the store must name the damage that it is missing for. How much may
//! be missing goes by what is named: no more batches than there are damaged records.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_engine::command::{Applied, NewMessage, Settle};
use ackwell_engine::message::{Message, MessageId};
use ackwell_engine::store::Harm;
use ackwell_engine::store::disk::Disk;
use ackwell_engine::{Command, Engine, Reply, StoreError};
use bytes::Bytes;

use super::client::{body, queues};
use super::compare::all_of;
use super::{Fallen, Plan, Schedule, Tally, Troubles, store, told};
use crate::disk::Faults;
use crate::violation::{Violation, ensure};

const STATE: &str = "state.redb";
/// Openings after which a store is given up: each sets aside what kept it from being read.
const MOST_OPENINGS: usize = 12;
const NAMED: &str = "what is missing or different is named";

/// Plays the schedule of the seed.
pub fn endure(seed: u64) -> Result<Tally, Box<Fallen>> {
    let plan = Plan { troubles: Troubles::PowerCuts, lie: None };
    Schedule::new(seed, plan).play(seed, Schedule::rot)
}

/// What was done in the life before the damage.
#[derive(Default)]
pub(super) struct Life {
    /// In which batch each message was sent, by what tells it from all others.
    sent_in: BTreeMap<String, usize>,
    received: BTreeMap<Bytes, String>,
    /// Messages that somebody tried to settle. Behind a gap that may succeed where it did not before.
    touched: BTreeSet<String>,
}

impl Schedule {
    fn rot(&mut self) -> Result<(), Violation> {
        self.client.be_gentle();
        let mut engine = self.recover(None)?;
        self.disk.set_faults(Faults::default());
        let life = self.live(&mut engine)?;
        self.end(engine)?;
        let is_state_damaged = self.damage()?;
        self.look(&life, is_state_damaged)
    }

    /// The process is stopped, or killed.
    pub(super) fn end(&mut self, engine: Engine) -> Result<(), Violation> {
        if self.dice.one_in(2) {
            engine.close().map_err(store)?;
        } else {
            self.disk.cut_power();
            drop(engine);
        }
        self.disk = self.disk.restarted();
        Ok(())
    }

    pub(super) fn live(&mut self, engine: &mut Engine) -> Result<Life, Violation> {
        let mut life = Life::default();
        for batch in 0..self.dice.count(2, 60) {
            self.clock = self.clock.plus_ms(self.dice.pick(&[0, 0, 1, 40, 3000]));
            let commands = self.client.commands(&mut self.dice, &self.twin);
            let applied = engine.apply(self.clock, commands.clone()).map_err(store)?;
            self.answered(self.clock, &commands, &applied)?;
            commands.iter().for_each(|command| life.note(batch, command));
            life.note_received(&applied);
        }
        Ok(life)
    }

    /// Says whether the state is damaged, too.
    fn damage(&mut self) -> Result<bool, Violation> {
        let mut names = self.disk.list().expect("no fault is planned");
        names.sort();
        let is_filled = |name: &String| self.disk.content(name).is_ok_and(|content| !content.is_empty());
        let logs: Vec<_> =
            names.into_iter().filter(|name| name.strip_suffix(".log").is_some() && is_filled(name)).collect();
        let is_state_damaged = self.dice.one_in(3);
        if self.dice.one_in(8) && logs.len() > 1 {
            // Of the last one nobody could know that it was there.
            let name = self.dice.pick(&logs[..logs.len() - 1]);
            self.story.push(format!("{name} lost"));
            self.disk.remove(&name).expect("it was listed");
            return Ok(false);
        }
        for _ in 0..self.dice.count(1, 3) {
            let name = if is_state_damaged { STATE.to_owned() } else { self.dice.pick(&logs) };
            self.flip(&name)?;
        }
        Ok(is_state_damaged)
    }

    /// A bit of something that is not zero, as a rule.
    fn flip(&mut self, name: &str) -> Result<(), Violation> {
        let content = self.disk.content(name).map_err(|error| Violation::new("disk", told(&error)))?;
        let at = usize::try_from(self.dice.below(content.len() as u64)).expect("files of tests are small");
        let filled = content[at..].iter().position(|byte| *byte != 0).map_or(at, |behind| at + behind);
        let at = if self.dice.one_in(4) { at } else { filled };
        let bit = self.dice.pick(&[0, 1, 2, 3, 4, 5, 6, 7]);
        self.story.push(format!("bit {bit} of byte {at} of {name}"));
        self.tally.flips += 1;
        self.disk.flip(name, at as u64, bit).map_err(|error| Violation::new("disk", told(&error)))
    }

    fn look(&mut self, life: &Life, is_state_damaged: bool) -> Result<(), Violation> {
        match self.open_by_and_by() {
            Ok((found, engine)) => self.compare(life, &found, engine),
            Err(error) => {
                ensure(is_state_damaged, "a damaged log keeps no store from opening", || told(&error))
            }
        }
    }

    /// Opens the store until all of it can be read, or it is given up.
    pub(super) fn open_by_and_by(&mut self) -> Result<(Vec<Message>, Engine), StoreError> {
        let mut openings = 0;
        loop {
            let opened = self.try_open().and_then(|engine| Ok((read(&engine)?, engine)));
            openings += 1;
            if opened.is_ok() || openings == MOST_OPENINGS {
                self.tally.refused += u64::from(opened.is_err());
                return opened;
            }
            self.disk = self.disk.restarted();
        }
    }

    fn compare(&mut self, life: &Life, found: &[Message], mut engine: Engine) -> Result<(), Violation> {
        found.iter().try_for_each(is_its_own)?;
        let twin = self.revived()?;
        let expected = read(&twin).map_err(store)?;
        let missing = missing(found, &expected);
        let damage = engine.damage().map_err(store)?;
        let of_log = engine.log_damage();
        self.story.push(format!("{damage:?} {of_log:?}, missing {}", missing.len()));
        if damage.is_empty() && of_log.is_empty() {
            let is_same = missing.is_empty() && engine.digest() == twin.digest();
            return ensure(is_same, NAMED, || format!("nothing is named, and missing are {missing:?}"));
        }
        self.tally.named += 1;
        let lost: BTreeSet<_> = missing
            .iter()
            .filter(|message| !life.touched.contains(**message))
            .map(|message| life.sent_in.get(*message))
            .collect();
        let is_of_state = damage.len() > of_log.iter().filter(|damage| damage.is_certain()).count();
        let records: u64 = of_log.iter().map(|damage| self.records(&damage.what)).sum();
        let unreadable = elsewhere(found, &expected);
        ensure(is_of_state || lost.len() as u64 <= records + unreadable, NAMED, || {
            format!("{records} records are named; missing are {missing:?} of the batches {lost:?}")
        })?;
        self.go_on(&mut engine)?;
        self.is_over(engine)
    }

    /// How many of them what is named stands for.
    fn records(&self, harm: &Harm) -> u64 {
        match harm {
            Harm::Records { first_lsn, last_lsn, .. } => last_lsn - first_lsn + 1,
            // What follows it may be damaged, too, but each flip is one record's.
            Harm::Tail { .. } => self.tally.flips,
            Harm::Unplaced { .. } => 1,
            Harm::File { .. } => 0,
        }
    }

    /// The store is one like any other.
    pub(super) fn go_on(&mut self, engine: &mut Engine) -> Result<(), Violation> {
        for _ in 0..4 {
            let commands = self.client.commands(&mut self.dice, engine);
            engine.apply(self.clock, commands).map_err(store)?;
        }
        Ok(())
    }

    /// What was damaged in the log is met once, and then a restart changes nothing.
    fn is_over(&mut self, engine: Engine) -> Result<(), Violation> {
        let once = self.killed(engine)?;
        let again = once.log_damage().iter().any(|damage| matches!(damage.what, Harm::Records { .. }));
        ensure(!again, "damage is salvaged once", || format!("{:?}", once.log_damage()))?;
        let digest = once.digest();
        let twice = self.killed(once)?;
        ensure(twice.digest() == digest, "a second recovery changes nothing", || {
            format!("{:?}", twice.log_damage())
        })
    }

    /// The process is killed, and started again.
    pub(super) fn killed(&mut self, engine: Engine) -> Result<Engine, Violation> {
        self.disk.cut_power();
        drop(engine);
        self.disk = self.disk.restarted();
        self.try_open().map_err(store)
    }
}

impl Life {
    fn note(&mut self, batch: usize, command: &Command) {
        match command {
            Command::Send(send) => self.note_sent(batch, &send.messages),
            Command::Settle(settle) => self.note_settled(settle),
            Command::Commit(commit) => {
                commit.settle.iter().for_each(|settle| self.note_settled(settle));
                commit.send.iter().for_each(|outgoing| self.note_sent(batch, &outgoing.messages));
            }
            _ => {}
        }
    }

    fn note_sent(&mut self, batch: usize, messages: &[NewMessage]) {
        let names = messages.iter().map(|message| message.payload.content_type.clone());
        self.sent_in.extend(names.map(|name| (name, batch)));
    }

    fn note_settled(&mut self, settle: &Settle) {
        let named = settle.settlements.iter().filter_map(|(receipt, _)| self.received.get(receipt).cloned());
        self.touched.extend(named.collect::<Vec<_>>());
    }

    fn note_received(&mut self, applied: &Applied) {
        for reply in &applied.replies {
            let Reply::Received(deliveries) = reply else { continue };
            let named = deliveries
                .iter()
                .map(|delivery| (delivery.receipt.clone(), delivery.message.payload.content_type.clone()));
            self.received.extend(named);
        }
    }
}

pub(super) fn read(engine: &Engine) -> Result<Vec<Message>, StoreError> {
    let mut all = Vec::new();
    for queue in queues(engine).filter_map(|(_, queue)| queue) {
        all.extend(all_of(engine, queue)?);
    }
    Ok(all)
}

/// A body is the one that was sent under its name, or shown as what it is: not there.
pub(super) fn is_its_own(message: &Message) -> Result<(), Violation> {
    let payload = &message.payload;
    let number = payload.content_type.strip_prefix("message ").and_then(|number| number.parse().ok());
    let is_right = match number {
        Some(number) => payload.body == body(number, payload.body.len()),
        None => is_unreadable(message),
    };
    ensure(is_right, "no wrong body is served", || format!("{}: {:?}", payload.content_type, message.id))
}

fn is_unreadable(message: &Message) -> bool {
    message.payload.body.is_empty() && message.payload.content_type.is_empty()
}

/// The names of those that are not found, neither where they were nor elsewhere.
fn missing<'a>(found: &[Message], expected: &'a [Message]) -> Vec<&'a str> {
    let by_id: BTreeMap<MessageId, &Message> = found.iter().map(|message| (message.id, message)).collect();
    let names: BTreeSet<&str> = found.iter().map(|message| message.payload.content_type.as_str()).collect();
    let is_there = |message: &&Message| {
        let same = by_id.get(&message.id);
        same.is_some_and(|same| is_unreadable(same) || same.payload == message.payload)
            || names.contains(message.payload.content_type.as_str())
    };
    let missing = expected.iter().filter(|message| !is_there(message));
    missing.map(|message| message.payload.content_type.as_str()).collect()
}

/// How many are there without a body and not under their id: behind a gap messages get new ones.
fn elsewhere(found: &[Message], expected: &[Message]) -> u64 {
    let ids: BTreeSet<MessageId> = expected.iter().map(|message| message.id).collect();
    found.iter().filter(|message| is_unreadable(message) && !ids.contains(&message.id)).count() as u64
}
