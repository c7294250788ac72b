//! What a release has besides images: the packed chart, the same as plain manifests, what is in the binaries, and man pages
//! and completion of the command line.

mod sbom;

use std::path::Path;

use anyhow::Context;

use crate::child;
use crate::console::say;
use crate::tools;
use crate::workspace::Workspace;

const CHART: &str = "charts/ackwell";
const RELEASE: &str = "ackwell";
/// Where the manifests put the operators.
const NAMESPACE: &str = "ackwell-system";

/// Before what the chart makes: applying it is all there is to do.
const HEAD: &str = "\
# Ackwell as plain manifests: kubectl apply --server-side -f install.yaml
# Made of the chart with its default values by `cargo xtask dist`.
apiVersion: v1
kind: Namespace
metadata:
  name: ackwell-system
";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Registry that the manifests name.
    #[arg(long, default_value = "localhost")]
    registry: String,
}

/// Writes `target/dist`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let folder = workspace.folder("dist")?;
    let tools = tools::provide(workspace)?;
    let registry = format!("image.registry={}", options.registry);
    let mut template = child::command(
        &tools.helm,
        ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--skip-tests", "--set", &registry],
    );
    let manifests = child::output(template.current_dir(&workspace.top))?;
    write(&folder.join("install.yaml"), &format!("{HEAD}{manifests}"))?;
    write(&folder.join("ackwell.cdx.json"), &sbom::of(workspace)?)?;
    let mut package = child::command(&tools.helm, ["package", CHART, "--destination"]);
    child::run(package.arg(&folder).current_dir(&workspace.top))?;
    command_line(workspace, &folder)
}

/// What shells and `man` know of the command line, by itself.
fn command_line(workspace: &Workspace, folder: &Path) -> anyhow::Result<()> {
    let ackwell = ["run", "--quiet", "--package", "ackwell", "--bin", "ackwell", "--"];
    child::run(workspace.cargo(ackwell).arg("man").arg(folder.join("man1")))?;
    say(folder.join("man1").display());
    for shell in ["bash", "fish", "zsh"] {
        let script = child::output(workspace.cargo(ackwell).args(["completion", shell]))?;
        write(&folder.join(format!("completion.{shell}")), &script)?;
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    say(path.display());
    Ok(())
}
