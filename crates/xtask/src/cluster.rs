//! The test cluster: `tests/cluster/cluster`, from here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::Workspace;
use crate::{child, image};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    #[command(subcommand)]
    action: Action,
}

/// The cluster's folders, as its script takes them.
#[derive(clap::Args, Clone)]
pub(crate) struct Folders {
    /// All state of the cluster; goes with `down`.
    #[arg(long = "cluster-dir", env = "CLUSTER_DIR", default_value = "/tmp/cluster")]
    pub(crate) state: PathBuf,
    /// Its binaries; they stay. Absent: the state folder's name and "-bin".
    #[arg(long = "cluster-bin", env = "CLUSTER_BIN")]
    binaries: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Compile the cluster's binaries: about 20 CPU-minutes at first.
    Build,
    /// Start it and wait until it is ready; builds first if need be. Needs root.
    Up,
    /// Import OCI archives into its image store.
    Load {
        /// Absent: all that `cargo xtask image` wrote.
        archives: Vec<PathBuf>,
    },
    /// Print the path of its kubeconfig.
    Kubeconfig,
    /// Print the size of each volume, and what it takes of the disk.
    DiskUsage,
    /// End everything on the node at once, and start it again.
    CrashNode,
    /// Stop it and remove what it made, volumes included.
    Down,
}

impl Folders {
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// Tells the script, or a test that calls it, which cluster is meant.
    pub(crate) fn name_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("CLUSTER_DIR", &self.state).env("CLUSTER_BIN", self.binaries())
    }

    pub(crate) fn binaries(&self) -> PathBuf {
        self.binaries.clone().unwrap_or_else(|| {
            let mut name = self.state.clone().into_os_string();
            name.push("-bin");
            name.into()
        })
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let folders = &options.folders;
    let simple = match &options.action {
        Action::Load { archives } => return load(workspace, folders, archives),
        Action::Build => "build",
        Action::Up => "up",
        Action::Kubeconfig => "kubeconfig",
        Action::DiskUsage => "disk-usage",
        Action::CrashNode => "crash-node",
        Action::Down => "down",
    };
    child::run(&mut script(workspace, folders, simple))
}

/// The script with one action; the caller adds its arguments.
pub(crate) fn script(workspace: &Workspace, folders: &Folders, action: &str) -> Command {
    let mut command = child::command(workspace.top.join("tests/cluster/cluster"), [action]);
    folders.name_to(&mut command);
    command
}

/// Loads these archives, or all there are.
pub(crate) fn load(workspace: &Workspace, folders: &Folders, archives: &[PathBuf]) -> anyhow::Result<()> {
    let all = if archives.is_empty() { image::archives(workspace)? } else { archives.to_vec() };
    all.iter().try_for_each(|archive| load_one(workspace, folders, archive))
}

fn load_one(workspace: &Workspace, folders: &Folders, archive: &Path) -> anyhow::Result<()> {
    child::run(script(workspace, folders, "load").arg(archive))
}
