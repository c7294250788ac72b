//! Copies of `proto/` where a build cannot reach out of its own folder: the Java example generates its stubs from them.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Generated;

/// What an application needs.
const FILES: [&str; 2] = ["ackwell/v1/message.proto", "ackwell/v1/queues.proto"];
const OUT: &str = "examples/notifications/worker/src/main/proto";

pub(super) fn generate(top: &Path) -> anyhow::Result<Vec<Generated>> {
    FILES.iter().map(|file| copy(top, file)).collect()
}

fn copy(top: &Path, file: &str) -> anyhow::Result<Generated> {
    let source = top.join("proto").join(file);
    let content = std::fs::read(&source).with_context(|| format!("read {}", source.display()))?;
    Ok(Generated { path: PathBuf::from(OUT).join(file), content })
}
