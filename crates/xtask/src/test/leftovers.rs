//! What a test run that was killed has left running.
//!
//! Every child carries a mark in its environment, and so do its own children. Whoever holds the checkout's lock and
//! finds processes with the mark has found leftovers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::console::say;
use crate::workspace::Workspace;

const VARIABLE: &str = "ACKWELL_TEST_RUN";

/// The variable that all children of test runs in this checkout carry.
pub(super) fn mark(workspace: &Workspace) -> (&'static str, String) {
    (VARIABLE, workspace.target.display().to_string())
}

/// Ends all processes that carry the mark.
pub(super) fn end(workspace: &Workspace) -> anyhow::Result<()> {
    let processes = Path::new("/proc");
    if !processes.join("self/environ").exists() {
        return Ok(());
    }
    let (name, value) = mark(workspace);
    let mark = format!("{name}={value}");
    let entries = std::fs::read_dir(processes).context("list processes")?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for id in ids.filter(|id| carries(*id, mark.as_ref())) {
        say(format_args!("ending process {id}, left by a test run that was killed"));
        // It may have ended by itself.
        let _ = Pid::from_raw(id).map(|pid| kill_process(pid, Signal::KILL));
    }
    Ok(())
}

fn carries(process: i32, mark: &OsStr) -> bool {
    // Unreadable: it has ended, or belongs to somebody else.
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}
