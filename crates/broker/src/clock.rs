//! The one place that reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ackwell_engine::Timestamp;

/// Milliseconds since 1970. The engine keeps it from stepping back.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is where time is read")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The same, for spans, which nobody decides by.
pub(crate) fn nanos() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is where time is read")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// To see how long something takes.
pub(crate) fn stopwatch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is where time is read")]
    Instant::now()
}
