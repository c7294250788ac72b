//! `ackwell`: commands that end, and `ackwell dev`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use crate::wait;

/// `ackwell dev` says that it serves within this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// One call of `ackwell`, ended.
pub struct CommandLine {
    output: Output,
    shown: String,
}

/// `ackwell dev`, serving.
pub struct Dev {
    process: Process,
    address: String,
    _log: TempDir,
}

impl CommandLine {
    /// Runs it against `address`, with `input` on its standard input.
    pub fn run(address: &str, args: &[&str], input: &[u8]) -> Self {
        Self::run_as(address, args, input, "")
    }

    /// The same, showing a token, unless it is empty.
    pub fn run_as(address: &str, args: &[&str], input: &[u8], token: &str) -> Self {
        let mut command = Command::new(super::binary("ackwell"));
        command.args(args).env("ACKWELL_ADDRESS", address).env_remove("ACKWELL_TOKEN");
        if !token.is_empty() {
            command.env("ACKWELL_TOKEN", token);
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("the binary exists");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = input.to_owned();
        // A command that reads nothing closes the pipe: that is no error of ours.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("it is our child");
        writer.join().expect("writing does not panic");
        Self { output, shown: args.join(" ") }
    }

    /// Asserts how it ended.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "ackwell {}\n{}{}",
            self.shown,
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// What it printed: data.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// The same, byte by byte.
    pub fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// What it said besides.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Its lines of JSON.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout().lines().map(parse).collect()
    }
}

impl Dev {
    /// Serves `manifests` from `data`, on a port that the system chooses.
    #[track_caller]
    pub fn start(manifests: &[&Path], data: &Path) -> Self {
        let log = tempfile::tempdir().expect("a machine has a temporary folder");
        let mut command = Command::new(super::binary("ackwell"));
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--output", "json", "--data"])
            .arg(data)
            .args(manifests);
        let process = Process::start(&mut command, &log.path().join("log"));
        let address = wait::until("ackwell dev to serve", LIMIT, || announced(&process.output()));
        Self { process, address, _log: log }
    }

    /// Where it serves.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same as an address.
    pub fn socket(&self) -> SocketAddr {
        self.address.parse().expect("it announces an address")
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Its process, to be ended.
    pub fn into_process(self) -> Process {
        self.process
    }
}

/// The address in the one line that says that it serves.
fn announced(output: &str) -> anyhow::Result<String> {
    let line = output.lines().find(|line| line.starts_with('{')).with_context(|| output.to_owned())?;
    let line: Value = serde_json::from_str(line).context("read the line")?;
    Ok(line["address"].as_str().context("it has an address")?.to_owned())
}
