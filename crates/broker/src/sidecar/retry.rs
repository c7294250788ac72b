//! How long and how often a call is tried before the application hears of a failure.

use std::error::Error as _;
use std::time::Duration;

use ackwell_proto::{Failure, Reason};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// For callers that set no deadline. Long enough for a broker pod to be rescheduled, and well below the two
/// minutes for which a broker remembers a `request_id`, so that a retry never stores twice.
pub(crate) const DEFAULT_BUDGET: Duration = Duration::from_mins(1);
/// Kept back from the caller's own deadline: our answer, which says what is wrong, must arrive before it.
const MAX_MARGIN: Duration = Duration::from_millis(200);
/// A restarting process on the same machine is back within this.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Below the 5 s within which a broken stream is resumed without cost.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// What a caller is told to wait when we gave up.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Until when a call may be tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    budget: Duration,
}

impl Deadline {
    /// The caller's own deadline, less a margin, but `default` from now at most: a call that is repeated for longer than
    /// brokers remember its `request_id` may store twice.
    pub(crate) fn of(metadata: &MetadataMap, default: Duration) -> Self {
        let timeout = metadata.get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
        let less_margin = |timeout: Duration| timeout.saturating_sub(MAX_MARGIN.min(timeout / 10));
        Self::within(timeout.map_or(default, |timeout| default.min(less_margin(timeout))))
    }

    /// `budget` from now.
    pub(crate) fn within(budget: Duration) -> Self {
        Self { at: Instant::now() + budget, budget }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// Waits, unless the deadline comes first.
    pub(crate) async fn pause(&self, delay: Duration) -> Result<(), Expired> {
        let until = Instant::now() + delay;
        tokio::time::sleep_until(until.min(self.at)).await;
        if until < self.at { Ok(()) } else { Err(Expired) }
    }
}

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired;

/// Longer and longer pauses, jittered so that sidecars do not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: MIN_BACKOFF }
    }

    /// The next pause: between half and all of a step that doubles up to [`MAX_BACKOFF`].
    pub(crate) fn step(&mut self) -> Duration {
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        let percent = 50 + u32::try_from(random % 51).expect("below 51");
        let pause = self.next * percent / 100;
        self.next = (self.next * 2).min(MAX_BACKOFF);
        pause
    }
}

/// Whether trying again, elsewhere or later, may help: the transport failed, or the broker said `UNAVAILABLE`.
/// Refusals, `RESOURCE_EXHAUSTED` among them, are the application's to act on.
pub(crate) fn is_transient(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_transport(status)
}

/// Whether another shard has what was asked for, so that asking this one again is in vain.
pub(crate) fn is_moved(status: &Status) -> bool {
    Failure::from_status(status).is_some_and(|failure| failure.reason == Reason::ShardMoved)
}

/// Whether the status was made on this side, from a broken connection. What a broker sent has no source.
pub(crate) fn is_transport(status: &Status) -> bool {
    status.source().is_some() && Failure::from_status(status).is_none()
}

/// The error and its causes in one line; tonic itself says only "transport error".
pub(crate) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        cause = error.source();
    }
    text
}

/// gRPC's `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that is away for seconds is asked again often at first, and never rarer than every 2 s.
    #[test]
    fn backoff_steps_double_up_to_the_bound() {
        let mut backoff = Backoff::new();
        let mut expected = MIN_BACKOFF;
        for _ in 0..12 {
            let step = backoff.step();
            assert!(step >= expected / 2 && step <= expected, "{step:?} of {expected:?}");
            expected = (expected * 2).min(MAX_BACKOFF);
        }
    }

    /// Unavailability is waited out; refusals are the application's.
    #[test]
    fn only_unavailability_is_transient() {
        for &reason in Reason::ALL {
            let transient = is_transient(&Failure::new(reason, "x").into());
            assert_eq!(transient, reason.code() == Code::Unavailable, "{reason:?}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(is_transient(&Status::from_error(Box::new(tonic::ConnectError(Box::new(broken))))));
        assert!(!is_transient(&Status::internal("said by a broker")));
    }

    /// Our own answer arrives before the caller's deadline.
    #[test]
    fn caller_deadline_less_margin_bounds_the_budget() {
        let mut metadata = MetadataMap::new();
        assert_eq!(Deadline::of(&metadata, DEFAULT_BUDGET).budget(), DEFAULT_BUDGET);
        for (text, millis) in [
            ("3S", 2800),
            ("100m", 90),
            ("1M", 59_800),
            ("10M", 60_000),
            ("x", 60_000),
            ("1", 60_000),
            ("+5S", 60_000),
        ] {
            metadata.insert("grpc-timeout", text.parse().unwrap());
            let budget = Deadline::of(&metadata, DEFAULT_BUDGET).budget();
            assert_eq!(budget, Duration::from_millis(millis), "{text}");
        }
    }

    /// People need the cause, not only "transport error".
    #[test]
    fn description_names_the_cause() {
        let refused = std::io::Error::other("connection refused by 10.0.0.7");
        let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
        assert!(describe(&status).contains("connection refused by 10.0.0.7"), "{}", describe(&status));
    }
}
