//! A backlog that grows, then one that shrinks.

use std::path::Path;
use std::time::Duration;

use ackwell_bench::figures::Figures;
use ackwell_bench::latencies::Latencies;
use ackwell_bench::limit::Limit;

use crate::cases::Case;
use crate::cycle::{Measured, record_bytes};
use crate::load::{Load, Round};

/// Of the time of a case, on each side of it, for each kind of limit.
const LIMIT_SHARE: u32 = 4;

/// Both halves beside the same limit: that of a record of sends.
pub(crate) fn measure(folder: &Path, case: &Case, time: Duration) -> anyhow::Result<Vec<Figures>> {
    let send = Round::Send(case.batch);
    let record_bytes = record_bytes(folder, case, send)?;
    let limit = || Limit::measure(folder, record_bytes, time / LIMIT_SHARE);
    let before = limit()?;
    let mut load = Load::open(&folder.join("store"), case)?;
    let ingest =
        Measured::run(&mut load, |load| until(load, send, |load| load.ledger.sent() >= case.waiting))?;
    load.check_counts(load.ledger.sent())?;
    let receive = Round::Drain(case.batch);
    let drain = Measured::run(&mut load, |load| {
        until(load, receive, |load| load.ledger.received() == load.ledger.sent())
    })?;
    load.drain()?;
    drop(load);
    let limit = before.between(limit()?);
    let named = |word: &str, measured: Measured| {
        let mut figures = measured.figures(case, limit);
        figures.name = format!("{word}-{}", case.name);
        figures
    };
    Ok(vec![named("ingest", ingest), named("drain", drain)])
}

fn until(load: &mut Load, round: Round, is_done: impl Fn(&Load) -> bool) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    while !is_done(load) {
        latencies.record(load.step(round)?);
    }
    load.rest()?;
    Ok(latencies)
}
