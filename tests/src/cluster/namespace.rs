//! A namespace of a test's own.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::{Kubectl, diagnostics, installed};
use crate::wait;

/// A queue is served, and a pod runs, within this: volumes are made and attached, probes pass.
const READY: Duration = Duration::from_mins(2);

/// A namespace that goes with its test; of a failed test it tells what happened.
pub struct Namespace {
    kubectl: Kubectl,
}

impl Namespace {
    /// Makes one, under the strictest Pod Security, with the chart installed.
    #[track_caller]
    pub fn new(test: &str) -> Self {
        installed();
        // Process id and time: two runs on one cluster do not meet, even where the first was killed.
        let name = format!("e2e-{test}-{}", std::process::id());
        let kubectl = Kubectl::in_namespace(&name);
        let _ = kubectl.run(&["delete", "namespace", &name, "--ignore-not-found", "--timeout=50s"]);
        kubectl.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{\
             pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        kubectl.wait("serviceaccount/default", "create", READY);
        Self { kubectl }
    }

    /// Applies a Queue and waits until it is served.
    #[track_caller]
    pub fn queue(&self, manifest: &str) {
        self.apply(manifest);
        self.wait("queues.ackwell.dev --all", "condition=Ready", READY);
    }

    /// Waits until the pod's containers are ready.
    #[track_caller]
    pub fn pod_ready(&self, name: &str) {
        self.wait_object(&format!("pod/{name}"), "condition=Ready");
    }

    /// Waits for an object as long as anything may take here.
    #[track_caller]
    pub fn wait_object(&self, object: &str, condition: &str) {
        self.kubectl.wait(object, condition, READY);
    }

    /// The first pod that a label selects, once there is one that is ready and not about to go.
    #[track_caller]
    pub fn ready_pod(&self, selector: &str) -> Value {
        wait::until(&format!("a ready pod {selector}"), READY, || {
            let pods = self.list("pods", selector)?;
            let found = pods.iter().find(|pod| is_ready(pod)).cloned();
            found.ok_or_else(|| anyhow::anyhow!("{} pods, none ready", pods.len()))
        })
    }
}

/// Ready and not terminating.
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

impl Deref for Namespace {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            diagnostics::collect(&self.kubectl);
        }
        // It goes in the background. One that stays is only a nuisance: the next run has other names.
        let _ = self.kubectl.run(&["delete", "namespace", self.kubectl.namespace(), "--wait=false"]);
    }
}
