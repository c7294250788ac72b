//! The only place that reads the time.

use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since 1970; 0 for a clock that is before that.
#[expect(clippy::disallowed_methods, reason = "the clock")]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

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
