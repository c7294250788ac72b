//! `cargo xtask prove`: plants mistakes in the store, one after the other, and sees that the schedules of power cuts find each. A
//! test that has never failed shows nothing.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::child;
use crate::console::say;
use crate::workspace::Workspace;

const FAULTS: &str = "crates/engine-check/faults.yaml";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only faults that have this in their description.
    #[arg(default_value = "")]
    like: String,
    /// A fault that is not found in so many seconds is not found.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    #[serde(rename = "fault")]
    what: String,
    /// From the top of the repository.
    file: PathBuf,
    replace: String,
    with: String,
    #[serde(default)]
    args: Vec<String>,
}

/// A fault in its file, which is as before when this is dropped.
struct Planted {
    file: PathBuf,
    before: String,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    say("| fault | survived before it was found |\n|---|---|");
    for fault in faults(workspace)?.into_iter().filter(|fault| fault.what.contains(&options.like)) {
        let found = search(workspace, &fault, options.seconds).with_context(|| fault.what.clone())?;
        say(format!("| {} | {} |", fault.what, found.as_deref().unwrap_or("not found")));
        missed.extend(found.is_none().then_some(fault.what));
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join("; "));
    Ok(())
}

fn faults(workspace: &Workspace) -> anyhow::Result<Vec<Fault>> {
    let file = workspace.top.join(FAULTS);
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("read {}", file.display()))
}

/// How many schedules were survived before one was not.
fn search(workspace: &Workspace, fault: &Fault, seconds: u64) -> anyhow::Result<Option<String>> {
    let planted = fault.plant(workspace)?;
    child::run(&mut workspace.cargo(["build", "--quiet", "--package", "ackwell-engine-check"]))?;
    drop(planted);
    let mut crash = child::command(workspace.target.join("debug/crash"), ["--seconds"]);
    let output = crash.arg(seconds.to_string()).args(&fault.args).output().context("start crash")?;
    let output = String::from_utf8_lossy(&output.stdout);
    let (survived, _) = output.rsplit_once(" schedules survived, 1 not").unwrap_or_default();
    Ok(survived.split_whitespace().next_back().map(str::to_owned))
}

impl Fault {
    fn plant(&self, workspace: &Workspace) -> anyhow::Result<Planted> {
        let file = workspace.top.join(&self.file);
        let before = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let places = before.matches(&self.replace).count();
        ensure!(places == 1, "{} has what is to be replaced {places} times", file.display());
        std::fs::write(&file, before.replace(&self.replace, &self.with))?;
        Ok(Planted { file, before })
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.file, &self.before) {
            say(format!("{} still has the fault: {error}", self.file.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each can still be planted: what it replaces is there, once.
    #[test]
    fn faults_have_their_place() {
        let workspace = Workspace::find().unwrap();
        for Fault { what, file, replace, with, .. } in faults(&workspace).unwrap() {
            let text = std::fs::read_to_string(workspace.top.join(file)).unwrap();
            assert_eq!(text.matches(&replace).count(), 1, "{what}");
            assert_ne!(replace, with, "{what}");
        }
    }
}
