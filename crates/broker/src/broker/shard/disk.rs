//! Whether the volume has room for new messages.

use ackwell_engine::Timestamp;
use ackwell_engine::store::disk::Space;
use tracing::{info, warn};

/// Senders are refused when less than this share of the volume is free: acks, nacks and checkpoints need room, too.
const RESERVED_PERCENT: u64 = 10;
/// Below this share people are warned.
const SCARCE_PERCENT: u64 = 20;
/// On a large disk that the store shares with others, this much is room enough, whatever the percentage.
const ROOM_ENOUGH_BYTES: u64 = 1 << 30;
/// How long senders are refused after a write found no room, whatever the volume says: a quota may be what is used up.
const REFUSED_MS: u64 = 5_000;

/// The volume, as senders see it.
#[derive(Default)]
pub(super) struct Volume {
    level: Level,
    /// What may be sent until it is looked at again.
    room_bytes: u64,
    refused_until: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Roomy,
    Scarce,
    Full,
}

impl Volume {
    /// Learns how much is free. A volume that cannot be asked counts as roomy: a full one still shows when it is written to.
    pub(super) fn learn(&mut self, now: Timestamp, space: Option<Space>) {
        let Some(space) = space else {
            self.room_bytes = u64::MAX;
            return;
        };
        let share = |percent: u64| (space.total_bytes / 100).saturating_mul(percent);
        let reserved_bytes = share(RESERVED_PERCENT).min(ROOM_ENOUGH_BYTES);
        let scarce_bytes = share(SCARCE_PERCENT).min(ROOM_ENOUGH_BYTES * 2);
        // A clock that was set back must not refuse for longer.
        let is_refused = (1..=REFUSED_MS).contains(&self.refused_until.ms_since(now));
        self.room_bytes = if is_refused { 0 } else { space.free_bytes.saturating_sub(reserved_bytes) };
        let level = match space.free_bytes {
            _ if self.room_bytes == 0 => Level::Full,
            free if free < scarce_bytes => Level::Scarce,
            _ => Level::Roomy,
        };
        self.become_known(level, space.free_bytes);
    }

    /// Whether there is room for a message with such a body, which is taken.
    pub(super) fn admits(&mut self, bytes: u64) -> bool {
        let left = self.room_bytes.checked_sub(bytes.max(1));
        self.room_bytes = left.unwrap_or(self.room_bytes);
        left.is_some()
    }

    /// Whether nothing more may be sent.
    pub(super) fn is_full(&self) -> bool {
        self.room_bytes == 0
    }

    /// A write found no room.
    pub(super) fn is_found_full(&mut self, now: Timestamp) {
        self.refused_until = now.plus_ms(REFUSED_MS);
        self.room_bytes = 0;
    }

    fn become_known(&mut self, level: Level, free_bytes: u64) {
        if level == self.level {
            return;
        }
        self.level = level;
        match level {
            Level::Roomy => info!(free_bytes, "the volume has room again"),
            Level::Scarce => warn!(free_bytes, "the volume is filling up"),
            Level::Full => warn!(free_bytes, "the volume is nearly full: senders are refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NOW: Timestamp = Timestamp(1000);

    fn volume(free_mib: u64) -> Volume {
        let mut volume = Volume::default();
        volume.learn(NOW, Some(Space { total_bytes: 100 * MIB, free_bytes: free_mib * MIB }));
        volume
    }

    /// Promise: senders get what is free beyond a tenth, all of one commit together, and no more.
    #[test]
    fn messages_beyond_the_reserved_tenth_are_refused() {
        let mut volume = volume(13);
        assert!(volume.admits(2 * MIB));
        assert!(!volume.admits(2 * MIB), "only 1 MiB is left");
        assert!(volume.admits(MIB / 2));
        assert!(!self::volume(10).admits(0), "an empty message needs room, too");
    }

    /// Promise: a large disk has room enough, whatever its share.
    #[test]
    fn large_volume_needs_a_gibibyte() {
        let mut volume = Volume::default();
        volume.learn(NOW, Some(Space { total_bytes: 1 << 40, free_bytes: (1 << 30) + 10 }));
        assert!(volume.admits(10) && !volume.admits(1));
    }

    /// Promise: where a write found no room, senders are refused for a while, whatever the volume says, and not for longer, not
    /// even when the clock is set back.
    #[test]
    fn full_volume_refuses_for_a_while() {
        let space = Some(Space { total_bytes: 100 * MIB, free_bytes: 50 * MIB });
        let mut volume = volume(50);
        volume.is_found_full(NOW);
        assert!(!volume.admits(1));
        volume.learn(NOW.plus_ms(REFUSED_MS - 1), space);
        assert!(!volume.admits(1));
        volume.learn(NOW.plus_ms(REFUSED_MS), space);
        assert!(volume.admits(1));
        volume.is_found_full(NOW.plus_ms(1_000_000));
        volume.learn(NOW, space);
        assert!(volume.admits(1));
    }

    /// Promise: a volume that cannot be asked takes messages; a write will show.
    #[test]
    fn unknown_volume_is_roomy() {
        let mut volume = Volume::default();
        volume.learn(NOW, None);
        assert!(volume.admits(1 << 40));
    }
}
