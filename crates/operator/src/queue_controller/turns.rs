//! How many Queues replace their brokers at once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::QueueRef;

/// A new image that does not serve must not reach every Queue before somebody notices.
const MAX_AT_ONCE: usize = 2;

/// Who replaces brokers now.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashSet<QueueRef>>);

impl Turns {
    /// `queue` is in the middle of it, however many others are.
    pub(super) fn goes_on(&self, queue: QueueRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(queue);
    }

    /// Whether `queue` may begin, or has begun.
    pub(super) fn take(&self, queue: &QueueRef) -> bool {
        let mut active = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !active.contains(queue) && active.len() < MAX_AT_ONCE {
            active.insert(queue.clone());
        }
        active.contains(queue)
    }

    /// `queue` is done, or gone.
    pub(super) fn give_back(&self, queue: &QueueRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bad image reaches two Queues, not all of them.
    #[test]
    fn third_queue_waits_until_one_is_done() {
        let turns = Turns::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| QueueRef::new(name).within("shop"));
        assert!(turns.take(&a) && turns.take(&b) && !turns.take(&c));
        assert!(turns.take(&a), "it has begun");
        turns.give_back(&a);
        assert!(turns.take(&c) && !turns.take(&a));
    }

    /// A new leader finds them, and does not begin with others.
    #[test]
    fn those_that_are_in_the_middle_count() {
        let turns = Turns::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| QueueRef::new(name).within("shop"));
        for queue in [&a, &b, &c] {
            turns.goes_on(queue.clone());
        }
        turns.give_back(&a);
        assert!(!turns.take(&a) && turns.take(&b));
    }
}
