//! How much a producer may have on its way.

use ackwell_proto::v1::{ProduceWindow, QueueSettings};

use crate::broker::shard::Level;

/// While there is room: some commits' worth of small messages.
pub(super) const WIDEST: ProduceWindow = ProduceWindow { max_messages: 10_000, max_bytes: 16 << 20 };
/// One batch at a time. Each is answered, by refusals if need be, so that the producer notices when there is room again.
const NARROWEST: ProduceWindow = ProduceWindow { max_messages: 1, max_bytes: 1 };
/// Of what the queue has room for, a producer may send one part before it hears how much is left: so a few producers
/// together come ever closer to the limit, slower and slower, and none is refused before all have been told.
const SHARE: u64 = 4;

/// The window for a queue that is so full.
pub(super) fn of(level: &Level, settings: &QueueSettings) -> ProduceWindow {
    if level.is_disk_full() {
        return NARROWEST;
    }
    let messages = share(settings.max_messages, level.messages()).min(WIDEST.max_messages.into());
    ProduceWindow {
        max_messages: u32::try_from(messages).unwrap_or(WIDEST.max_messages),
        max_bytes: share(settings.max_bytes, level.bytes()).min(WIDEST.max_bytes),
    }
}

/// Zero is no limit.
fn share(limit: u64, stored: u64) -> u64 {
    if limit == 0 { u64::MAX } else { (limit.saturating_sub(stored) / SHARE).max(1) }
}

/// Whether a producer that knows the one window should hear of the other. Small changes are not worth a frame.
pub(super) fn is_news(known: ProduceWindow, now: ProduceWindow) -> bool {
    let differs = |known: u64, now: u64, widest: u64| {
        known != now && (now <= known / 2 || now >= known.saturating_mul(2) || now == widest)
    };
    differs(known.max_messages.into(), now.max_messages.into(), WIDEST.max_messages.into())
        || differs(known.max_bytes, now.max_bytes, WIDEST.max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(limit: u64, stored: u64) -> u32 {
        let level = Level::default();
        level.set_messages(stored);
        of(&level, &QueueSettings { max_messages: limit, ..QueueSettings::default() }).max_messages
    }

    /// Promise: producers are told to slow down before the queue is full, and never to stop for good.
    #[test]
    fn window_narrows_as_the_queue_fills() {
        assert_eq!(messages(0, 1_000_000_000), WIDEST.max_messages);
        assert_eq!(messages(1_000_000, 0), WIDEST.max_messages);
        assert_eq!(messages(1000, 0), 250);
        assert_eq!(messages(1000, 900), 25);
        assert_eq!((messages(1000, 1000), messages(1000, 2000)), (1, 1));
    }

    /// A window that changes a little with every commit would be a frame with every commit.
    #[test]
    fn only_large_changes_are_news() {
        let window = |max_messages| ProduceWindow { max_messages, max_bytes: 100 };
        assert!(!is_news(window(100), window(100)) && !is_news(window(100), window(51)));
        assert!(is_news(window(100), window(50)) && is_news(window(1), window(2)));
        assert!(is_news(window(9_000), window(WIDEST.max_messages)));
    }
}
