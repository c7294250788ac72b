//! Generated files that are committed, so that nobody needs a generator to build.
//!
//! Each generator returns what should be on disk; one function writes it or, with `--check`, reports the drift.

mod copies;
mod crds;
mod proto;
mod values;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A file as it should be.
pub(crate) struct Generated {
    /// From the top of the repository.
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

/// Writes every generated file, or fails when `check` finds one that differs.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let top = top();
    let files = proto::generate(&top)?.into_iter().chain(crds::generate()?).chain(copies::generate(&top)?);
    let files = files.chain(values::generate(&top)?);
    let stale: Vec<Generated> = files.filter(|file| differs(&top, file)).collect();
    if check && !stale.is_empty() {
        let names: Vec<_> = stale.iter().map(|file| file.path.display().to_string()).collect();
        bail!("generated files are out of date: {}; run `cargo xtask gen` and commit", names.join(", "));
    }
    stale.iter().try_for_each(|file| write(&top, file))
}

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("this crate lives in crates/xtask").to_path_buf()
}

fn differs(top: &Path, file: &Generated) -> bool {
    std::fs::read(top.join(&file.path)).ok().as_ref() != Some(&file.content)
}

fn write(top: &Path, file: &Generated) -> anyhow::Result<()> {
    let path = top.join(&file.path);
    let folder = path.parent().context("a generated file lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(&path, &file.content).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    /// What is committed is what the sources say.
    #[test]
    fn committed_files_are_up_to_date() {
        super::run(true).unwrap();
    }
}
