//! Starts `ackwell` and looks at what it does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const MANIFEST: &str = "\
apiVersion: ackwell.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec:
  storage: {size: 1Gi}
  limits: {maxMessageBytes: 8k}
  delivery: {maxAttempts: 2, backoff: {policy: Constant, minSeconds: 1, maxSeconds: 1}}
";

/// Path of the program.
pub(crate) fn ackwell() -> &'static str {
    env!("CARGO_BIN_EXE_ackwell")
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Every line of stdout.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}")))
            .collect()
    }
}

/// Runs `ackwell` to its end.
pub(crate) fn run(arguments: &[impl AsRef<OsStr>], stdin: &str) -> Ended {
    let mut child = Command::new(ackwell())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read it.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `ackwell dev` with a queue `orders`, in a folder of its own, on a free port.
pub(crate) struct Dev {
    folder: TempDir,
    /// Kept over restarts; any free port at first.
    listen: String,
    running: Option<Running>,
}

/// `ackwell send` with an open stdin.
pub(crate) struct Sender {
    child: Child,
    results: BufReader<ChildStdout>,
}

impl Sender {
    pub(crate) fn write(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Returns when one more message is stored.
    pub(crate) fn wait_until_stored(&mut self) {
        let mut line = String::new();
        self.results.read_line(&mut line).unwrap();
        assert!(line.contains("\"id\""), "{line:?}");
    }

    /// Closes stdin; the exit code.
    pub(crate) fn end(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code().unwrap()
    }
}

struct Running {
    child: Child,
    address: String,
    suggested: String,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let mut dev = Self::prepare();
        dev.restart();
        dev
    }

    /// Folder and manifest, nothing running.
    pub(crate) fn prepare() -> Self {
        let dev =
            Self { folder: tempfile::tempdir().unwrap(), listen: "127.0.0.1:0".to_owned(), running: None };
        dev.write_manifest(MANIFEST);
        dev
    }

    pub(crate) fn write_manifest(&self, text: &str) {
        fs::write(self.folder().join("queue.yaml"), text).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        let mut child = Command::new(ackwell())
            .args(self.arguments(&self.listen))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = first_line(child.stdout.take().unwrap());
        let suggested = first_line(child.stderr.take().unwrap());
        let ready: Value =
            serde_json::from_str(&ready).unwrap_or_else(|_| panic!("{ready:?}, {suggested:?}"));
        assert_eq!(ready["queues"], serde_json::json!(["orders"]));
        let address = ready["address"].as_str().unwrap().to_owned();
        let suggested = suggested.trim().strip_prefix("try: ").unwrap().to_owned();
        self.listen.clone_from(&address);
        self.running = Some(Running { child, address, suggested });
    }

    pub(crate) fn arguments(&self, listen: &str) -> Vec<String> {
        let (manifest, data) = (self.folder().join("queue.yaml"), self.data());
        let [manifest, data] = [manifest, data].map(|path| path.to_str().unwrap().to_owned());
        let options = ["--output", "json", "--listen", listen, "--data"].map(str::to_owned);
        ["dev".to_owned(), manifest].into_iter().chain(options).chain([data]).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub(crate) fn address(&self) -> &str {
        &self.running.as_ref().unwrap().address
    }

    pub(crate) fn suggested(&self) -> &str {
        &self.running.as_ref().unwrap().suggested
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str], stdin: &str) -> Ended {
        run(&[arguments, &["--address", self.address()]].concat(), stdin)
    }

    pub(crate) fn sender(&self) -> Sender {
        let mut child = Command::new(ackwell())
            .args(["send", "orders", "--output", "json", "--address", self.address()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let results = BufReader::new(child.stdout.take().unwrap());
        Sender { child, results }
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut running = self.running.take().unwrap();
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        running.child.wait().unwrap().code().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.kill();
    }
}

fn first_line(stream: impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}
