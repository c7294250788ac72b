//! The only place that reads time.

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// For measuring how long something takes; never goes backwards.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// For conditions.
pub(crate) fn now() -> Time {
    Time(Timestamp::now())
}

/// For leases.
pub(crate) fn now_micro() -> MicroTime {
    MicroTime(Timestamp::now())
}
