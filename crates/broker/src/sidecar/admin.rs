//! What people call, over all shards: sums, and pages that go from shard to shard.

use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::{
    PauseRequest, PauseResponse, PeekRequest, PeekResponse, PurgeRequest, PurgeResponse, RedriveRequest,
    RedriveResponse, StatsRequest, StatsResponse,
};
use ackwell_proto::{Failure, duration_millis};
use futures::future::{join_all, try_join_all};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::{Response, Status};

use super::retry::{DEFAULT_BUDGET, Deadline};
use super::route::Queue;
use super::shard_channel::ShardChannel;

/// As in the API.
const DEFAULT_LIMIT: u32 = 20;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_hours(1);
const ORDINAL_BYTES: usize = 2;

/// One page of one shard; the cursor leads through the shards in turn.
pub(crate) async fn peek(
    queue: &Arc<Queue>,
    request: PeekRequest,
    deadline: Deadline,
) -> Result<PeekResponse, Status> {
    let shards = queue.route(deadline).await?.shards.len();
    let (mut shard, mut cursor) = parse_cursor(&request.cursor, shards)?;
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit };
    loop {
        let page = PeekRequest { queue: queue.full_name().to_owned(), cursor, limit, ..request.clone() };
        let attempt = |channel: Arc<ShardChannel>| {
            let page = page.clone();
            async move { channel.admin().peek(page).await }
        };
        let mut answer = queue.call(shard, deadline, attempt).await?;
        if answer.cursor.is_empty() {
            shard += 1;
        }
        if shard < shards {
            answer.cursor = write_cursor(shard, &answer.cursor);
        }
        if !answer.messages.is_empty() || shard == shards {
            return Ok(answer);
        }
        (shard, cursor) = parse_cursor(&answer.cursor, shards)?;
    }
}

/// The sum over all shards; every one must answer.
pub(crate) async fn stats(queue: &Arc<Queue>, deadline: Deadline) -> Result<StatsResponse, Status> {
    let shards = queue.route(deadline).await?.shards.len();
    let attempt = |channel: Arc<ShardChannel>| {
        let request = StatsRequest { queue: queue.full_name().to_owned(), interval: None };
        async move { channel.admin().stats(request).await }
    };
    let all = try_join_all((0..shards).map(|shard| queue.call(shard, deadline, attempt))).await?;
    Ok(all.into_iter().fold(StatsResponse::default(), sum))
}

/// How often a watcher wants to hear.
pub(crate) fn interval_of(request: &StatsRequest) -> Result<Duration, Failure> {
    let interval = match &request.interval {
        None => Some(DEFAULT_INTERVAL),
        Some(interval) => duration_millis(interval).map(Duration::from_millis),
    };
    interval
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or_else(|| Failure::invalid("interval must be between 100 ms and 1 h"))
}

/// Tells the sum again whenever it changed, until the watcher is gone or a broker refuses.
pub(crate) async fn watch(
    queue: Arc<Queue>,
    interval: Duration,
    give: mpsc::Sender<Result<StatsResponse, Status>>,
) {
    let mut last = None;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !give.is_closed() {
        let answer = tokio::select! {
            answer = stats(&queue, Deadline::within(DEFAULT_BUDGET)) => answer,
            () = give.closed() => return,
        };
        let is_last = answer.is_err();
        if is_last || answer.as_ref().ok() != last.as_ref() {
            last = answer.as_ref().ok().copied();
            _ = give.send(answer).await;
        }
        if is_last {
            return;
        }
        tokio::select! { _ = ticks.tick() => {}, () = give.closed() => {} }
    }
}

/// Puts Dead messages back, shard after shard.
pub(crate) async fn redrive(
    queue: &Arc<Queue>,
    request: RedriveRequest,
    deadline: Deadline,
) -> Result<RedriveResponse, Status> {
    let attempt = |channel: Arc<ShardChannel>, max_messages| {
        let part = RedriveRequest { queue: queue.full_name().to_owned(), max_messages, ..request.clone() };
        async move { channel.admin().redrive(part).await }
    };
    let counts = |part: RedriveResponse| Counts { matched: part.matched, changed: part.redriven };
    let Counts { matched, changed } =
        shard_by_shard(queue, deadline, request.max_messages, attempt, counts).await?;
    Ok(RedriveResponse { matched, redriven: changed })
}

/// Removes messages, shard after shard.
pub(crate) async fn purge(
    queue: &Arc<Queue>,
    request: PurgeRequest,
    deadline: Deadline,
) -> Result<PurgeResponse, Status> {
    let attempt = |channel: Arc<ShardChannel>, max_messages| {
        let part = PurgeRequest { queue: queue.full_name().to_owned(), max_messages, ..request.clone() };
        async move { channel.admin().purge(part).await }
    };
    let counts = |part: PurgeResponse| Counts { matched: part.matched, changed: part.purged };
    let Counts { matched, changed } =
        shard_by_shard(queue, deadline, request.max_messages, attempt, counts).await?;
    Ok(PurgeResponse { matched, purged: changed })
}

/// Pauses every shard, or lets it go on. One that does not answer keeps none of the others from it.
pub(crate) async fn pause(
    queue: &Arc<Queue>,
    paused: bool,
    deadline: Deadline,
) -> Result<PauseResponse, Status> {
    let shards = queue.route(deadline).await?.shards.len();
    let attempt = |channel: Arc<ShardChannel>| {
        let request = PauseRequest { queue: queue.full_name().to_owned(), paused };
        async move { channel.admin().pause(request).await }
    };
    let answers = join_all((0..shards).map(|shard| queue.call(shard, deadline, attempt))).await;
    answers.into_iter().collect::<Result<Vec<_>, _>>().map(|_| PauseResponse {})
}

/// What was found and changed so far.
#[derive(Default)]
struct Counts {
    matched: u64,
    changed: u64,
}

/// One shard after the other, until `max_messages` are found; 0: all.
async fn shard_by_shard<T, F>(
    queue: &Arc<Queue>,
    deadline: Deadline,
    max_messages: u64,
    attempt: impl Fn(Arc<ShardChannel>, u64) -> F,
    counts: impl Fn(T) -> Counts,
) -> Result<Counts, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let shards = queue.route(deadline).await?.shards.len();
    let mut total = Counts::default();
    for shard in 0..shards {
        let left = max_messages.saturating_sub(total.matched);
        if max_messages > 0 && left == 0 {
            break;
        }
        let part = counts(queue.call(shard, deadline, |channel| attempt(channel, left)).await?);
        total.matched += part.matched;
        total.changed += part.changed;
    }
    Ok(total)
}

fn sum(left: StatsResponse, right: StatsResponse) -> StatsResponse {
    let millis = |stats: &StatsResponse| stats.oldest_ready.as_ref().and_then(duration_millis);
    let oldest = millis(&left).max(millis(&right));
    StatsResponse {
        ready: left.ready + right.ready,
        delayed: left.delayed + right.delayed,
        in_flight: left.in_flight + right.in_flight,
        dead: left.dead + right.dead,
        bytes: left.bytes + right.bytes,
        disk_used: left.disk_used + right.disk_used,
        oldest_ready: oldest.map(ackwell_proto::duration),
        sent: left.sent + right.sent,
        acked: left.acked + right.acked,
        nacked: left.nacked + right.nacked,
        consumers: left.consumers + right.consumers,
        paused: left.paused || right.paused,
    }
}

/// The shard's ordinal, then the shard's own cursor.
fn write_cursor(shard: usize, inner: &[u8]) -> Vec<u8> {
    let ordinal = u16::try_from(shard).expect("a route has at most 1024 shards");
    [&ordinal.to_be_bytes(), inner].concat()
}

fn parse_cursor(cursor: &[u8], shards: usize) -> Result<(usize, Vec<u8>), Failure> {
    if cursor.is_empty() {
        return Ok((0, Vec::new()));
    }
    let (ordinal, inner) = cursor.split_first_chunk::<ORDINAL_BYTES>().unwrap_or((&[u8::MAX; 2], &[]));
    let shard = usize::from(u16::from_be_bytes(*ordinal));
    if shard >= shards {
        return Err(Failure::invalid(
            "cursor was not made by this queue; give the previous answer's, or none",
        ));
    }
    Ok((shard, inner.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page goes on where the previous one ended, in the same shard.
    #[test]
    fn cursor_survives_the_round_trip() {
        assert_eq!(parse_cursor(&[], 1), Ok((0, Vec::new())));
        assert_eq!(parse_cursor(&write_cursor(3, b"inner"), 4), Ok((3, b"inner".to_vec())));
        assert_eq!(parse_cursor(&write_cursor(3, b""), 4), Ok((3, Vec::new())));
        for bad in [b"x".to_vec(), write_cursor(4, b"")] {
            assert!(parse_cursor(&bad, 4).is_err(), "{bad:?}");
        }
    }

    /// Counts add up; the age is that of the oldest; a shard that hands out nothing is told.
    #[test]
    fn stats_of_shards_add_up() {
        let shard = |ready, oldest: Option<u64>| StatsResponse {
            ready,
            paused: ready == 2,
            oldest_ready: oldest.map(ackwell_proto::duration),
            ..StatsResponse::default()
        };
        let total = sum(sum(shard(1, None), shard(2, Some(500))), shard(4, Some(90)));
        assert_eq!((total.ready, total.oldest_ready), (7, Some(ackwell_proto::duration(500))));
        assert!(total.paused && !sum(shard(1, None), shard(4, None)).paused);
    }
}
