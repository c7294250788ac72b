//! Rust client for Ackwell queues: thin over the gRPC API `ackwell.v1`.
//!
//! ```no_run
//! use ackwell_client::{Client, DEFAULT_ADDRESS, Message, Receive, ack};
//!
//! # async fn example() -> Result<(), ackwell_client::Error> {
//! let client = Client::connect(DEFAULT_ADDRESS).await?;
//! client.send("orders", Message { body: "hello".into(), ..Message::default() }).await?;
//! for delivery in client.receive("orders", Receive::default()).await? {
//!     client.settle("orders", vec![ack(&delivery)]).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Calls that can be repeated without a second effect are repeated while the broker is unavailable, within a limit.
//! [`Client::consume`] runs a handler for each message, extends what it works on, and resumes after a broken connection;
//! [`Client::producer`] sends many messages without waiting for each. Deliveries of [`Client::receive`] are not extended on
//! their own: settle or [`Client::extend`] before `ack_deadline`.

mod batch;
mod client;
mod cloud_event;
mod connect;
mod consumer;
mod error;
mod outbox;
mod outcome;
mod pauses;
mod producer;
mod retry;
#[cfg(feature = "sealing")]
pub mod sealing;
mod session;
mod settlement;
mod token;
pub mod trace;

pub use ackwell_proto::v1::{
    Attempt, CommitRequest, CommitResponse, Delivery, ExplainResponse, Filter, ItemError, Message,
    PeekRequest, PeekResponse, PurgeRequest, PurgeResponse, RedriveRequest, RedriveResponse, SendRequest,
    SendResult, SettleRequest, SettleResult, Settlement, State, StatsResponse,
    explain_response::Reason as Obstacle, message::Available,
};
pub use ackwell_proto::{Failure, Reason};
pub use batch::{Batch, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};
pub use client::{Client, Receive, Sent};
pub use cloud_event::{CloudEvent, NotACloudEvent};
pub use connect::DEFAULT_ADDRESS;
pub use consumer::{Consume, Consumer, Stopper};
pub use error::Error;
pub use outcome::Outcome;
pub use producer::{Confirm, Produce, Producer};
pub use settlement::{ack, nack, reject, release};
