//! `cargo xtask torture`: builds the broker and the program that tortures it as releases are built, and runs that.

use crate::child;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    what: What,
    /// Further arguments, such as `--kills 20`: see `--help` behind `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Kill a loaded broker again and again.
    Kill,
    /// Fill a small volume until nothing fits any more, and make room again. Needs root and a loop device.
    Full,
    /// Flip bits in the files of a stopped store.
    Flip,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let what = match options.what {
        What::Kill => "kill",
        What::Full => "full",
        What::Flip => "flip",
    };
    child::run(&mut workspace.cargo(["build", "--release", "--package", "ackwell-torture"]))?;
    let release = workspace.target.join("release");
    let mut torture = child::command(release.join("torture"), [what]);
    if options.what != What::Flip {
        child::run(&mut workspace.cargo(["build", "--release", "--package", "ackwelld"]))?;
        torture.arg("--ackwelld").arg(release.join("ackwelld"));
    }
    child::run(torture.args(&options.args))
}
