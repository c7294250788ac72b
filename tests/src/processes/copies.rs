//! `ackwelld backup` and `ackwelld restore`, as the operator runs them.

use std::path::Path;
use std::process::Command;

use super::broker::{NAMESPACE, QUEUE};
use super::process::Process;
use super::shards::Shards;

/// Begins to back up into `folder`.
pub fn backup(shards: &Shards, count: usize, (task, folder): (&str, &Path), more: &[&str]) -> Process {
    let mut command = program("backup", shards, count);
    command.args(["--task", task]).arg("--to").arg(folder).args(more);
    Process::start(&mut command, &folder.with_extension("log"))
}

/// Begins to restore what is in `folder`.
pub fn restore(shards: &Shards, count: usize, folder: &Path, more: &[&str]) -> Process {
    let mut command = program("restore", shards, count);
    command.arg("--from").arg(folder).args(more);
    Process::start(&mut command, &folder.with_extension("log"))
}

fn program(name: &str, shards: &Shards, count: usize) -> Command {
    let mut command = Command::new(super::binary("ackwelld"));
    command.args([name, "--queue", &format!("{NAMESPACE}/{QUEUE}")]);
    for address in shards.addresses().take(count) {
        command.args(["--shard", &address.to_string()]);
    }
    command
}
