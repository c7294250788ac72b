//! `ackwelld`: the broker, which stores messages, and the sidecar, through which applications reach it.

pub mod broker;
pub mod sidecar;
