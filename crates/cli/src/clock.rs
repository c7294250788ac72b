//! The only place that reads the time.

use std::time::{Duration, Instant};

/// Time since it was started.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// What is left of `limit`.
    pub(crate) fn left(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.elapsed())
    }
}
