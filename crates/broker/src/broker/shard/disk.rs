//! Whether the volume has room for new messages.

use std::path::Path;

/// Senders are refused when less than this share of the volume is free: acks need space too, since redb writes copies.
const RESERVED_PERCENT: u64 = 10;
/// On a large disk that the store shares with others, this much is room enough, whatever the percentage.
const ROOM_ENOUGH_BYTES: u64 = 1 << 30;

/// A volume that cannot be asked counts as roomy: a full one still shows as a failed commit.
pub(super) fn is_nearly_full(data: &Path) -> bool {
    let Ok(volume) = rustix::fs::statvfs(data) else { return false };
    let free = volume.f_bavail;
    let is_reserve = free.saturating_mul(100) < volume.f_blocks.saturating_mul(RESERVED_PERCENT);
    is_reserve && free.saturating_mul(volume.f_frsize) < ROOM_ENOUGH_BYTES
}
