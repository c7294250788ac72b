//! Exit codes with a meaning: what a process that never gets so far as to serve can tell whoever started it.

/// Of a broker whose store was written by a version with another format. It has changed nothing.
pub const OTHER_FORMAT: u8 = 65;
