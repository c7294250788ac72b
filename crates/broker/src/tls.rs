//! TLS on every hop that leaves a pod: what a broker shows, and whom a sidecar trusts.
//!
//! Certificates are files, which whoever manages them replaces; they are read again when they change. Handshakes take the
//! newest, connections that stand keep theirs. There is no other crypto provider than ring. Clients show no certificate, but for
//! shards that call another one of their queue.

mod client;
mod files;
mod incoming;
mod peers;
mod server;

use std::path::PathBuf;

pub(crate) use client::{Connection, Trust};
pub(crate) use incoming::{Chain, Remote, accept};
pub(crate) use peers::Peers;
pub(crate) use server::Identity;

/// What a broker shows of itself.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// Its certificate, and those between it and the authority: PEM.
    pub certificate: PathBuf,
    /// The key of the certificate: PEM.
    pub key: PathBuf,
    /// Whether connections from this machine's loopback may be plain, which is how `kubectl port-forward` arrives.
    pub plain_loopback: bool,
}
