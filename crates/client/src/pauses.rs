//! Growing, jittered pauses between attempts.

use std::time::Duration;

/// First wait; doubled up to [`MAX_WAIT`], each between half and all of it, so that clients do not come back as one.
const MIN_WAIT: Duration = Duration::from_millis(50);
/// A broker that is back is noticed within this.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The pauses of one call or stream.
pub(crate) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self { next: MIN_WAIT }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(MAX_WAIT);
        pause
    }

    /// It worked: the next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = MIN_WAIT;
    }
}

fn jittered(wait: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().1 & 0xFFFF;
    let share = u32::try_from(random).expect("16 bits");
    wait / 2 + wait / 2 * share / 0xFFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_half_and_all() {
        let waits: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(2))).collect();
        assert!(waits.iter().all(|wait| (1000..=2000).contains(&wait.as_millis())));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
