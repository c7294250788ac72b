//! Counts of a Queue: the sum over its shards.

use ackwell_api::{MessageCounts, QueueStatus};
use ackwell_proto::duration_millis;
use ackwell_proto::v1::StatsResponse;

use super::Facts;

/// What a status says about messages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) messages: Option<MessageCounts>,
    pub(super) oldest_ready_seconds: Option<i64>,
}

/// Sums the shards up. While one of them has not reported, what was known before is kept: a sum that drops and comes
/// back would look like messages that were lost.
pub(super) fn sum(facts: &Facts<'_>, before: Option<&QueueStatus>) -> Counts {
    let stats: Vec<_> = facts.shards.iter().filter_map(|shard| shard.stats.as_ref()).collect();
    let expected = facts.outcome.ok().map_or(0, |plan| plan.shards);
    if stats.is_empty() || u32::try_from(stats.len()).is_ok_and(|reported| reported < expected) {
        return before.map_or_else(Counts::default, |before| Counts {
            messages: before.messages,
            oldest_ready_seconds: before.oldest_ready_seconds,
        });
    }
    Counts {
        messages: Some(total(&stats)),
        oldest_ready_seconds: stats.iter().filter_map(|one| oldest(one)).max(),
    }
}

/// Which counts are zero.
pub(super) fn zeroes(messages: Option<MessageCounts>) -> Option<[bool; 4]> {
    messages
        .map(|counts| [counts.ready, counts.in_flight, counts.delayed, counts.dead].map(|count| count == 0))
}

fn total(stats: &[&StatsResponse]) -> MessageCounts {
    let sum = |field: fn(&StatsResponse) -> u64| {
        let total = stats.iter().map(|one| field(one)).fold(0_u64, u64::saturating_add);
        i64::try_from(total).unwrap_or(i64::MAX)
    };
    MessageCounts {
        ready: sum(|one| one.ready),
        in_flight: sum(|one| one.in_flight),
        delayed: sum(|one| one.delayed),
        dead: sum(|one| one.dead),
    }
}

fn oldest(stats: &StatsResponse) -> Option<i64> {
    let millis = duration_millis(stats.oldest_ready.as_ref()?)?;
    i64::try_from(millis / 1000).ok()
}
