//! SIGKILL for one process of a pod.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::Kubectl;

/// Kills the process of a pod whose command line contains `command`, as the kernel's out-of-memory killer would. Where
/// the pod runs on another machine, its pod is deleted without any grace, which is the nearest thing.
pub fn kill_process(kubectl: &Kubectl, pod: &Value, command: &str) -> anyhow::Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
    let uid = pod["metadata"]["uid"].as_str().context("a pod has an uid")?;
    match find(uid, command)? {
        Some(process) => rustix::process::kill_process(process, Signal::KILL).context("kill the process"),
        None => kubectl.run(&["delete", "pod", name, "--grace-period=0", "--force"]).map(drop),
    }
}

/// The process of this machine that is in the pod's control group.
fn find(pod_uid: &str, command: &str) -> anyhow::Result<Option<Pid>> {
    // Some drivers write the uid with underscores.
    let groups = [format!("pod{pod_uid}"), format!("pod{}", pod_uid.replace('-', "_"))];
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let folder = entry.context("list processes")?.path();
        if is_in(&folder, &groups) && command_line(&folder).contains(command) {
            found.extend(
                folder.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw),
            );
        }
    }
    match found[..] {
        [] => Ok(None),
        [process] => Ok(Some(process)),
        _ => bail!("{} processes of pod {pod_uid} match {command:?}", found.len()),
    }
}

/// What cannot be read has ended.
fn is_in(folder: &Path, groups: &[String]) -> bool {
    let text = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    groups.iter().any(|group| text.contains(group))
}

fn command_line(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
