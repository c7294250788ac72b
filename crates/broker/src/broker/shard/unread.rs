//! What a stream was told and has not passed on to its transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ackwell_engine::command::Delivery;

/// A consumer that does not read is told no more beyond this, however large its window is: enough to keep a fast one busy
/// between two commits.
const LIMIT_BYTES: u64 = 4 << 20;
/// Of one ask, so that the largest message fits.
const ASK_BYTES: u64 = 16 << 20;

/// Bytes of one stream, shared between its session and the engine's thread.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bytes: AtomicU64,
    is_awaited: AtomicBool,
}

impl Unread {
    /// How many bytes of bodies may be asked for, of as many as the window has free. With none the session is asked to say
    /// when that changes.
    pub(super) fn limit(&self, free_bytes: u64) -> u64 {
        let unread = self.bytes();
        if unread == 0 {
            return free_bytes.min(ASK_BYTES);
        }
        if unread < LIMIT_BYTES {
            return free_bytes.min(LIMIT_BYTES - unread);
        }
        self.0.is_awaited.store(true, Ordering::SeqCst);
        // It may have read between the look and the request.
        if self.bytes() < LIMIT_BYTES { self.limit(free_bytes) } else { 0 }
    }

    pub(super) fn tell(&self, deliveries: &[Delivery]) {
        self.0.bytes.fetch_add(bytes(deliveries), Ordering::SeqCst);
    }

    /// The transport has as many; whether the engine's thread waits for that.
    pub(crate) fn read(&self, bytes: u64) -> bool {
        self.0.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.0.is_awaited.swap(false, Ordering::SeqCst)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::SeqCst)
    }
}

/// Of bodies, since all else is bounded by the number of messages.
pub(crate) fn bytes(deliveries: &[Delivery]) -> u64 {
    deliveries.iter().map(|delivery| delivery.message.payload.body.len() as u64).sum()
}
