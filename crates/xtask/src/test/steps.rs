//! Children of a test run: each in its own process group, shown and logged line by line, and ended with the run.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::excerpts::Excerpts;
use super::leftovers;
use crate::child;
use crate::console::{Stopwatch, say, seconds};
use crate::workspace::Workspace;

/// How a step went.
pub(super) struct Outcome {
    pub(super) succeeded: bool,
    pub(super) took: Duration,
    pub(super) excerpts: Excerpts,
}

/// The process groups that are running now.
#[derive(Clone)]
pub(super) struct Children {
    groups: Arc<Mutex<Vec<Pid>>>,
    interrupted: Arc<AtomicBool>,
    mark: (&'static str, String),
}

impl Children {
    /// From now on an interrupt ends the children first, so that the run can clean up; a second one ends us.
    pub(super) fn watched(workspace: &Workspace) -> anyhow::Result<Self> {
        let children =
            Self { groups: Arc::default(), interrupted: Arc::default(), mark: leftovers::mark(workspace) };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("watch for signals")?;
        let watched = children.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if watched.interrupted.swap(true, Ordering::SeqCst) {
                    signal_hook::low_level::emulate_default_handler(signal)
                        .expect("it is one of the usual signals");
                }
                watched.signal_all(Signal::TERM);
            }
        });
        Ok(children)
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Ends what still runs in the background.
    pub(super) fn end(&self) {
        self.signal_all(Signal::KILL);
    }

    fn spawn(&self, mut command: Command) -> anyhow::Result<(Child, Pid)> {
        let (name, value) = &self.mark;
        let child = command.process_group(0).env(name, value).spawn();
        let child = child.with_context(|| format!("start {}", child::shown(&command)))?;
        let group = Pid::from_child(&child);
        self.locked().push(group);
        // It may have come between the check of the caller and the push.
        if self.interrupted() {
            self.signal_all(Signal::TERM);
        }
        Ok((child, group))
    }

    /// Waits for the child; what it leaves behind in its group ends with it.
    fn wait(&self, child: &mut Child, group: Pid) -> anyhow::Result<ExitStatus> {
        let status = child.wait().context("wait for a child");
        // No such group: nothing was left behind.
        let _ = kill_process_group(group, Signal::KILL);
        self.locked().retain(|running| *running != group);
        status
    }

    fn signal_all(&self, signal: Signal) {
        for group in self.locked().iter() {
            // A group that has just ended needs no signal.
            let _ = kill_process_group(*group, signal);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Pid>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one step in the foreground.
pub(super) fn run(children: &Children, name: &str, command: Command, log: &Path) -> anyhow::Result<Outcome> {
    say(format_args!("== {name}: {}", child::shown(&command)));
    let outcome = streamed(children, command, log, "")?;
    let verdict = if outcome.succeeded { "ok" } else { "FAILED" };
    say(format_args!("== {name}: {verdict} after {}", seconds(outcome.took)));
    Ok(outcome)
}

/// Runs a command whose lines are shown after `prefix`.
pub(super) fn streamed(
    children: &Children,
    mut command: Command,
    log: &Path,
    prefix: &'static str,
) -> anyhow::Result<Outcome> {
    let watch = Stopwatch::start();
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdout(writer.try_clone().context("copy the pipe")?).stderr(writer);
    let (mut child, group) = children.spawn(command)?;
    let copier = std::thread::spawn(move || copy(reader, file, prefix));
    let status = children.wait(&mut child, group)?;
    let excerpts = copier.join().expect("copying lines does not panic").context("copy the output")?;
    Ok(Outcome { succeeded: status.success(), took: watch.elapsed(), excerpts })
}

/// Copies lines to the console and the log, and picks out what to repeat of them.
fn copy(reader: PipeReader, mut log: File, prefix: &str) -> std::io::Result<Excerpts> {
    let mut excerpts = Excerpts::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        say(format_args!("{prefix}{line}"));
        writeln!(log, "{line}")?;
        excerpts.see(&line);
    }
    Ok(excerpts)
}
