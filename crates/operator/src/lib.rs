//! `ackwell-operator`: makes Queues real, and inserts sidecars into pods.
//!
//! - [`run`]: the process; its module lists the rights it needs.
//! - `queue_controller`: five steps from a Queue to brokers and a status.
//! - [`webhook`], [`certificates`]: sidecars for pods that ask for one. [`traces`]: whom brokers and sidecars tell.
//!
//! It never reads messages and keeps no state outside the API server.

pub mod certificates;
pub mod run;
pub mod traces;
pub mod webhook;

mod authorities;
mod clock;
mod http;
mod identity;
mod leader;
mod metrics;
mod queue_controller;
mod restricted;
