//! How long an engine takes to open after its process was killed, and whether it has what it should.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use ackwell_bench::clock::Stopwatch;
use ackwell_bench::console::say;
use ackwell_bench::figures::Figures;
use ackwell_bench::process::Observed;
use anyhow::{Context, ensure};

use crate::cases::Case;
use crate::load::{Load, Round};
use crate::{Role, ourselves};

/// Between two reports.
const ROUNDS: u64 = 10;
/// Reports after which the process is killed: past some checkpoints, and amid whatever comes next.
const REPORTS: usize = 200;

/// What the process had been told is durable when it said so.
struct Report {
    sent: u64,
    acked: u64,
}

pub(crate) fn measure(folder: &Path, case: &Case) -> anyhow::Result<Figures> {
    let folder = folder.join("store");
    let last = kill_one(&folder, case)?;
    let process = Observed::own();
    let since = Stopwatch::start();
    let mut load = Load::open(&folder, case)?;
    let took = since.elapsed();
    let rss_mib = process.rss_mib()?;
    let stored = load.stored();
    // Each record acks as many messages as it sends, but the first ones, which had nothing to ack.
    let held = case.held_messages();
    ensure!(stored == case.waiting + held, "{stored} messages are stored, not {} + {held}", case.waiting);
    load.take_over(&(last.acked..last.sent))?;
    Ok(Figures::new(case.name)
        .with("open_ms", took.as_secs_f64() * 1000.0)
        .with("rss_mib", rss_mib)
        .with("peak_mib", process.peak_mib()?))
}

/// The last that a process under load said before it was killed.
fn kill_one(folder: &Path, case: &Case) -> anyhow::Result<Report> {
    let mut child = ourselves(Role::Victim, case, folder)?.stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let mut lines = output.lines();
    let mut last = None;
    for line in lines.by_ref().take(REPORTS) {
        last = Report::parse(&line?).or(last);
    }
    child.kill()?;
    child.wait()?;
    for line in lines {
        // The last line may be half of one.
        last = Report::parse(&line?).or(last);
    }
    last.context("it was killed before it was under load")
}

/// Has the store under load, and says what is durable, until it is killed.
pub(crate) fn be_killed(folder: &Path, case: &Case) -> anyhow::Result<()> {
    let mut load = Load::open(folder, case)?;
    load.fill(case.waiting)?;
    loop {
        for _ in 0..ROUNDS {
            load.step(Round::Cycle(case.batch))?;
        }
        load.rest()?;
        // What clients hold is acked in their next round.
        let acked = load.ledger.received() - case.held_messages();
        say(format!("durable {} {acked} .", load.ledger.sent()));
    }
}

impl Report {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["durable", sent, acked, "."] = words.as_slice() else { return None };
        Some(Self { sent: sent.parse().ok()?, acked: acked.parse().ok()? })
    }
}
