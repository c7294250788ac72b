//! Full cycles: every message is sent, received and acked, and each of that is durable.

use std::path::Path;
use std::time::Duration;

use ackwell_bench::clock::Stopwatch;
use ackwell_bench::figures::{Figures, rate};
use ackwell_bench::latencies::Latencies;
use ackwell_bench::limit::{Limit, Probe};
use ackwell_bench::process::Observed;

use crate::cases::Case;
use crate::load::{Load, Round};

/// Until the engine remembers as many settled deliveries as it ever will, and segments are recycled.
const WARM_UP: Duration = Duration::from_secs(4);
/// Enough for the mean, too few for a checkpoint.
const WEIGHED_ROUNDS: u32 = 20;
/// The store and the disk alone take turns, so that both see the same machine.
const SLICE: Duration = Duration::from_millis(500);
/// Of a slice, for each kind of limit.
const LIMIT_SHARE: u32 = 4;

pub(crate) fn measure(folder: &Path, case: &Case, time: Duration) -> anyhow::Result<Figures> {
    let round = Round::Cycle(case.batch);
    let mut probe = Probe::new(folder, record_bytes(folder, case, round)?)?;
    let mut load = Load::open(&folder.join("store"), case)?;
    load.fill(case.waiting)?;
    load.run_for(WARM_UP, round)?;
    let mut measured = Measured::default();
    measured.run(&mut load, &mut probe, round, |_, took| took >= time)?;
    load.check_counts(case.waiting + case.held_messages())?;
    load.drain()?;
    Ok(measured.figures(case, probe.limit()))
}

/// Length of the log's record of a round, as told by what the process passes to the system.
pub(crate) fn record_bytes(folder: &Path, case: &Case, round: Round) -> anyhow::Result<usize> {
    let folder = folder.join("weighed");
    let mut load = Load::open(&folder, case)?;
    load.step(round)?;
    load.rest()?;
    let before = Observed::own().written_bytes()?;
    for _ in 0..WEIGHED_ROUNDS {
        load.step(round)?;
    }
    load.rest()?;
    let written = Observed::own().written_bytes()? - before;
    drop(load);
    std::fs::remove_dir_all(folder)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a record has megabytes at most"
    )]
    Ok((written / f64::from(WEIGHED_ROUNDS)) as usize)
}

/// What a stretch of load has shown.
#[derive(Default)]
pub(crate) struct Measured {
    took: Duration,
    latencies: Latencies,
    messages: u64,
    payload_bytes: u64,
    disk_bytes: f64,
    rss_mib: f64,
    peak_mib: f64,
}

impl Measured {
    /// Rounds until that is so, and the disk alone in between.
    pub(crate) fn run(
        &mut self,
        load: &mut Load,
        probe: &mut Probe,
        round: Round,
        is_done: impl Fn(&Load, Duration) -> bool,
    ) -> anyhow::Result<()> {
        let process = Observed::own();
        while !is_done(load, self.took) {
            probe.measure(SLICE / LIMIT_SHARE)?;
            let disk_bytes = process.disk_bytes()?;
            let took = self.took;
            self.run_slice(load, round, |load| is_done(load, took))?;
            self.disk_bytes += process.disk_bytes()? - disk_bytes;
        }
        self.rss_mib = process.rss_mib()?;
        self.peak_mib = process.peak_mib()?;
        Ok(())
    }

    fn run_slice(
        &mut self,
        load: &mut Load,
        round: Round,
        is_done: impl Fn(&Load) -> bool,
    ) -> anyhow::Result<()> {
        let (sent, received) = (load.ledger.sent(), load.ledger.received());
        let since = Stopwatch::start();
        while since.elapsed() < SLICE && !is_done(load) {
            self.latencies.record(load.step(round)?);
        }
        load.rest()?;
        self.took += since.elapsed();
        let messages = (load.ledger.sent() - sent).max(load.ledger.received() - received);
        self.messages += messages;
        self.payload_bytes += messages * load.body_bytes();
        Ok(())
    }

    /// Beside what the disk could do with records of this case.
    pub(crate) fn figures(&self, case: &Case, limit: Limit) -> Figures {
        let per_record = f64::from(case.batch) * f64::from(case.merged);
        let records = rate(self.messages, self.took) / per_record;
        Figures::new(case.name)
            .with_rate(self.messages, self.took)
            .with_latencies("", &self.latencies)
            .with("ratio_append", records / limit.append)
            .with("ratio_recycled", records / limit.recycled)
            .with("rss_mib", self.rss_mib)
            .with("write_amplification", self.written_per_byte())
            .with("peak_mib", self.peak_mib)
            .with("append_limit", limit.append * per_record)
            .with("recycled_limit", limit.recycled * per_record)
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of gigabytes")]
    fn written_per_byte(&self) -> f64 {
        self.disk_bytes / self.payload_bytes.max(1) as f64
    }
}
