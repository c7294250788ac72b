//! One run of the tests: its lock, its children, its report.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread::JoinHandle;

use anyhow::{Context, bail};

use super::leftovers;
use super::report::{Report, Verdict};
use super::steps::{self, Children, Outcome};
use crate::child;
use crate::console::say;
use crate::workspace::Workspace;

/// One run.
pub(super) struct Session<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) children: Children,
    logs: PathBuf,
    report: Report,
    _lock: File,
}

/// A step that runs beside others.
pub(super) struct Background {
    name: &'static str,
    thread: JoinHandle<anyhow::Result<Outcome>>,
}

/// The run was told to stop, or a step failed that everything depends on.
#[derive(Debug)]
struct Stopped(&'static str);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Stopped {}

impl<'a> Session<'a> {
    /// Takes the checkout for itself and ends what a run that was killed has left.
    pub(super) fn begin(workspace: &'a Workspace) -> anyhow::Result<Self> {
        let folder = workspace.folder("xtask")?;
        let lock = lock(&folder.join("test.lock"))?;
        leftovers::end(workspace)?;
        let children = Children::watched(workspace)?;
        Ok(Self {
            workspace,
            children,
            logs: workspace.folder("xtask/logs")?,
            report: Report::default(),
            _lock: lock,
        })
    }

    /// Runs a step and says whether it succeeded; only an interrupt is an error.
    pub(super) fn step(&mut self, name: &'static str, command: Command) -> anyhow::Result<bool> {
        let outcome = steps::run(&self.children, name, command, &self.log(name));
        self.note(name, outcome)
    }

    /// Runs a step without which the others tell nothing.
    pub(super) fn required(&mut self, name: &'static str, command: Command) -> anyhow::Result<()> {
        if self.step(name, command)? {
            Ok(())
        } else {
            bail!(Stopped("a step failed that the others depend on"))
        }
    }

    /// Starts a step at low priority, so that it takes only the processors that the others leave.
    pub(super) fn background(&self, name: &'static str, command: &Command) -> Background {
        say(format_args!("== {name}, in the background: {}", child::shown(command)));
        let nice = nice(command);
        let (children, log) = (self.children.clone(), self.log(name));
        let thread = std::thread::spawn(move || steps::streamed(&children, nice, &log, "(background) "));
        Background { name, thread }
    }

    fn note(&mut self, name: &'static str, outcome: anyhow::Result<Outcome>) -> anyhow::Result<bool> {
        if self.children.interrupted() {
            self.report.add(name, Verdict::Failed("interrupted".to_owned()));
            bail!(Stopped("interrupted"));
        }
        let succeeded = outcome.as_ref().is_ok_and(|outcome| outcome.succeeded);
        let log = self.log(name);
        self.report.add_outcome(name, outcome, &log);
        Ok(succeeded)
    }

    /// Notes a step that could not start.
    pub(super) fn fail(&mut self, name: &'static str, error: &anyhow::Error) -> bool {
        say(format_args!("== {name}: FAILED, {error:#}"));
        self.report.add(name, Verdict::Failed(format!("{error:#}")));
        false
    }

    /// Notes a step that does not run here, with the number of its tests.
    pub(super) fn skip(&mut self, name: &'static str, tests: usize, reason: &str) {
        say(format_args!("== {name}: SKIPPED, {reason}"));
        self.report.add(name, Verdict::Skipped { tests, reason: reason.to_owned() });
    }

    /// Where a step's output goes, too.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Prints the report; `outcome` is an error when the run did not come to its end.
    pub(super) fn end(self, outcome: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        self.children.end();
        self.report.print();
        let stopped = match outcome {
            Ok(()) => false,
            Err(error) if error.is::<Stopped>() => {
                say(format_args!("stopped: {error}"));
                true
            }
            Err(error) => return Err(error),
        };
        Ok(if stopped || self.report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Background {
    /// Waits for it; the same answers as [`Session::step`].
    pub(super) fn end(self, session: &mut Session<'_>) -> anyhow::Result<bool> {
        say(format_args!("waiting for {}", self.name));
        let outcome = self.thread.join().expect("running a child does not panic");
        session.note(self.name, outcome)
    }
}

fn nice(command: &Command) -> Command {
    let mut nice = child::command("nice", ["-n", "19"]);
    nice.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    nice.current_dir(command.get_current_dir().unwrap_or(".".as_ref()));
    nice
}

fn lock(path: &std::path::Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another test run is active in this checkout; wait for it, or end it")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}
