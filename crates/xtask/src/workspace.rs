//! Where things are in this repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::{child, generate};

/// A checkout and its build folder.
pub(crate) struct Workspace {
    /// The top of the repository.
    pub(crate) top: PathBuf,
    /// Cargo's target folder; everything we make goes there.
    pub(crate) target: PathBuf,
}

/// The version of every crate, image and of the chart.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Workspace {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let top = generate::top();
        let mut metadata = child::command("cargo", ["metadata", "--no-deps", "--format-version=1"]);
        let json = child::output(metadata.current_dir(&top))?;
        let metadata: Value = serde_json::from_str(&json).context("read the output of cargo metadata")?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
        Ok(Self { target: target.into(), top })
    }

    /// A cargo command in this workspace.
    pub(crate) fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = child::command("cargo", args);
        command.current_dir(&self.top);
        command
    }

    /// A folder below `target`, made if need be.
    pub(crate) fn folder(&self, below_target: &str) -> anyhow::Result<PathBuf> {
        let folder = self.target.join(below_target);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }
}
