//! What was settled beside the stream that delivered it: by Settle or Commit. The stream's window must hear of it, or it
//! would stay full.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::Notify;

/// The streams of a queue that want to hear.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    listeners: Mutex<Vec<Weak<Listener>>>,
}

/// A stream's ear. What it hears is bounded by what is settled between two turns of its loop.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    receipts: Mutex<Vec<Bytes>>,
    told: Notify,
}

impl Settled {
    /// From now on everything is heard, for as long as the listener lives.
    pub(crate) fn listen(&self) -> Arc<Listener> {
        let listener = Arc::new(Listener::default());
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        listener
    }

    /// Sealed receipts that are no longer held.
    pub(crate) fn tell(&self, receipts: &[Bytes]) {
        if receipts.is_empty() {
            return;
        }
        for listener in lock(&self.listeners).iter().filter_map(Weak::upgrade) {
            lock(&listener.receipts).extend_from_slice(receipts);
            listener.told.notify_one();
        }
    }
}

impl Listener {
    /// What was settled since the last time; waits for it.
    pub(crate) async fn heard(&self) -> Vec<Bytes> {
        self.told.notified().await;
        std::mem::take(&mut lock(&self.receipts))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that is settled while a stream is busy is missed, and streams that ended are forgotten.
    #[tokio::test]
    async fn listener_hears_what_was_settled_meanwhile() {
        let settled = Settled::default();
        let (first, second) = (settled.listen(), settled.listen());
        settled.tell(&["a".into()]);
        settled.tell(&["b".into()]);
        assert_eq!(first.heard().await, ["a", "b"]);
        drop(second);
        drop(settled.listen());
        assert_eq!(lock(&settled.listeners).len(), 2);
    }
}
