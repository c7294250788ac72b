//! Time as the engine counts it.

/// Milliseconds since 1970. Wall clock, because deadlines outlive the process; the driver never lets it step back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The end of time: what is due then never happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ms` later; the end of time when that does not fit.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 when that is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
