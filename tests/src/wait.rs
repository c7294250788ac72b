//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Between two looks at a condition that nobody announces: short at first, for what is nearly true already, then longer,
/// since looking into a cluster takes time from what is waited for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Looks until `look` gives something; panics after `limit`, saying what was waited for and what was seen last.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> anyhow::Result<T>) -> T {
    try_until(limit, look).unwrap_or_else(|last| panic!("{what}: not within {limit:?}; last: {last:#}"))
}

/// Looks until `look` gives something, or `limit` is over: then what was seen last.
pub(crate) fn try_until<T>(
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (deadline, mut pause) = (now() + limit, SHORTEST_PAUSE);
    loop {
        match look() {
            Err(_) if now() < deadline => sleep(&mut pause),
            seen => return seen,
        }
    }
}

/// The same where looking is asynchronous.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> T {
    let (deadline, mut pause) = (now() + limit, SHORTEST_PAUSE);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(now() < deadline, "{what}: not within {limit:?}; last: {last:#}"),
        }
        tokio::time::sleep(pause).await;
        pause = longer(pause);
    }
}

/// Repeats `work` until it says that it is done, for threads that follow something.
pub(crate) fn repeat(mut work: impl FnMut() -> bool) {
    let mut pause = LONGEST_PAUSE;
    while !work() {
        sleep(&mut pause);
    }
}

/// For tests that measure: how long something took, or may take.
#[expect(clippy::disallowed_methods, reason = "tests see real time, as users do")]
pub fn now() -> Instant {
    Instant::now()
}

/// Between two faults; no way to wait for something.
#[expect(clippy::disallowed_methods, reason = "faults come at random times")]
pub fn pause_for(time: Duration) {
    std::thread::sleep(time);
}

/// Sleeps, and the next time longer.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
fn sleep(pause: &mut Duration) {
    std::thread::sleep(*pause);
    *pause = longer(*pause);
}

fn longer(pause: Duration) -> Duration {
    (pause * 3 / 2).min(LONGEST_PAUSE)
}
