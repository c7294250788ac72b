//! Brokers, sidecars and the CLI as processes: started, killed, stopped and started again.

mod application;
mod broker;
mod command_line;
mod copies;
mod operator;
mod process;
mod shards;
mod sidecar;

use std::path::PathBuf;

pub use application::{Application, ledger};
pub use broker::{Broker, NAMESPACE, QUEUE, settings};
pub use command_line::{CommandLine, Dev};
pub use copies::{backup, restore};
pub use operator::Operator;
pub use process::Process;
pub use shards::{Certificates, Shards, placement};
pub use sidecar::{Sidecar, drain};

/// A binary of this repository: from the folder that `ACKWELL_BINARIES` names, or as `cargo build --release` makes it.
fn binary(name: &str) -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release");
    let folder = std::env::var_os("ACKWELL_BINARIES").map_or_else(|| PathBuf::from(built), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test --only it`, which builds it",
        path.display()
    );
    path
}
