//! Cuts the power of stores for as long as it is told to: `crash --seconds 1800 --seed 1`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackwell_engine_check::crash::{Fallen, Plan, Tally, Troubles, endure, survive};
use ackwell_engine_check::disk::Lie;
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;

/// Plays random schedules of power cuts and other troubles to the store, and prints those that it does not survive.
#[derive(Parser)]
struct Options {
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after so many schedules.
    #[arg(long, default_value_t = u64::MAX)]
    schedules: u64,
    /// The seed of the first schedule; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Play so many at once.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Stop after so many that were not survived.
    #[arg(long, default_value_t = 1)]
    failures: u64,
    /// Only cut the power and kill: the disk itself works.
    #[arg(long)]
    power_cuts: bool,
    /// Turn bits over and lose files, instead of all else.
    #[arg(long)]
    rot: bool,
    /// Let the disk lie: then most schedules must fail, or this program is worth nothing.
    #[arg(long)]
    lie: Option<Syncs>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Syncs {
    Files,
    Folder,
}

/// A third of the time is for allocating: this one plays four schedules while the system's plays three.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Characters of what was seen.
const MOST_TOLD: usize = 3000;

/// What the threads share.
struct Run {
    options: Options,
    started_at: Instant,
    started: AtomicU64,
    failed: AtomicU64,
    is_over: AtomicBool,
    total: Mutex<(u64, Tally)>,
}

fn main() -> ExitCode {
    // A panic of the store is told with its schedule.
    std::panic::set_hook(Box::new(|_| {}));
    let run = Run::new(Options::parse());
    std::thread::scope(|scope| (0..run.options.threads).for_each(|_| _ = scope.spawn(|| run.work())));
    run.report();
    if run.failed.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Run {
    fn new(options: Options) -> Self {
        let (started, failed, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { options, started_at: now(), started, failed, is_over, total: Mutex::default() }
    }

    fn work(&self) {
        let lie = self.options.lie.map(|syncs| match syncs {
            Syncs::Files => Lie::FileSync,
            Syncs::Folder => Lie::FolderSync,
        });
        let troubles = if self.options.power_cuts { Troubles::PowerCuts } else { Troubles::All };
        let plan = Plan { troubles, lie };
        let until = self.started_at + Duration::from_secs(self.options.seconds);
        while !self.is_over.load(Ordering::Relaxed) && now() < until {
            let number = self.started.fetch_add(1, Ordering::Relaxed);
            if number >= self.options.schedules {
                return;
            }
            let seed = self.options.seed.wrapping_add(number);
            match if self.options.rot { endure(seed) } else { survive(seed, plan) } {
                Ok(tally) => self.count(tally),
                Err(fallen) => self.tell(&fallen),
            }
        }
    }

    fn count(&self, tally: Tally) {
        let mut total = self.total.lock().expect("nobody panics with it in hand");
        *total = (total.0 + 1, total.1 + tally);
        let is_due = total.0.is_multiple_of(100_000);
        drop(total);
        if is_due {
            self.report();
        }
    }

    fn tell(&self, fallen: &Fallen) {
        let failed = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
        self.is_over.fetch_or(failed >= self.options.failures, Ordering::Relaxed);
        let Fallen { seed, story, violation } = fallen;
        let what: String = violation.what.chars().take(MOST_TOLD).collect();
        print(&format!(
            "\nseed {seed}: {}\n{what}\n\n{}\nagain: crash --seed {seed} --schedules 1\n",
            violation.property,
            story.join("\n"),
        ));
    }

    fn report(&self) {
        let (schedules, tally) = *self.total.lock().expect("nobody panics with it in hand");
        let seconds = (now() - self.started_at).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate is told in whole numbers")]
        let rate = schedules as f64 / seconds;
        let Tally { batches, troubles, in_recovery, unheard, flips, named, refused } = tally;
        print(&format!(
            "{schedules} schedules survived, {} not, in {seconds:.1} s: {rate:.0} a second; {batches} batches, \
             {troubles} troubles, {in_recovery} more in recoveries, {unheard} batches kept unheard; {flips} bits turned over, {named} stores named damage, {refused} did \
             not open for it\n",
            self.failed.load(Ordering::Relaxed),
        ));
    }
}

fn print(text: &str) {
    // Nobody is left to tell that nobody listens.
    _ = std::io::stdout().write_all(text.as_bytes());
}

#[expect(clippy::disallowed_methods, reason = "how long to run is not a decision of the engine")]
fn now() -> Instant {
    Instant::now()
}
