//! Exit codes with a meaning: what a process that never gets so far as to serve can tell whoever started it.

/// Of a broker whose store was written by a version with another format. It has changed nothing.
pub const OTHER_FORMAT: u8 = 65;
/// Of a broker whose store is sealed with a key that it was not given, or that was given keys and has a store without. It has
/// changed nothing.
pub const KEY_MISSING: u8 = 66;

/// Of a backup or restore that cannot be done before a person has done something; its last words say what.
pub const NEEDS_A_PERSON: u8 = 67;
