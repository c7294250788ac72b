//! `cargo xtask bench store`: the engine on its store, on a real disk, beside what the disk can do.
//!
//! Each case is a process of its own, so that its memory and what it writes are its own.

mod cases;
mod cycle;
mod ingest;
mod load;
mod restart;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ackwell_bench::console::{self, note, say};
use ackwell_bench::figures::Figures;
use ackwell_bench::process::load_average;
use anyhow::{Context, bail, ensure};
use cases::{CASES, Case, Kind};
use clap::Parser;

/// Measures the engine on its store, on a real disk, beside what the disk can do.
#[derive(Parser)]
struct Options {
    /// Measure each case for so many seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Measure this case; may be given more than once. Absent: all that take no gigabytes.
    #[arg(long = "case", value_name = "NAME", value_parser = case)]
    cases: Vec<&'static Case>,
    /// An existing folder on the disk to measure.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[arg(long, hide = true, value_enum)]
    role: Option<Role>,
}

/// What a process does that another one of us started.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Role {
    /// Measures one case.
    Case,
    /// Has its store under load until it is killed.
    Victim,
}

const COLUMNS: &[(&str, &str)] = &[
    ("messages/s", "messages_per_second"),
    ("p50 us", "p50_us"),
    ("p99 us", "p99_us"),
    ("p99.9 us", "p999_us"),
    ("max us", "max_us"),
    ("of append", "ratio_append"),
    ("of recycled", "ratio_recycled"),
    ("RSS MiB", "rss_mib"),
    ("written per byte", "write_amplification"),
    ("open ms", "open_ms"),
];

fn main() -> ExitCode {
    console::end(run(&Options::parse()))
}

fn case(name: &str) -> Result<&'static Case, String> {
    console::case(CASES, |case| case.name, name)
}

fn run(options: &Options) -> anyhow::Result<()> {
    match (options.role, options.cases.as_slice()) {
        (None, _) => all(options),
        (Some(Role::Case), [case]) => {
            one(options, case)?.iter().for_each(say);
            Ok(())
        }
        (Some(Role::Victim), [case]) => restart::be_killed(&options.data, case),
        (Some(_), _) => bail!("a process of its own has one case"),
    }
}

fn all(options: &Options) -> anyhow::Result<()> {
    let short = CASES.iter().filter(|case| !case.is_long);
    let cases: Vec<&Case> = if options.cases.is_empty() { short.collect() } else { options.cases.clone() };
    say(Figures::head(COLUMNS));
    let mut measured = Vec::new();
    for case in cases {
        note(format!("{}, load average {}", case.name, load_average()));
        for figures in apart(options, case).with_context(|| format!("measure {}", case.name))? {
            say(figures.row(COLUMNS));
            measured.push(figures);
        }
    }
    measured.iter().for_each(say);
    Ok(())
}

/// The case in a process of its own, with a folder of its own.
fn apart(options: &Options, case: &Case) -> anyhow::Result<Vec<Figures>> {
    let folder = tempfile::tempdir_in(&options.data).context("make a folder for the store")?;
    let mut child = ourselves(Role::Case, case, folder.path())?
        .args(["--seconds", &options.seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let lines: Vec<String> = output.lines().collect::<Result<_, _>>()?;
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}");
    lines.iter().filter_map(|line| Figures::parse(line)).collect()
}

fn ourselves(role: Role, case: &Case, folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find our own program")?);
    let role = match role {
        Role::Case => "case",
        Role::Victim => "victim",
    };
    command.args(["--role", role, "--case", case.name, "--data"]).arg(folder).stdin(Stdio::null());
    Ok(command)
}

fn one(options: &Options, case: &Case) -> anyhow::Result<Vec<Figures>> {
    let time = Duration::from_secs(options.seconds);
    match case.kind {
        Kind::Cycle => Ok(vec![cycle::measure(&options.data, case, time)?]),
        Kind::IngestAndDrain => Ok(ingest::measure(&options.data, case)?.into()),
        Kind::Restart => Ok(vec![restart::measure(&options.data, case)?]),
    }
}
