//! `ackwelld`: the broker, which stores messages, and the sidecar, through which applications reach it.
//!
//! - [`broker`]: drives the engine and serves it over gRPC.
//! - [`sidecar`]: the same API on 127.0.0.1, routed to brokers, with retries.
//!
//! - [`backup`]: what all shards of a queue have, into files and back.
//!
//! - [`tls`]: between the two. [`traces`]: what both record of messages.
//!
//! Neither knows Kubernetes: their world is a file, a directory, flags and gRPC.

mod answering;
pub mod backup;
pub mod broker;
mod calls;
mod clock;
mod exposition;
mod http;
mod json;
pub mod logs;
mod producer;
mod receiving;
pub mod sidecar;
mod stream_end;
pub mod tls;
pub mod traces;
