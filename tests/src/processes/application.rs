//! The application of the chaos test, which is a program of this package.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;

/// An application that sends and consumes.
pub struct Application {
    process: Process,
}

impl Application {
    /// Starts `program` behind the sidecar at `address`; what it sees goes into the ledger `index` of `folder`.
    pub fn start(program: &Path, address: SocketAddr, folder: &Path, index: u64, seed: u64) -> Self {
        let mut command = Command::new(program);
        command.arg(address.to_string()).arg(ledger(folder, index));
        command.args([index.to_string(), seed.to_string()]);
        Self { process: Process::start(&mut command, &folder.join(format!("{index}.log"))) }
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be ended.
    pub fn into_process(self) -> Process {
        self.process
    }
}

/// Where an application writes what it sees.
pub fn ledger(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{index}.ledger"))
}
