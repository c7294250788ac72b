//! The store on a [simulated disk](crate::disk) that loses its power, fails or is full, again and again, in recoveries too.
//!
//! Beside the engine on the disk a twin without one does the same. The process dies and is started again, and then the
//! engine must be, to the digest and to every byte of every body, what its twin is, with the batch that nobody heard an
//! answer to or without it: what was confirmed is there, what was acked stays gone, and nothing is half done. What it answers
//! from then on must be what the twin answers, receipts and repetitions of before included. That the twin itself is right
//! is not looked at here: [`check`](crate::check) does.

mod client;
mod compare;
mod folder;
mod rot;
mod trouble;

use std::ops::Add;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ackwell_engine::command::Applied;
use ackwell_engine::store::seal::Keys;
use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Command, Engine, Store, StoreError, Timestamp};

use crate::dice::Dice;
use crate::disk::{Faults, Lie, SimDisk};
use crate::violation::{Violation, ensure};
use client::Client;
use compare::{difference, is_counted_right, unlike};
pub use folder::{Edit, reopen};
pub use rot::endure;
pub use trouble::Troubles;

const START: Timestamp = Timestamp(1_000_000_000);
const ENTROPY: Entropy = Entropy { receipt_key: [7; 16], salt: 0x00ab_cdef };
/// Lives of one shard, at most: each ends in some trouble.
const MOST_LIVES: u64 = 4;
/// Recoveries that are struck, of one life, at most.
const MOST_STRUCK: u64 = 3;

/// Batches at which the clock is set back, one in so many.
const CLOCK_SET_BACK_ONCE_IN: u64 = 60;
/// Schedules in which the store has its own threads, one in so many: these cannot be played again exactly.
const SEVERAL_THREADS_ONCE_IN: u64 = 16;
/// Seeds with which the store is sealed.
const SEALED_ONCE_IN: u64 = 3;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches that were answered.
    pub batches: u64,
    /// Power cuts, kills, errors and full disks.
    pub troubles: u64,
    /// How many of these came while the store was being opened.
    pub in_recovery: u64,
    /// Batches that nobody got an answer to, and that were there all the same.
    pub unheard: u64,
    /// Bits that were turned over.
    pub flips: u64,
    /// Stores that named damage.
    pub named: u64,
    /// Stores that did not open, since their state was damaged.
    pub refused: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            troubles: self.troubles + other.troubles,
            in_recovery: self.in_recovery + other.in_recovery,
            unheard: self.unheard + other.unheard,
            flips: self.flips + other.flips,
            named: self.named + other.named,
            refused: self.refused + other.refused,
        }
    }
}

/// What a schedule is to meet.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What ends the lives of the shard.
    pub troubles: Troubles,
    /// A sync that lies, to see that this is found out.
    pub lie: Option<Lie>,
}

/// A schedule that ends in a violation.
#[derive(Clone, Debug)]
pub struct Fallen {
    /// What it comes from.
    pub seed: u64,
    /// How it went, one line a life.
    pub story: Vec<String>,
    /// Where that ends.
    pub violation: Violation,
}

/// Plays the schedule of the seed.
pub fn survive(seed: u64, plan: Plan) -> Result<Tally, Box<Fallen>> {
    Schedule::new(seed, plan).play(seed, Schedule::run)
}

struct Schedule {
    dice: Dice,
    plan: Plan,
    options: Options,
    disk: SimDisk,
    /// What the store is sealed with.
    keys: Option<Keys>,
    /// What the machine's clock says, except where it is set back. Not over a restart: what was asked and changed nothing
    /// leaves no trace of its time.
    clock: Timestamp,
    twin: Engine,
    client: Client,
    tally: Tally,
    story: Vec<String>,
}

/// A batch that nobody got an answer to, and when it was tried.
type Unheard = Option<(Timestamp, Vec<Command>)>;

impl Schedule {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(dice.roll());
        let client = Client::new(&mut dice);
        let options = small(&mut dice);
        let twin = Engine::open(Store::volatile(ENTROPY), START).expect("nothing can be wrong with it");
        Self {
            dice,
            plan,
            options,
            disk,
            keys: seed.is_multiple_of(SEALED_ONCE_IN).then(|| keys(1)),
            clock: START,
            twin,
            client,
            tally: Tally::default(),
            story: Vec::new(),
        }
    }

    fn play(
        mut self,
        seed: u64,
        play: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<Tally, Box<Fallen>> {
        let result = catch_unwind(AssertUnwindSafe(|| play(&mut self)))
            .unwrap_or_else(|panic| Err(Violation::of(&*panic)));
        match result {
            Ok(()) => Ok(self.tally),
            Err(violation) => Err(Box::new(Fallen { seed, story: self.story, violation })),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let mut engine = self.recover(None)?;
        for _ in 0..self.dice.count(1, MOST_LIVES) {
            let trouble = self.plan.troubles.any(&mut self.dice);
            let faults = trouble.faults(&mut self.dice, &self.disk);
            self.disk.set_faults(trouble::lying(faults, self.plan.lie));
            let unheard = self.work(&mut engine)?;
            self.story.push(format!(
                "{trouble:?} {faults:?}: {:?}, unheard {}",
                self.disk.asked(),
                unheard.is_some()
            ));
            self.tally.troubles += 1;
            self.disk = trouble.end(Some(engine), &self.disk, self.dice.roll()).map_err(store)?;
            self.clock = self.clock.plus_ms(self.dice.pick(&[0, 1, 900, 15_000, 200_000]));
            self.rotate_keys();
            engine = self.recover(unheard)?;
        }
        Ok(())
    }

    /// What is new is sealed with another key from now on, as a rule.
    fn rotate_keys(&mut self) {
        if let Some(there) = &self.keys
            && !self.dice.one_in(3)
        {
            _ = there.follow(&keys(there.ids().len() + 1));
        }
    }

    /// Batches until something goes wrong, or it is enough.
    fn work(&mut self, engine: &mut Engine) -> Result<Unheard, Violation> {
        for _ in 0..self.dice.count(1, 40) {
            self.clock = self.clock.plus_ms(self.dice.pick(&[0, 0, 1, 40, 40, 3000]));
            let is_set_back = self.dice.one_in(CLOCK_SET_BACK_ONCE_IN);
            let now = if is_set_back { Timestamp(self.clock.0 - 10_000) } else { self.clock };
            let commands = self.client.commands(&mut self.dice, &self.twin);
            match engine.apply(now, commands.clone()) {
                Ok(applied) => self.answered(now, &commands, &applied)?,
                // As if nothing had been asked.
                Err(StoreError::Full(_)) if self.disk.asked().errors > 0 => {}
                Err(error) => {
                    self.expect(&error)?;
                    return Ok(Some((now, commands)));
                }
            }
            is_counted_right(engine)?;
        }
        Ok(None)
    }

    fn answered(&mut self, now: Timestamp, commands: &[Command], applied: &Applied) -> Result<(), Violation> {
        let expected = self.twin.apply(now, commands.to_vec()).map_err(store)?;
        self.tally.batches += 1;
        for ((command, reply), expected) in commands.iter().zip(&applied.replies).zip(&expected.replies) {
            ensure(reply == expected, "answers are those of the twin", || {
                format!("{command:?}\n  {}", unlike(reply, expected))
            })?;
            self.client.learn(command, reply);
        }
        ensure(applied.expired == expected.expired, "timeouts are those of the twin", || {
            format!("{commands:?}")
        })
    }

    /// Opens the store, however often it is struck meanwhile, and finds out whether the last batch is there.
    fn recover(&mut self, unheard: Unheard) -> Result<Engine, Violation> {
        let mut engine = self.open()?;
        if self.dice.one_in(4) {
            // A second recovery changes nothing.
            drop(engine);
            self.disk = self.disk.crash(self.dice.roll());
            engine = self.open()?;
        }
        self.find_twin(&engine, unheard)?;
        is_counted_right(&engine)?;
        Ok(engine)
    }

    fn open(&mut self) -> Result<Engine, Violation> {
        for _ in 0..MOST_STRUCK {
            let trouble = self.plan.troubles.in_recovery(&mut self.dice);
            let faults = trouble.faults(&mut self.dice, &self.disk);
            self.disk.set_faults(trouble::lying(faults, self.plan.lie));
            let opened = self.try_open();
            opened.as_ref().err().map_or(Ok(()), |error| self.expect(error))?;
            let errors = self.disk.set_faults(trouble::lying(Faults::default(), self.plan.lie));
            // A thread of the store's own may have met one, and tell of it only later.
            let may_have_failed = errors > 0 && self.options.threads == Threads::Several;
            if let Ok(engine) = opened
                && !(self.disk.is_off() || may_have_failed)
            {
                is_sound(&engine)?;
                return Ok(engine);
            }
            self.story.push(format!("in recovery {trouble:?} {faults:?}"));
            self.tally.in_recovery += 1;
            self.disk = trouble.end(None, &self.disk, self.dice.roll()).map_err(store)?;
        }
        let engine = self.try_open().map_err(store)?;
        is_sound(&engine)?;
        Ok(engine)
    }

    fn try_open(&self) -> Result<Engine, StoreError> {
        let disk = Arc::new(self.disk.clone());
        let store = Store::on_sealed_disk(disk, ENTROPY, self.options, self.keys.clone())?;
        Engine::open(store, self.clock)
    }

    /// The twin as it would be with, and without, the batch that nobody heard of.
    fn find_twin(&mut self, engine: &Engine, unheard: Unheard) -> Result<(), Violation> {
        let without = self.revived()?;
        let Some(lost) = difference(engine, &without)? else {
            self.twin = without;
            return Ok(());
        };
        let Some((at, commands)) = unheard else { return Err(Violation::new(KEPT, lost)) };
        self.twin.apply(at, commands).map_err(store)?;
        self.twin = self.revived()?;
        self.tally.unheard += 1;
        match difference(engine, &self.twin)? {
            None => Ok(()),
            Some(kept) => {
                Err(Violation::new(KEPT, format!("without the last batch: {lost}\nwith it: {kept}")))
            }
        }
    }

    /// The twin as it is after it was started again.
    fn revived(&self) -> Result<Engine, Violation> {
        Engine::open(self.twin.survivor().expect("it is volatile"), self.clock).map_err(store)
    }

    /// An error is none that was not planned.
    fn expect(&self, error: &StoreError) -> Result<(), Violation> {
        ensure(self.disk.is_off() || self.disk.asked().errors > 0, "errors have a cause", || told(error))
    }
}

/// So many, of which the last one seals.
fn keys(count: usize) -> Keys {
    let ids = (0..count).map(|n| (format!("k{n}"), [u8::try_from(n).expect("one a life"); 32]));
    Keys::new(ids).expect("one at least")
}

/// A disk that only forgets what was not synced damages nothing.
fn is_sound(engine: &Engine) -> Result<(), Violation> {
    let damage = engine.damage().map_err(store)?;
    ensure(damage.is_empty(), "nothing is called damaged that is not", || format!("{damage:?}"))
}

/// So small that a schedule goes through several segments and checkpoints.
fn small(dice: &mut Dice) -> Options {
    Options {
        segment_bytes: dice.pick(&[4 << 10, 16 << 10, 64 << 10]),
        checkpoint_bytes: dice.pick(&[1, 3 << 10, 20 << 10, 100 << 10]),
        max_rows: dice.pick(&[0, 300, 600, 10_000]),
        reserve_bytes: dice.pick(&[0, 16 << 10, 256 << 10]),
        // Then what the disk is asked when, and so where trouble meets it, is another thing each time.
        threads: if dice.one_in(SEVERAL_THREADS_ONCE_IN) { Threads::Several } else { Threads::One },
    }
}

const KEPT: &str = "1, 9: what was confirmed is there, and only that";

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn store(error: StoreError) -> Violation {
    Violation::new("store", told(&error))
}

/// With everything that it comes from.
fn told(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
