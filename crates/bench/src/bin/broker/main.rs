//! `cargo xtask bench broker`: a broker of its own process on loopback, and clients of it in this one.
//!
//! Clients and broker share the machine's CPUs, as an application, its sidecar and a broker on one small node do.

mod load;
mod producers;
mod stream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ackwell_bench::console::{self, note, say};
use ackwell_bench::figures::Figures;
use ackwell_bench::limit::Probe;
use ackwell_bench::process::{Observed, load_average};
use ackwell_bench::server::Server;
use anyhow::Context;
use clap::Parser;
use load::Load;

/// Measures a broker behind gRPC on loopback.
#[derive(Parser)]
struct Options {
    /// Measure each case for so many seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
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
struct Case {
    name: &'static str,
    /// How it is sent.
    sent: Sent,
    /// Messages of one call, or of one batch of a stream.
    batch: u32,
    /// Calls or batches that are not answered yet, at most.
    outstanding: u32,
    consumed: Consumed,
    by: Consumers,
    through: Through,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    Nothing,
    Sidecar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// By calls of Send.
    Calls,
    /// On one stream of Produce.
    Stream,
    /// By so many calls of Send a second, whether or not the ones before are answered.
    Steadily(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumed {
    /// While it is sent.
    Meanwhile,
    /// Afterwards, to see that it is all there.
    Later,
    /// Afterwards, when so many wait; that is what is measured.
    Waiting(u64),
}

/// Streams that ack what they get.
#[derive(Clone, Copy, Debug)]
struct Consumers {
    count: u32,
    /// Messages in the hands of each.
    window: u32,
    /// Messages of one ack, at most.
    acked: usize,
}

const BODY_BYTES: usize = 1024;
/// Connections are warm and the broker recycles its segments.
const WARM_UP: Duration = Duration::from_secs(3);
/// Of the time of a case, before and after it, for each kind of limit.
const LIMIT_SHARE: u32 = 4;

const UNARY: Case = Case {
    name: "",
    sent: Sent::Calls,
    batch: 1,
    outstanding: 1,
    consumed: Consumed::Later,
    by: Consumers { count: 1, window: 4000, acked: 1000 },
    through: Through::Nothing,
};
const BATCHES: Case = Case { batch: 100, consumed: Consumed::Meanwhile, ..UNARY };
const STREAM: Case = Case { sent: Sent::Stream, ..BATCHES };
/// What applications do that take one message after the other.
const SINGLE: Case = Case {
    outstanding: 16,
    consumed: Consumed::Meanwhile,
    by: Consumers { count: 16, window: 32, acked: 1 },
    ..UNARY
};
const SINGLE_WINDOW_1: Case = Case { by: Consumers { window: 1, ..SINGLE.by }, ..SINGLE };
const STEADY: Case = Case {
    sent: Sent::Steadily(500),
    consumed: Consumed::Meanwhile,
    by: Consumers { count: 1, ..SINGLE.by },
    ..UNARY
};
const DRAIN: Case = Case { outstanding: 16, consumed: Consumed::Waiting(500_000), ..STREAM };
const SIDECAR: Through = Through::Sidecar;
const CASES: &[Case] = &[
    Case { name: "send-1", ..UNARY },
    Case { name: "send-16", outstanding: 16, ..UNARY },
    Case { name: "send-64", outstanding: 64, ..UNARY },
    Case { name: "send-4x100-consume", outstanding: 4, ..BATCHES },
    Case { name: "send-8x100-consume", outstanding: 8, ..BATCHES },
    Case { name: "produce-4x100-consume", outstanding: 4, ..STREAM },
    Case { name: "produce-16x100-consume", outstanding: 16, ..STREAM },
    Case { name: "produce-40x100-consume", outstanding: 40, ..STREAM },
    Case { name: "single-16-consume-16", ..SINGLE },
    Case { name: "single-16-consume-16-window-1", ..SINGLE_WINDOW_1 },
    Case { name: "steady-500", ..STEADY },
    Case { name: "drain-500k", ..DRAIN },
    Case { name: "send-1-sidecar", through: SIDECAR, ..UNARY },
    Case { name: "send-16-sidecar", outstanding: 16, through: SIDECAR, ..UNARY },
    Case { name: "send-64-sidecar", outstanding: 64, through: SIDECAR, ..UNARY },
    Case { name: "produce-16x100-consume-sidecar", outstanding: 16, through: SIDECAR, ..STREAM },
    Case { name: "single-16-consume-16-sidecar", through: SIDECAR, ..SINGLE },
    Case { name: "single-16-consume-16-window-1-sidecar", through: SIDECAR, ..SINGLE_WINDOW_1 },
    Case { name: "steady-500-sidecar", through: SIDECAR, ..STEADY },
    Case { name: "drain-500k-sidecar", through: SIDECAR, ..DRAIN },
];

const COLUMNS: &[(&str, &str)] = &[
    ("messages/s", "messages_per_second"),
    ("of direct", "ratio_direct"),
    ("confirmed: p50 us", "p50_us"),
    ("p99 us", "p99_us"),
    ("p99.9 us", "p999_us"),
    ("delivered: p50 us", "delivery_p50_us"),
    ("p99 us", "delivery_p99_us"),
    ("p99.9 us", "delivery_p999_us"),
    ("broker CPU us", "broker_cpu_us"),
    ("client CPU us", "client_cpu_us"),
    ("sidecar CPU us", "sidecar_cpu_us"),
    ("sidecar RSS MiB", "sidecar_rss_mib"),
    ("of append", "ratio_append"),
    ("of recycled", "ratio_recycled"),
    ("RSS MiB", "rss_mib"),
    ("written per byte", "write_amplification"),
];

fn main() -> ExitCode {
    console::end(run(&Options::parse()))
}

fn case(name: &str) -> Result<&'static Case, String> {
    console::case(CASES, |case| case.name, name)
}

fn run(options: &Options) -> anyhow::Result<()> {
    let cases = if options.cases.is_empty() { CASES.iter().collect() } else { options.cases.clone() };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    say(Figures::head(COLUMNS));
    let mut measured: Vec<Figures> = Vec::new();
    for case in cases {
        note(format!("{}, load average {}", case.name, load_average()));
        let figures =
            runtime.block_on(measure(options, case)).with_context(|| format!("measure {}", case.name))?;
        let figures = beside_direct(figures, &measured);
        say(figures.row(COLUMNS));
        measured.push(figures);
    }
    measured.iter().for_each(say);
    Ok(())
}

/// With what share of the rate is left that the same case had without a sidecar, if that was measured before.
fn beside_direct(figures: Figures, measured: &[Figures]) -> Figures {
    let is_direct = |other: &&Figures| figures.name.strip_suffix("-sidecar") == Some(&other.name);
    let rate = |figures: &Figures| figures.value("messages_per_second");
    match (rate(&figures), measured.iter().find(is_direct).and_then(rate)) {
        (Some(through), Some(direct)) => figures.with("ratio_direct", through / direct),
        _ => figures,
    }
}

async fn measure(options: &Options, case: &Case) -> anyhow::Result<Figures> {
    let time = Duration::from_secs(options.seconds);
    let folder = tempfile::tempdir_in(&options.data).context("make a folder for the broker")?;
    let mut probe = Probe::new(folder.path(), case.batch as usize * BODY_BYTES)?;
    probe.measure(time / LIMIT_SHARE)?;
    let mut broker = Server::broker(&options.ackwelld, folder.path()).await?;
    let mut sidecar = match case.through {
        Through::Nothing => None,
        Through::Sidecar => Some(Server::sidecar(&options.ackwelld, folder.path(), &broker).await?),
    };
    let mut load = Load::start(sidecar.as_ref().unwrap_or(&broker), case).await?;
    load.warm_up(WARM_UP).await?;
    let (server, client) = (broker.observed(), Observed::own());
    let between = sidecar.as_ref().map(Server::observed);
    let used = || -> anyhow::Result<_> {
        let between = between.as_ref().map_or(Ok(0.0), Observed::cpu_seconds)?;
        Ok([server.disk_bytes()?, server.cpu_seconds()?, client.cpu_seconds()?, between])
    };
    let start = used()?;
    let shown = load.measure(time).await?;
    let end = used()?;
    let rss_mib = server.rss_mib()?;
    let sidecar_rss = between.as_ref().map(Observed::rss_mib).transpose()?;
    load.end().await?;
    if let Some(sidecar) = &mut sidecar {
        sidecar.stop().await?;
    }
    broker.stop().await?;
    probe.measure(time / LIMIT_SHARE)?;
    let limit = probe.limit();
    let messages = shown.messages_f64().max(1.0);
    let [written, server_cpu, client_cpu, sidecar_cpu] =
        std::array::from_fn(|index| (end[index] - start[index]) / messages);
    let records = shown.per_second() / f64::from(case.batch);
    let figures = shown
        .figures(case.name)
        .with("ratio_append", records / limit.append)
        .with("ratio_recycled", records / limit.recycled)
        .with("rss_mib", rss_mib)
        .with("write_amplification", written / f64::from(u32::try_from(BODY_BYTES)?))
        .with("broker_cpu_us", server_cpu * 1e6)
        .with("client_cpu_us", client_cpu * 1e6);
    Ok(match sidecar_rss {
        Some(rss) => figures.with("sidecar_cpu_us", sidecar_cpu * 1e6).with("sidecar_rss_mib", rss),
        None => figures,
    })
}
