//! The logs of pods that come and go.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::Kubectl;
use crate::wait;

/// Follows one container of all pods that a label selects: those there are, and those that come.
pub struct Followed {
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<Vec<Child>>>,
    folder: TempDir,
}

impl Followed {
    /// Begins.
    pub fn start(kubectl: &Kubectl, selector: &str, container: &str) -> Self {
        let folder = tempfile::tempdir().expect("a machine has a temporary folder");
        let stop = Arc::new(AtomicBool::new(false));
        let follow = Follow {
            kubectl: kubectl.clone(),
            selector: selector.to_owned(),
            container: container.to_owned(),
            folder: folder.path().to_owned(),
            followed: HashSet::new(),
        };
        let follower = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || follow.run(&stop)
        });
        Self { stop, follower: Some(follower), folder }
    }

    /// All whole lines of JSON objects so far; other lines are left out.
    pub fn lines(&self) -> Vec<Value> {
        let files = std::fs::read_dir(self.folder.path()).expect("the folder is ours");
        let texts =
            files.map(|file| std::fs::read(file.expect("the folder is ours").path()).unwrap_or_default());
        let whole = |text: Vec<u8>| {
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            String::from_utf8_lossy(&text[..end]).into_owned()
        };
        texts.map(whole).flat_map(|text| text.lines().filter_map(parse).collect::<Vec<_>>()).collect()
    }

    /// The lines that have this field.
    pub fn lines_with(&self, field: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| !line[field].is_null()).collect()
    }
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().filter(Value::is_object)
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for mut child in self.follower.take().and_then(|follower| follower.join().ok()).unwrap_or_default() {
            // Those of pods that are gone have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Follow {
    kubectl: Kubectl,
    selector: String,
    container: String,
    folder: PathBuf,
    /// By container id: a container that restarts has a new one, and a new log.
    followed: HashSet<String>,
}

impl Follow {
    fn run(mut self, stop: &AtomicBool) -> Vec<Child> {
        let mut children = Vec::new();
        wait::repeat(|| {
            // A cluster that does not answer now is asked again.
            for pod in self.kubectl.list("pods", &self.selector).unwrap_or_default() {
                children.extend(self.follow(&pod));
            }
            stop.load(Ordering::SeqCst)
        });
        children
    }

    /// Starts to follow a container that has started and is not followed yet.
    fn follow(&mut self, pod: &Value) -> Option<Child> {
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        let status = statuses.iter().find(|status| status["name"] == self.container.as_str())?;
        let id =
            status["containerID"].as_str().filter(|id| !id.is_empty() && !self.followed.contains(*id))?;
        let name = pod["metadata"]["name"].as_str()?;
        let file = self.folder.join(id.replace(['/', ':'], "-"));
        let log = File::create(file).ok()?;
        let args = ["logs", "--follow", name, "--container", &self.container];
        let child = self.kubectl.command(&args).stdout(log).stderr(Stdio::null()).spawn().ok()?;
        self.followed.insert(id.to_owned());
        Some(child)
    }
}
