//! A process that ends with its test.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Any of our processes is up, and gone after being told to stop, well within this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is added to `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Self {
        let open = || -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(log) };
        let stdout = open().expect("a test can write into its own folder");
        let stderr = open().expect("a test can write into its own folder");
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        Self { child: child.expect("the binary exists"), log: log.to_owned() }
    }

    /// Waits until it says on its HTTP port that it is ready.
    #[track_caller]
    pub(super) fn wait_ready(&mut self, http: SocketAddr) {
        wait::until("a process to be ready", LIMIT, || {
            if let Some(status) = self.child.try_wait().context("look at the process")? {
                panic!("it ended with {status}:\n{}", self.output());
            }
            let answer = get(http, "/readyz")?;
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { bail!("{answer}") }
        });
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    /// The same, whether or not it runs.
    pub(super) fn end(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is our child");
    }

    /// Stops it in its tracks, until it is resumed.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it is our child");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it is our child");
    }

    /// The memory it has in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("Linux says it in KiB");
        kib << 10
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        self.wait_ended()
    }

    #[track_caller]
    pub(super) fn wait_ended(&mut self) -> ExitStatus {
        wait::until("a process to end", LIMIT, || self.child.try_wait()?.context("it still runs"))
    }

    #[expect(clippy::print_stdout, reason = "test runners show what a failed test printed")]
    fn show_output(&self) {
        println!("--- {}\n{}", self.log.display(), self.output());
    }

    /// The file with what it prints, and with what earlier ones have printed.
    pub fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.show_output();
        }
    }
}

/// One GET over plain HTTP/1.1; the whole answer, head included.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(LIMIT)).context("limit the wait for an answer")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    Ok(answer)
}
