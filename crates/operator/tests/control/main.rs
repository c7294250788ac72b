//! The controller against a real API server and the controllers of Kubernetes, which `control-plane` runs. Kubelet, storage
//! and brokers are played here, so that hundreds of Queues take seconds.
//!
//! `cargo xtask test --only e2e` provides the binaries; `CLUSTER_BIN` says where they are.

#![cfg(test)]

mod backups;
mod broker;
mod faults;
mod late;
mod node;
mod operator;
mod plane;
mod scenarios;
mod steady;
mod tasks;
mod world;
