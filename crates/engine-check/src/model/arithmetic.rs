//! The waits of `docs/delivery.md`, section "Time", once more.

use ackwell_engine::message::Seq;
use ackwell_engine::settings::{Backoff, BackoffPolicy};

/// The wait after so many failures.
pub(super) fn backoff_ms(backoff: Backoff, seq: Seq, attempts: u32) -> u64 {
    let Backoff { policy, min_ms, max_ms } = backoff;
    let mut base = min_ms;
    for _ in 1..attempts {
        match policy {
            BackoffPolicy::Constant => {}
            BackoffPolicy::Linear => base += min_ms,
            BackoffPolicy::Exponential => base *= 2,
        }
        base = base.min(max_ms);
    }
    let base = base.min(max_ms);
    let fifth = base / 5;
    base - fifth + 2 * fifth * (mixed(seq.0, attempts) % 4096) / 4095
}

/// `SplitMix64`, seeded with the place and moved on by the attempts.
fn mixed(place: u64, attempts: u32) -> u64 {
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(attempts));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
