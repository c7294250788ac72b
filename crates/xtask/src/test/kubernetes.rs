//! The cluster that e2e runs on: a given one, one that is up already, or one made for this run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::session::{Background, Session};
use super::{Layer, Options, e2e_tests};
use crate::child;
use crate::cluster::{self, Folders};
use crate::console::say;

/// In the cluster's folder while it runs for us; a run that finds it has found a leftover.
const MARKER: &str = "made-for-a-test-run";

/// Where e2e will run, once it is needed.
pub(super) enum Kubernetes {
    Given(PathBuf),
    Made { folders: Folders, build: Background },
    Impossible(&'static str),
}

/// A cluster that is up.
pub(super) struct Running {
    pub(super) kubeconfig: PathBuf,
    /// Of the cluster's own version, where there is one.
    pub(super) kubectl: Option<PathBuf>,
    /// Present where it is that of `cargo xtask cluster`.
    pub(super) ours: Option<Folders>,
    /// Whether this run made it, and ends it.
    made: bool,
}

impl Kubernetes {
    /// Decides, and starts to compile what a cluster of our own needs.
    pub(super) fn prepare(session: &Session<'_>, options: &Options) -> Self {
        // The one of `cargo xtask cluster` is not foreign, even if somebody exported its kubeconfig.
        let foreign = |kubeconfig: &&PathBuf| **kubeconfig != options.folders.kubeconfig();
        if let Some(kubeconfig) = options.kubeconfig.as_ref().filter(foreign) {
            return Self::Given(kubeconfig.clone());
        }
        if !rustix::process::geteuid().is_root() {
            return Self::Impossible("a cluster of our own takes root, and KUBECONFIG names no other");
        }
        let folders = options.folders.clone();
        let script = cluster::script(session.workspace, &folders, "build");
        Self::Made { build: session.background("cluster binaries", &script), folders }
    }

    /// Why e2e cannot run here.
    pub(super) fn impossible(&self) -> Option<&'static str> {
        if let Self::Impossible(reason) = self { Some(reason) } else { None }
    }

    /// Makes sure that it is up and has our images; `None` when e2e cannot run, which is then reported.
    pub(super) fn up(self, session: &mut Session<'_>, options: &Options) -> anyhow::Result<Option<Running>> {
        match self {
            Self::Given(kubeconfig) => {
                Ok(Some(Running { kubeconfig, kubectl: None, ours: None, made: false }))
            }
            Self::Impossible(_) => Ok(None),
            Self::Made { folders, build } => {
                if !build.end(session)? {
                    return Ok(None);
                }
                // Some of the binaries are enough for these, and what they find need not be looked for in a cluster.
                if options.wants(Layer::E2e) {
                    session.step("control plane", control_tests(session, &folders, "control"))?;
                    session.step("command line", control_tests(session, &folders, "cluster"))?;
                }
                start(session, folders)
            }
        }
    }
}

impl Running {
    /// Ends the cluster if this run made it.
    pub(super) fn end(self, session: &Session<'_>, keep: bool) -> anyhow::Result<()> {
        let Some(folders) = self.ours.filter(|_| self.made) else { return Ok(()) };
        if keep {
            std::fs::remove_file(folders.state.join(MARKER)).context("disown the cluster")?;
            say(format_args!("the cluster stays: export KUBECONFIG={}", self.kubeconfig.display()));
            return Ok(());
        }
        down(session, &folders)
    }
}

fn control_tests(session: &Session<'_>, folders: &Folders, test: &str) -> Command {
    let args = ["test", "--workspace", "--test", test, "--", "--ignored"];
    let mut cargo = session.workspace.cargo(args);
    cargo.env("CLUSTER_BIN", folders.binaries());
    cargo
}

fn start(session: &mut Session<'_>, folders: Folders) -> anyhow::Result<Option<Running>> {
    if folders.state.join(MARKER).exists() {
        say("ending the cluster of a test run that was killed");
        down(session, &folders)?;
    }
    let kubeconfig = folders.kubeconfig();
    let found = child::succeeds(&mut cluster::script(session.workspace, &folders, "running"));
    if found {
        say(format_args!("using the cluster that is up: {}", kubeconfig.display()));
    } else {
        std::fs::create_dir_all(&folders.state).context("make the cluster's folder")?;
        std::fs::write(folders.state.join(MARKER), "").context("mark the cluster as ours")?;
    }
    let up = if found {
        Ok(true)
    } else {
        session.step("cluster", cluster::script(session.workspace, &folders, "up"))
    };
    if matches!(up, Ok(true)) && load(session, &folders) {
        let kubectl = folders.binaries().join("kubectl");
        return Ok(Some(Running { kubeconfig, kubectl: Some(kubectl), ours: Some(folders), made: !found }));
    }
    if !found {
        down(session, &folders)?;
    }
    up?;
    session.fail("e2e", &anyhow::anyhow!("the cluster did not start"));
    Ok(None)
}

fn load(session: &mut Session<'_>, folders: &Folders) -> bool {
    cluster::load(session.workspace, folders, &[])
        .map_or_else(|error| session.fail("load images", &error), |()| true)
}

fn down(session: &Session<'_>, folders: &Folders) -> anyhow::Result<()> {
    child::run(&mut cluster::script(session.workspace, folders, "down"))
}

/// How many tests do not run.
pub(super) fn count_tests(session: &Session<'_>) -> anyhow::Result<usize> {
    let mut cargo = e2e_tests(session.workspace);
    let list = child::output(cargo.args(["--quiet", "--", "--list"]))?;
    Ok(list.lines().filter(|line| line.ends_with(": test")).count())
}
