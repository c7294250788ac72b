//! `cargo xtask test`: from a checkout and its toolchains to tested, in one command.
//!
//! It prepares what the tests need, runs them layer by layer, and ends with the summaries of the runners. A format or
//! lint error ends it at once; after any other failure the steps that do not depend on it still run.

mod excerpts;
mod kubernetes;
mod leftovers;
mod packages;
mod report;
mod session;
mod steps;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::child;
use crate::cluster::Folders;
use crate::image;
use crate::tools::{self, Tools};
use crate::workspace::{VERSION, Workspace};
use kubernetes::Kubernetes;
use session::{Background, Session};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only these; may be given more than once.
    #[arg(long, value_enum)]
    only: Vec<Layer>,
    /// An existing cluster for e2e, with the images already where it finds them. Absent: one is made here.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Leave the cluster running that was made for e2e.
    #[arg(long)]
    keep_cluster: bool,
    #[command(flatten)]
    folders: Folders,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Layer {
    /// Format, lints, generated files, the chart, licences.
    Lint,
    /// Tests inside the crates.
    Unit,
    /// Real processes over real sockets.
    It,
    /// The store under power cuts, kills, flipped bits and on full volumes: as much of each as minutes allow.
    Store,
    /// The clients of all languages: their own tests, and the conformance suite.
    Clients,
    /// The operator against the control plane of a cluster alone, then a real cluster.
    E2e,
    /// A hundred Queues on a real cluster, and what they cost. Only when it is asked for.
    Hundred,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<ExitCode> {
    let mut session = Session::begin(workspace)?;
    let outcome = layers(&mut session, options);
    session.end(outcome)
}

impl Options {
    fn wants(&self, layer: Layer) -> bool {
        (self.only.is_empty() && layer != Layer::Hundred) || self.only.contains(&layer)
    }

    fn wants_cluster(&self) -> bool {
        self.wants(Layer::E2e) || self.wants(Layer::Hundred)
    }
}

fn layers(session: &mut Session<'_>, options: &Options) -> anyhow::Result<()> {
    let needs_binaries =
        [Layer::It, Layer::Store, Layer::Clients].into_iter().any(|layer| options.wants(layer))
            || options.wants_cluster();
    if needs_binaries {
        packages::install(session)?;
    }
    // First of all and in the background: it takes longest, and nothing waits for it until e2e.
    let kubernetes = options.wants_cluster().then(|| Kubernetes::prepare(session, options));
    let cargo_deny = options.wants(Layer::Lint).then(|| cargo_deny(session)).transpose()?;
    if options.wants(Layer::Lint) {
        lint(session)?;
    }
    if options.wants(Layer::Unit) {
        session.step("unit", session.workspace.cargo(["test", "--no-fail-fast"]))?;
    }
    if let Some(cargo_deny) = cargo_deny {
        licences(session, cargo_deny)?;
    }
    let built = needs_binaries && session.step("binaries", binaries(session.workspace, options))?;
    // They need processors and no clock, and what `it` tests waits for minutes.
    let power_cuts = (built && options.wants(Layer::Store)).then(|| power_cuts(session));
    if options.wants(Layer::It) {
        it(session, built)?;
    }
    if options.wants(Layer::Store) {
        store(session, power_cuts)?;
    }
    if options.wants(Layer::Clients) {
        clients(session, built)?;
    }
    match kubernetes {
        Some(kubernetes) => e2e(session, options, kubernetes, built),
        None => Ok(()),
    }
}

fn binaries(workspace: &Workspace, options: &Options) -> Command {
    let torturers: &[&str] =
        if options.wants(Layer::Store) { &["ackwell-engine-check", "ackwell-torture"] } else { &[] };
    image::static_binaries(workspace, torturers)
}

fn lint(session: &mut Session<'_>) -> anyhow::Result<()> {
    let workspace = session.workspace;
    session.required("format", workspace.cargo(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    session.required("clippy", workspace.cargo(clippy))?;
    session.step("generated", xtask(workspace, ["gen", "--check"]))?;
    match tools::provide(workspace) {
        Ok(tools) => chart(session, &tools)?,
        Err(error) => _ = session.fail("chart", &error),
    }
    alerts(session)
}

/// Compiled in the background where it is missing: it needs minutes, and seconds later.
fn cargo_deny(session: &Session<'_>) -> anyhow::Result<Background> {
    Ok(session.background("cargo-deny", &tools::install_cargo_deny(session.workspace)?))
}

fn licences(session: &mut Session<'_>, cargo_deny: Background) -> anyhow::Result<()> {
    if !cargo_deny.end(session)? {
        session.fail("licences", &anyhow::anyhow!("there is no cargo-deny"));
        return Ok(());
    }
    // Not `advisories`: their database lies on a host that a build may not reach. `cargo deny check` has them.
    let mut check = tools::cargo_deny(session.workspace)?;
    check.args(["check", "licenses", "bans", "sources"]);
    session.step("licences", check)?;
    Ok(())
}

/// Another chore, by the program that runs already. Not by its path: building the whole workspace, as `unit` does, may
/// link this program anew, and then its file is gone while it runs.
fn xtask<const N: usize>(workspace: &Workspace, args: [&str; N]) -> Command {
    let mut command = child::command("/proc/self/exe", args);
    command.current_dir(&workspace.top);
    command
}

/// With its own values, and with those of `ci/`; that the API server takes what it makes of them is tested in e2e.
fn chart(session: &mut Session<'_>, tools: &Tools) -> anyhow::Result<()> {
    for values in ["values", "ci/everything", "ci/least", "ci/watched"] {
        let values = format!("charts/ackwell/{values}.yaml");
        let mut helm =
            child::command(&tools.helm, ["lint", "--strict", "charts/ackwell", "--values", &values]);
        helm.current_dir(&session.workspace.top);
        session.step("chart", helm)?;
    }
    Ok(())
}

/// Prometheus reads the alerts of the chart, and each fires when it should.
fn alerts(session: &mut Session<'_>) -> anyhow::Result<()> {
    let promtool = match tools::promtool(session.workspace) {
        Ok(promtool) => promtool,
        Err(error) => {
            session.fail("alerts", &error);
            return Ok(());
        }
    };
    let with = |args: [&str; 3]| {
        let mut command = child::command(&promtool, args);
        command.current_dir(&session.workspace.top);
        command
    };
    let (check, test) = (
        with(["check", "rules", "charts/ackwell/files/alerts.yaml"]),
        with(["test", "rules", "tests/prometheus/alerts.yaml"]),
    );
    session.step("alerts", check)?;
    session.step("tests of alerts", test)?;
    Ok(())
}

fn it(session: &mut Session<'_>, built: bool) -> anyhow::Result<()> {
    if !built {
        session.fail("it", &anyhow::anyhow!("there are no binaries to test"));
        return Ok(());
    }
    // With the features of the whole workspace, as for the step before: nothing is compiled again.
    let mut cargo = session.workspace.cargo(["test", "--workspace", "--test", "it"]);
    cargo.env("ACKWELL_BINARIES", image::static_folder(session.workspace));
    session.step("it", cargo)?;
    Ok(())
}

fn power_cuts(session: &Session<'_>) -> Background {
    let mut crash = child::command(image::static_folder(session.workspace).join("crash"), []);
    crash.args(["--schedules", "50000", "--seconds", "3600", "--threads", "2"]);
    session.background("power cuts", &crash)
}

/// What `docs/delivery.md` tells of longer campaigns, in short.
fn store(session: &mut Session<'_>, power_cuts: Option<Background>) -> anyhow::Result<()> {
    let Some(power_cuts) = power_cuts else {
        session.fail("store", &anyhow::anyhow!("there are no binaries to test"));
        return Ok(());
    };
    let folder = image::static_folder(session.workspace);
    let with_broker = |args: &[&str]| {
        let mut torture = child::command(folder.join("torture"), args.iter().copied());
        torture.arg("--ackwelld").arg(folder.join("ackwelld"));
        torture
    };
    power_cuts.end(session)?;
    session.step("flipped bits", child::command(folder.join("torture"), ["flip", "--flips", "300"]))?;
    session.step("kills", with_broker(&["kill", "--kills", "40"]))?;
    if rustix::process::geteuid().is_root() {
        session.step("full volume", with_broker(&["full", "--volume-mib", "64", "--rounds", "1"]))?;
    } else {
        session.skip("full volume", 1, "only root can mount one");
    }
    Ok(())
}

/// A language whose toolchain is not here is named and counted as skipped.
fn clients(session: &mut Session<'_>, built: bool) -> anyhow::Result<()> {
    if !built {
        session.fail("clients", &anyhow::anyhow!("there are no binaries to test"));
        return Ok(());
    }
    let mut suite = child::command("tests/conformance/run", ["--unit", "--allow-missing"]);
    suite.current_dir(&session.workspace.top);
    suite.env("ACKWELL_BINARIES", image::static_folder(session.workspace));
    session.step("clients", suite)?;
    Ok(())
}

fn e2e(
    session: &mut Session<'_>,
    options: &Options,
    kubernetes: Kubernetes,
    built: bool,
) -> anyhow::Result<()> {
    if let Some(reason) = kubernetes.impossible() {
        session.skip("e2e", kubernetes::count_tests(session)?, reason);
        return Ok(());
    }
    let images = xtask(session.workspace, ["image", "--prebuilt", "--examples"]);
    if !built || !session.step("images", images)? {
        session.fail("e2e", &anyhow::anyhow!("there are no images to install"));
        return Ok(());
    }
    let Some(cluster) = kubernetes.up(session, options)? else { return Ok(()) };
    let ran = e2e_in(session, options, &cluster);
    cluster.end(session, options.keep_cluster)?;
    ran
}

fn e2e_in(session: &mut Session<'_>, options: &Options, cluster: &kubernetes::Running) -> anyhow::Result<()> {
    let tools = tools::provide(session.workspace)?;
    if options.wants(Layer::E2e) {
        let mut all = e2e_tests_on(session, cluster, &tools)?;
        // They wait for most of their time: a shard that drains takes two minutes.
        all.args(["--", "--test-threads=4"]);
        session.step("e2e", all)?;
        outages(session, cluster, &tools)?;
    }
    if options.wants(Layer::Hundred) {
        let mut hundred = e2e_tests_on(session, cluster, &tools)?;
        hundred.args(["hundred::", "--", "--ignored", "--nocapture"]);
        session.step("hundred", hundred)?;
    }
    Ok(())
}

/// The tests that end what all others need: one after the other, where processes of the cluster can be reached.
fn outages(session: &mut Session<'_>, cluster: &kubernetes::Running, tools: &Tools) -> anyhow::Result<()> {
    let mut outages = e2e_tests_on(session, cluster, tools)?;
    outages.arg("outages::");
    if let Some(folders) = &cluster.ours {
        folders.name_to(&mut outages).args(["--", "--ignored", "--nocapture", "--test-threads=1"]);
        session.step("outages", outages)?;
        return Ok(());
    }
    let count = child::output(outages.args(["--quiet", "--", "--ignored", "--list"]))?;
    let count = count.lines().filter(|line| line.ends_with(": test")).count();
    session.skip("outages", count, "they stop processes of the cluster, which is another's");
    Ok(())
}

fn e2e_tests_on(
    session: &Session<'_>,
    cluster: &kubernetes::Running,
    tools: &Tools,
) -> anyhow::Result<Command> {
    let mut cargo = e2e_tests(session.workspace);
    cargo
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("ACKWELL_BINARIES", image::static_folder(session.workspace))
        .env("ACKWELL_HELM", &tools.helm)
        .env("ACKWELL_KUBECTL", cluster.kubectl.as_ref().unwrap_or(&tools.kubectl))
        .env("ACKWELL_IMAGE_TAG", VERSION)
        .env("ACKWELL_DIAGNOSTICS", session.workspace.folder("e2e")?);
    Ok(cargo)
}

fn e2e_tests(workspace: &Workspace) -> Command {
    workspace.cargo(["test", "--workspace", "--test", "e2e"])
}
