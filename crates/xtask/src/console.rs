//! What people see of a chore, and how long it took: the one place that prints and reads the clock.

use std::fmt;
use std::time::{Duration, Instant};

/// Prints one line to the standard output.
#[expect(clippy::print_stdout, reason = "this is how chores talk")]
pub(crate) fn say(line: impl fmt::Display) {
    println!("{line}");
}

/// Prints why a chore failed.
#[expect(clippy::print_stderr, reason = "this is how chores fail")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Measures one chore.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "how long a chore took is shown, nothing depends on it")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A duration as people say it.
pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f32())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}
