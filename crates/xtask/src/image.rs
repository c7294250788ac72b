//! Container images: one static binary each, on nothing.

mod builder;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::child;
use crate::console::say;
use crate::workspace::{VERSION, Workspace};
use builder::Builder;

/// What becomes an image; packages, binaries, stages of the Containerfile and images have the same names.
pub(crate) const BINARIES: [&str; 3] = ["ackwelld", "ackwell-operator", "ackwell"];

/// Every node with a sidecar pulls it before the first message flows.
const MAX_BROKER_BYTES: u64 = 25_000_000;
/// The operator and the command line have Kubernetes' client and types in them, the latter the broker, too, for `dev`.
const MAX_CLIENT_BYTES: u64 = 30_000_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tag of the images.
    #[arg(long, default_value = VERSION)]
    tag: String,
    /// Take the binaries as an earlier run built them.
    #[arg(long)]
    prebuilt: bool,
    /// Build the images of the examples' applications too; those have the tag `dev`.
    #[arg(long)]
    examples: bool,
}

/// Builds the binaries and writes one OCI archive per image to `target/images`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    if !options.prebuilt {
        child::run(&mut static_binaries(workspace, &[]))?;
    }
    let builder = Builder::find()?;
    BINARIES.iter().try_for_each(|name| image(workspace, &builder, name, &options.tag))?;
    if options.examples { child::run(&mut examples(workspace)?) } else { Ok(()) }
}

/// The command that builds the images of the examples, which are not ours to pull: they have no limit.
fn examples(workspace: &Workspace) -> anyhow::Result<Command> {
    let mut command = child::command(workspace.top.join("examples/build-images"), []);
    command.arg(workspace.folder("images")?);
    Ok(command)
}

/// The cargo command that builds what the images hold, and other packages along with them.
pub(crate) fn static_binaries(workspace: &Workspace, others: &[&str]) -> Command {
    let target = target();
    let mut cargo = workspace.cargo(["build", "--release", "--target", &target]);
    cargo.args(BINARIES.iter().chain(others).flat_map(|name| ["--package", name]));
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo
}

/// Where [`static_binaries`] puts them.
pub(crate) fn static_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join(target()).join("release")
}

/// Where the OCI archives are.
pub(crate) fn archives(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let folder = workspace.folder("images")?;
    let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.with_context(|| format!("read {}", folder.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    paths.sort();
    Ok(paths)
}

/// Named even though it is the machine's own: flags for a named target do not reach build scripts and macros, which
/// cannot be static.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn image(workspace: &Workspace, builder: &Builder, name: &str, tag: &str) -> anyhow::Result<()> {
    let context = workspace.folder("images/files")?;
    let binary = static_folder(workspace).join(name);
    let bytes =
        std::fs::copy(&binary, context.join(name)).with_context(|| format!("copy {}", binary.display()))?;
    let archive = workspace.target.join("images").join(format!("{name}.tar"));
    let image = builder::Image {
        file: &workspace.top.join("Containerfile"),
        context: &context,
        stage: Some(name),
        name: format!("localhost/ackwell/{name}:{tag}"),
        archive: &archive,
    };
    builder.build(&image)?;
    let most = if name == "ackwelld" { MAX_BROKER_BYTES } else { MAX_CLIENT_BYTES };
    report(&image.name, (bytes, most), &archive)
}

fn report(image: &str, (bytes, most): (u64, u64), archive: &Path) -> anyhow::Result<()> {
    let packed = std::fs::metadata(archive).with_context(|| format!("read {}", archive.display()))?.len();
    say(format_args!(
        "{image}  {} MB, {} MB packed  {}",
        megabytes(bytes),
        megabytes(packed),
        archive.display()
    ));
    if bytes > most {
        bail!("{image} has {bytes} bytes, more than the {most} that it may have");
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
