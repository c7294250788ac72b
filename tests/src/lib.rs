//! Harness of the tests that cross processes.
//!
//! - [`processes`]: brokers, sidecars and the CLI as processes of this machine.
//! - [`caller`]: an application that uses nothing but the generated stubs.
//! - [`certificates`]: authorities of a test, and what brokers show.
//! - [`collector`]: whom processes tell their spans.
//! - [`cluster`]: a real cluster, and what is installed in it.
//! - [`dice`], [`ledger`], [`numbered`], [`proxy`]: what the chaos test and its applications share, and the network between.
//! - [`keyed`]: a load of keyed messages, and what must hold of it.
//! - [`tokens`]: who calls, where brokers want to know.
//! - [`wait`]: the one way to wait for something.

pub mod caller;
pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod dice;
pub mod keyed;
pub mod ledger;
pub mod numbered;
pub mod ports;
pub mod processes;
pub mod proxy;
pub mod tokens;
pub mod wait;
