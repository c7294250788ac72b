//! Real processes over real sockets: what a Kubernetes-free machine can show of the promises.

#![cfg(test)]

mod access;
mod admin;
mod attacks;
mod backups;
mod chaos;
mod command_line;
mod commit;
mod consume;
mod crash;
mod encryption;
mod formats;
mod keda;
mod keys;
mod metrics;
mod moving;
mod outcomes;
mod refusals;
mod sidecar;
mod stopping;
mod tasks;
mod tls;
mod traces;
