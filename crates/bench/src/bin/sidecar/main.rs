//! `cargo xtask bench sidecar`: what a sidecar takes while nothing happens, and what it adds to a call.

mod calls;
mod idle;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ackwell_bench::console::{self, note, say};
use ackwell_bench::figures::Figures;
use ackwell_bench::process::load_average;
use ackwell_bench::server::Server;
use anyhow::Context;
use calls::Call;
use clap::Parser;
use idle::Whose;

/// Measures what a sidecar costs.
#[derive(Parser)]
struct Options {
    /// Measure each case for so many seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Measure this case; may be given more than once. Absent: all.
    #[arg(long = "case", value_name = "NAME", value_parser = case)]
    cases: Vec<&'static Case>,
    /// An existing folder on the disk that the broker shall use.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The program `ackwelld`.
    #[arg(long, value_name = "FILE")]
    ackwelld: PathBuf,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// So many Consume streams are open, and nothing comes.
    Idle { name: &'static str, whose: Whose, streams: usize },
    /// One call after the other, in turns without and with the sidecar between.
    Call { name: &'static str, call: Call },
}

const CASES: &[Case] = &[
    Case::Idle { name: "idle", whose: Whose::Sidecar, streams: 0 },
    Case::Idle { name: "idle-1-stream", whose: Whose::Sidecar, streams: 1 },
    Case::Idle { name: "idle-250-streams", whose: Whose::Sidecar, streams: 250 },
    Case::Idle { name: "broker-idle-2000-streams", whose: Whose::Broker, streams: 2000 },
    Case::Call { name: "stats", call: Call::Stats },
    Case::Call { name: "send-1KiB", call: Call::Send },
];

const COLUMNS: &[(&str, &str)] = &[
    ("RSS MiB", "rss_mib"),
    ("of it its own", "own_mib"),
    ("millicores", "millicores"),
    ("KiB a stream", "kib_per_stream"),
    ("direct: p50 us", "direct_p50_us"),
    ("p99 us", "direct_p99_us"),
    ("through: p50 us", "through_p50_us"),
    ("p99 us", "through_p99_us"),
    ("added at p50 us", "added_p50_us"),
    ("p50 of direct", "ratio_p50"),
    ("sidecar CPU us a call", "sidecar_cpu_us"),
];

fn main() -> ExitCode {
    console::end(run(&Options::parse()))
}

fn case(name: &str) -> Result<&'static Case, String> {
    console::case(CASES, |case| case.name(), name)
}

impl Case {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle { name, .. } | Self::Call { name, .. } => name,
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let cases = if options.cases.is_empty() { CASES.iter().collect() } else { options.cases.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    say(Figures::head(COLUMNS));
    let mut measured = Vec::new();
    for case in cases {
        note(format!("{}, load average {}", case.name(), load_average()));
        let figures = runtime.block_on(measure(options, case));
        let figures = figures.with_context(|| format!("measure {}", case.name()))?;
        say(figures.row(COLUMNS));
        measured.push(figures);
    }
    measured.iter().for_each(say);
    Ok(())
}

async fn measure(options: &Options, case: &Case) -> anyhow::Result<Figures> {
    let time = Duration::from_secs(options.seconds);
    let folder = tempfile::tempdir_in(&options.data).context("make a folder for the broker")?;
    let mut broker = Server::broker(&options.ackwelld, folder.path()).await?;
    let mut sidecar = Server::sidecar(&options.ackwelld, folder.path(), &broker).await?;
    let figures = Figures::new(case.name());
    let figures = match case {
        Case::Idle { whose, streams, .. } => {
            let server = if *whose == Whose::Sidecar { &sidecar } else { &broker };
            idle::measure(figures, server, *streams, time).await?
        }
        Case::Call { call, .. } => calls::measure(figures, &broker, &sidecar, *call, time).await?,
    };
    sidecar.stop().await?;
    broker.stop().await?;
    Ok(figures)
}
