//! A backlog that grows, then one that shrinks.

use std::path::Path;

use ackwell_bench::figures::Figures;
use ackwell_bench::limit::Probe;

use crate::cases::Case;
use crate::cycle::{Measured, record_bytes};
use crate::load::{Load, Round};

/// Both halves beside the same limit: that of a record of sends.
pub(crate) fn measure(folder: &Path, case: &Case) -> anyhow::Result<[Figures; 2]> {
    let send = Round::Send(case.batch);
    let mut probe = Probe::new(folder, record_bytes(folder, case, send)?)?;
    let mut load = Load::open(&folder.join("store"), case)?;
    let (mut ingest, mut drain) = (Measured::default(), Measured::default());
    ingest.run(&mut load, &mut probe, send, |load, _| load.ledger.sent() >= case.waiting)?;
    load.check_counts(load.ledger.sent())?;
    let receive = Round::Drain(case.batch);
    drain.run(&mut load, &mut probe, receive, |load, _| load.ledger.received() == load.ledger.sent())?;
    load.drain()?;
    let named = |word: &str, measured: &Measured| {
        let mut figures = measured.figures(case, probe.limit());
        figures.name = format!("{word}-{}", case.name);
        figures
    };
    Ok([named("ingest", &ingest), named("drain", &drain)])
}
