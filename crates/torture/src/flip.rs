//! One bit of a stopped store's files is turned over, and the store opened and drained.
//!
//! Whatever is flipped, nothing may be silent: a message is there to the last byte, or it is named as corrupt, or opening
//! names what is damaged. Each flip is made in a fresh copy of one of two stores, one that was closed and one whose process was
//! killed, in a child process: a flip may end it.
//!
//! Sectors of zeros are left out: most are free room, where a flip does nothing.

mod files;
mod original;
mod outcome;
mod trial;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::clock::Stopwatch;
use crate::console::say;
use original::Original;
use outcome::Outcome;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Flip so many bits, each in a copy of its own.
    #[arg(long, default_value_t = 10_000)]
    flips: u64,
    /// Of the first flip; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
pub(crate) struct Stretch {
    /// The first flip.
    #[arg(long)]
    from: u64,
    /// Behind the last one.
    #[arg(long)]
    to: u64,
    /// Tell how far it is.
    #[arg(long)]
    loud: bool,
}

/// Flips of one child process: what it leaks is given back.
const STRETCH: u64 = 500;
/// Flips that are told of each outcome that must not be.
const MOST_TOLD: u64 = 20;

/// What came of flips in one kind of file.
type Table = BTreeMap<(&'static str, Outcome), u64>;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let since = Stopwatch::start();
    let (mut table, mut told) = (Table::new(), BTreeMap::new());
    let (mut next, end) = (options.seed, options.seed.saturating_add(options.flips));
    while next < end {
        next = stretch(next, end.min(next + STRETCH), &mut |seed, kind, outcome, detail| {
            *table.entry((kind, outcome)).or_default() += 1;
            let told: &mut u64 = told.entry(outcome).or_default();
            if !outcome.is_allowed() && *told < MOST_TOLD {
                *told += 1;
                say(format_args!("seed {seed}, {kind}: {outcome}: {detail}"));
            }
        })?;
    }
    show(&table);
    say(format_args!("{} flips in {:.0} s", options.flips, since.elapsed().as_secs_f64()));
    let wrong: u64 =
        table.iter().filter(|((_, outcome), _)| !outcome.is_allowed()).map(|(_, count)| count).sum();
    ensure!(
        wrong == 0,
        "{wrong} flips had an outcome that must not be; one again: torture flip --flips 1 --seed SEED"
    );
    Ok(())
}

fn show(table: &Table) {
    for outcome in Outcome::ALL {
        let of = |kind| table.get(&(kind, outcome)).copied().unwrap_or_default();
        let [log, state] = [original::LOG, original::STATE].map(of);
        if log + state > 0 {
            say(format_args!("{log:>8} {state:>8}  {outcome}"));
        }
    }
}

/// Makes these flips in a process of their own; tells where to go on, which is earlier if one of them ended it.
fn stretch(
    from: u64,
    to: u64,
    note: &mut dyn FnMut(u64, &'static str, Outcome, &str),
) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(program)
        .args(["flip-some", "--from", &from.to_string(), "--to", &to.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start a process for some flips")?;
    let mut next = from;
    for line in BufReader::new(child.stdout.take().context("its output is a pipe")?).lines() {
        let line = line?;
        let mut words = line.splitn(4, '\t');
        let mut word = || words.next().context("a line of four words");
        let (seed, kind, outcome, detail) = (word()?.parse()?, word()?, word()?, word()?);
        note(seed, original::kind(kind)?, Outcome::parse(outcome)?, detail);
        next = seed + 1;
    }
    let status = child.wait()?;
    if next < to {
        ensure!(!status.success(), "a process made {} flips instead of {}", next - from, to - from);
        note(next, Original::flip(next).kind, Outcome::Aborted, &status.to_string());
        next += 1;
    }
    Ok(next)
}

/// The child.
pub(crate) fn run_stretch(stretch: &Stretch) -> anyhow::Result<()> {
    if !stretch.loud {
        // A panic is an outcome, told as one.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let originals = [
        Original::closed(false)?,
        Original::killed(false)?,
        Original::closed(true)?,
        Original::killed(true)?,
    ];
    for seed in stretch.from..stretch.to {
        let flip = Original::flip(seed);
        let original = &originals[flip.original];
        let (outcome, detail) = trial::run(original, &flip);
        let detail: String =
            detail.chars().take(500).map(|char| if char.is_control() { ' ' } else { char }).collect();
        say(format_args!("{seed}\t{}\t{}\t{detail}", flip.kind, outcome.word()));
    }
    Ok(())
}
