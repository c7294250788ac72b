//! A real cluster: the chart, the examples, and what goes wrong in a cluster.
//!
//! Every test has a namespace of its own; the chart is installed once.

#![cfg(test)]

mod applications;
mod capacity;
mod chart;
mod command_line;
mod delivery;
mod drains;
mod embedded;
mod encryption;
mod examples;
mod hundred;
mod lifecycle;
mod load;
mod manifests;
mod operations;
mod outages;
mod pods;
mod queue;
mod refusals;
mod schema;
