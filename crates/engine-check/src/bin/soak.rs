//! Checks histories for as long as it is told to: `soak --seconds 1800 --seed 1`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackwell_engine_check::{Failed, check};
use clap::Parser;

/// Checks random histories of the engine against its model, and prints the first that fails, cut down.
#[derive(Parser)]
struct Options {
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after so many histories.
    #[arg(long, default_value_t = u64::MAX)]
    histories: u64,
    /// The seed of the first history; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Check so many at once.
    #[arg(long, default_value_t = 1)]
    threads: u64,
}

/// Characters of what was seen: some messages have large bodies.
const MOST_TOLD: usize = 4000;

/// What the threads share.
struct Run {
    options: Options,
    until: Instant,
    started: AtomicU64,
    histories: AtomicU64,
    steps: AtomicU64,
    is_over: AtomicBool,
}

fn main() -> ExitCode {
    // A panic of the engine is reported with its history; those of cutting that down would drown it.
    std::panic::set_hook(Box::new(|_| {}));
    let run = Run::new(Options::parse());
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..run.options.threads).map(|_| scope.spawn(|| run.work())).collect();
        let results = threads.into_iter().map(|thread| thread.join().expect("a worker catches every panic"));
        results.collect::<Vec<_>>().into_iter().flatten().next()
    });
    run.report();
    match failed {
        None => ExitCode::SUCCESS,
        Some(failed) => {
            print(&told(&failed));
            ExitCode::FAILURE
        }
    }
}

impl Run {
    fn new(options: Options) -> Self {
        let until = now() + Duration::from_secs(options.seconds);
        let (started, histories, steps) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { options, until, started, histories, steps, is_over: AtomicBool::new(false) }
    }

    fn work(&self) -> Option<Box<Failed>> {
        while !self.is_over.load(Ordering::Relaxed) && now() < self.until {
            let number = self.started.fetch_add(1, Ordering::Relaxed);
            if number >= self.options.histories {
                return None;
            }
            match check(self.options.seed.wrapping_add(number)) {
                Ok(steps) => self.count(steps),
                Err(failed) => {
                    self.is_over.store(true, Ordering::Relaxed);
                    return Some(failed);
                }
            }
        }
        None
    }

    fn count(&self, steps: u64) {
        self.steps.fetch_add(steps, Ordering::Relaxed);
        let histories = self.histories.fetch_add(1, Ordering::Relaxed) + 1;
        if histories.is_multiple_of(100_000) {
            self.report();
        }
    }

    fn report(&self) {
        let (histories, steps) = (self.histories.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed));
        let left = self.until.saturating_duration_since(now());
        let seconds = Duration::from_secs(self.options.seconds).saturating_sub(left).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate is told in whole numbers")]
        let rates = [histories, steps].map(|count| count as f64 / seconds);
        print(&format!(
            "{histories} histories, {steps} steps in {seconds:.1} s: {:.0} and {:.0} a second\n",
            rates[0], rates[1]
        ));
    }
}

fn told(failed: &Failed) -> String {
    let Failed { seed, steps, script, violation } = failed;
    let what: String = violation.what.chars().take(MOST_TOLD).collect();
    format!(
        "\nseed {seed}: {}\n{}\n\n{} of {steps} steps are enough:\n{script}\nagain: soak --seed {seed} --histories 1\n",
        violation.property,
        what,
        script.lines().count(),
    )
}

fn print(text: &str) {
    // Nobody is left to tell that nobody listens.
    _ = std::io::stdout().write_all(text.as_bytes());
}

#[expect(clippy::disallowed_methods, reason = "how long to run is not a decision of the engine")]
fn now() -> Instant {
    Instant::now()
}
