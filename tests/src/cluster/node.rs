//! Violence against the node: one process of a pod, or all of them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;
use serde_json::Value;

use super::Kubectl;
use super::kubectl::run_limited;

/// What runs the cluster of the tests.
const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster");
/// In which Linux counts processor time, on every machine.
const TICK: Duration = Duration::from_millis(10);
/// A node starts within seconds.
const START: Duration = Duration::from_mins(2);

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

/// Sends a signal to the process of a pod whose command line contains `command`; the pod must run on this machine.
pub fn signal_process(pod: &Value, command: &str, signal: Signal) -> anyhow::Result<()> {
    rustix::process::kill_process(local(pod, command)?, signal).context("send the signal")
}

fn local(pod: &Value, command: &str) -> anyhow::Result<Pid> {
    let uid = pod["metadata"]["uid"].as_str().context("a pod has an uid")?;
    find(uid, command)?.with_context(|| format!("no {command} of pod {uid} on this machine"))
}

/// What a process takes.
pub struct Usage {
    /// Since it started, of one core.
    pub processor: Duration,
    /// Now, in bytes.
    pub memory: u64,
}

/// What the process of a pod takes whose command line contains `command`; the pod must run on this machine.
pub fn usage(pod: &Value, command: &str) -> anyhow::Result<Usage> {
    let folder = Path::new("/proc").join(local(pod, command)?.as_raw_nonzero().to_string());
    let read = |file| std::fs::read_to_string(folder.join(file)).context("it has ended");
    let (stat, status) = (read("stat")?, read("status")?);
    // The fields from the third on: the second is a name, which can be anything.
    let (_, fields) = stat.rsplit_once(") ").context("Linux says it")?;
    let ticks = fields.split(' ').skip(14 - 3).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib: u64 = memory.context("Linux says it")?.parse()?;
    Ok(Usage { processor: TICK * ticks, memory: kib << 10 })
}

/// Ends the kubelet and everything that runs on the node at once, starts the kubelet again, and waits until the node is
/// ready. Only for the cluster of the tests, which `CLUSTER_DIR` names.
#[track_caller]
pub fn crash_node() {
    let mut cluster = Command::new(CLUSTER);
    cluster.arg("crash-node");
    run_limited(cluster, "", START).unwrap_or_else(|error| panic!("{error:#}"));
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
