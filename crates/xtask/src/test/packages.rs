//! Debian packages that the tests need besides the toolchains.

use std::process::Command;

use super::session::Session;
use crate::child;
use crate::console::say;

/// Static linking; the cluster and its volumes (see `tests/cluster/README.md`); building images.
const NEEDED: [&str; 12] = [
    "buildah",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libseccomp-dev",
    "mount",
    "nftables",
    "openssl",
    "pkg-config",
    "procps",
    "util-linux",
    "xfsprogs",
];

/// Installs what is missing where that is possible; where it is not, says so and leaves it to the steps to fail.
pub(super) fn install(session: &mut Session<'_>) -> anyhow::Result<()> {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if child::find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        say(format_args!("missing, and not installed (that takes root and apt-get): {}", missing.join(" ")));
        return Ok(());
    }
    session.step("package list", apt(["update"]))?;
    let mut install = apt(["install", "--yes", "--no-install-recommends"]);
    install.args(missing);
    session.step("packages", install)?;
    Ok(())
}

fn installed(package: &str) -> bool {
    child::succeeds(&mut child::command("dpkg", ["--status", package]))
}

fn apt<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = child::command("apt-get", ["--quiet"]);
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
