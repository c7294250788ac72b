//! The chart, installed as the README says, once for all tests of a run.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::diagnostics;
use super::kubectl::{Kubectl, run_limited};
use super::setting;

const RELEASE: &str = "ackwell";
const NAMESPACE: &str = "ackwell-system";
/// The operators start within seconds; images are there already.
const LIMIT: Duration = Duration::from_mins(3);

/// Installs or upgrades the chart, unless this run has done so; panics where that fails.
pub fn installed() {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    if let Err(error) = installed {
        panic!("the chart could not be installed: {error}");
    }
}

fn install() -> anyhow::Result<()> {
    let mut helm = Command::new(setting("ACKWELL_HELM", "helm"));
    helm.args(["upgrade", "--install", RELEASE, concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ackwell")]);
    helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "2m"]);
    helm.args(["--set", &format!("image.tag={}", setting("ACKWELL_IMAGE_TAG", ""))]);
    let kubectl = Kubectl::in_namespace(NAMESPACE);
    let done = run_limited(helm, "", LIMIT).and_then(|_| {
        // Images may have changed under the same tag since an earlier run on this cluster.
        kubectl.run(&["rollout", "restart", "deployment", "--selector", "app.kubernetes.io/name=ackwell"])?;
        kubectl.run(&[
            "rollout",
            "status",
            "deployment",
            "--selector",
            "app.kubernetes.io/name=ackwell",
            "--timeout=50s",
        ])
    });
    if done.is_err() {
        diagnostics::collect(&kubectl);
    }
    done.map(drop)
}
