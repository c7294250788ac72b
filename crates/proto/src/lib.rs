//! The gRPC API `ackwell.v1`: generated types, and what every speaker of it must agree on.
//!
//! - [`v1`]: the generated messages, clients and servers.
//! - [`Reason`]: the stable reasons of errors, with their gRPC codes.
//! - [`QueueName`]: `namespace/name`, parsed once.
//! - [`exit`]: what processes say with their last breath.
//!
//! It does not decide anything about messages; that is `ackwell-engine`.

pub mod exit;
mod name;
mod reason;
mod time;

/// Generated from `proto/ackwell/v1/*.proto` by `cargo xtask gen`.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    include!("gen/ackwell.v1.rs");

    /// For gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
}

/// KEDA's external scaler, as far as brokers serve it; generated from `proto/externalscaler` by `cargo xtask gen`.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod externalscaler {
    include!("gen/externalscaler.rs");
}

/// Where a message of a part stands in the whole Send or batch that a sidecar took apart. Reserved: from applications it is
/// refused.
pub const POSITION_HEADER: &str = "ackwell-position";

pub use name::{InvalidQueueName, QueueName};
pub use reason::{Failure, Reason};
pub use time::{duration, duration_millis, timestamp, timestamp_millis};
