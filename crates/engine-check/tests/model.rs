//! A bounded share of what `soak` does.

use ackwell_engine_check::check;

/// Ten seconds' worth on one core without optimisation.
const HISTORIES: u64 = 1200;

/// Promise: replies, messages, counts, explanations and wakeups are what the rules say, whatever happens in whatever
/// order, crashes included; and the same commands lead to the same state again.
#[test]
fn any_history_is_as_the_model_says() {
    for seed in 0..HISTORIES {
        if let Err(failed) = check(seed) {
            panic!("seed {seed}: {:?}\n{}", failed.violation, failed.script);
        }
    }
}
