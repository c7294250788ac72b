//! What could not be read.

use std::fmt;

/// Something of a store that fails its checksum and was set aside, so that the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What and where it is.
    pub what: String,
    /// What is missing without it.
    pub lost: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.what, self.lost)
    }
}
