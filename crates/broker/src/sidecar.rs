//! The sidecar: the API on 127.0.0.1, routed to brokers.
//!
//! It keeps what an application should not have to: where the shards are, reconnecting, repeating calls until a
//! restarted broker answers, and giving back deliveries that the application never got.
//!
//! It stores nothing. What it confirmed was confirmed by a broker.

mod admin;
mod attempt;
mod commit;
mod consume;
mod drain;
mod find;
mod held;
mod merge;
mod metrics;
mod options;
mod produce;
mod receipt;
mod receive;
mod retry;
mod route;
mod send;
mod server;
mod service;
mod settle;
mod settled;
mod shard_channel;

pub use drain::tell as tell_to_drain;
pub use options::{DEFAULT_BROKER_ADDRESS, Options};
pub use server::run;
