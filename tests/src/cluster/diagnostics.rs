//! What a person wants to see of a failed test: objects, events, logs.

use std::path::PathBuf;

use super::Kubectl;
use super::setting;

/// Writes the namespace's state to `ACKWELL_DIAGNOSTICS/NAMESPACE` and says so. Never fails: it explains another failure.
#[expect(clippy::print_stdout, reason = "test runners show what a failed test printed")]
pub(super) fn collect(kubectl: &Kubectl) {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/e2e");
    let folder = PathBuf::from(setting("ACKWELL_DIAGNOSTICS", default)).join(kubectl.namespace());
    if let Err(error) = std::fs::create_dir_all(&folder) {
        println!("no diagnostics: {error}");
        return;
    }
    let save = |file: &str, args: &[&str]| {
        let text = kubectl.run(args).unwrap_or_else(|error| format!("{error:#}"));
        // A full disk loses diagnostics, not the failure itself.
        let _ = std::fs::write(folder.join(file), &text);
        text
    };
    let overview = save(
        "overview",
        &["get", "queues.ackwell.dev,statefulsets,pods,persistentvolumeclaims", "--output=wide"],
    );
    let events = save("events", &["get", "events", "--sort-by=.lastTimestamp"]);
    save("describe", &["describe", "queues.ackwell.dev,pods"]);
    save(
        "objects.yaml",
        &["get", "queues.ackwell.dev,statefulsets,pods,jobs,persistentvolumeclaims", "--output=yaml"],
    );
    for pod in kubectl.list("pods", "").unwrap_or_default() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        save(&format!("{name}.log"), &["logs", name, "--all-containers", "--prefix", "--tail=500"]);
        save(
            &format!("{name}.previous.log"),
            &["logs", name, "--all-containers", "--prefix", "--previous", "--tail=100"],
        );
    }
    let last: Vec<&str> = events.lines().rev().take(15).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    println!(
        "--- namespace {}\n{overview}\n{}\nmore in {}",
        kubectl.namespace(),
        last.join("\n"),
        folder.display()
    );
}
