//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Between two looks at a condition that nobody announces. Short against everything that is waited for here.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something; panics after `limit`, saying what was waited for and what was seen last.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> anyhow::Result<T>) -> T {
    let deadline = now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(now() < deadline, "{what}: not within {limit:?}; last: {last:#}"),
        }
        pause();
    }
}

/// The same where looking is asynchronous.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> T {
    let deadline = now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(now() < deadline, "{what}: not within {limit:?}; last: {last:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// For tests that measure: how long something took, or may take.
#[expect(clippy::disallowed_methods, reason = "tests see real time, as users do")]
pub fn now() -> Instant {
    Instant::now()
}

/// Between two looks.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}
