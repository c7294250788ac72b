//! The chart, installed as the README says, once for all tests of a run.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::diagnostics;
use super::kubectl::{Kubectl, run_limited};
use super::setting;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ackwell");
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

/// What the chart makes, in `namespace`, of the values in `charts/ackwell/ci` with this name, and of one more.
pub fn rendered(namespace: &str, values: Option<&str>, set: Option<&str>) -> anyhow::Result<String> {
    let mut helm = Command::new(setting("ACKWELL_HELM", "helm"));
    // Another release than the one that is installed: its objects have other names.
    helm.args(["template", "rendered", CHART, "--namespace", namespace, "--skip-tests"]);
    helm.args(["--api-versions", "monitoring.coreos.com/v1/PodMonitor"]);
    helm.args(["--api-versions", "monitoring.coreos.com/v1/PrometheusRule"]);
    if let Some(values) = values {
        helm.arg("--values").arg(format!("{CHART}/ci/{values}.yaml"));
    }
    if let Some(set) = set {
        helm.args(["--set", set]);
    }
    run_limited(helm, "", LIMIT)
}

fn install() -> anyhow::Result<()> {
    let mut helm = Command::new(setting("ACKWELL_HELM", "helm"));
    helm.args(["upgrade", "--install", RELEASE, CHART]);
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
