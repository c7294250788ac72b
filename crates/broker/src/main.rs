//! The daemon: `ackwelld broker` or `ackwelld sidecar`; and what is done once with a queue.

mod args;

use std::path::Path;
use std::process::ExitCode;

use ackwell_engine::StoreError;
use ackwell_engine::store::seal::KeysError;
use ackwell_proto::exit;
use ackwelld::backup::{self, Fault, Report, Take};
use ackwelld::logs;
use ackwelld::traces::{self, Recorder, Variables};
use anyhow::Context as _;
use args::{Args, Backup, Drain, LogFormat, Restore, Role};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// The engine has a thread of its own; these serve connections.
const BROKER_THREADS: usize = 2;
/// A sidecar is small: it mostly waits.
const SIDECAR_THREADS: usize = 1;
/// One reads or writes files, the other calls shards.
const COPY_THREADS: usize = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    match args.log_format {
        LogFormat::Json => logs::in_json(&args.log),
        LogFormat::Text => logs::for_people(&args.log),
    }
    match run(args.role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn std::error::Error, "ended by an error");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let meaning = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(StoreError::Format { .. }) => Some(exit::OTHER_FORMAT),
        Some(StoreError::Key(_)) => Some(exit::KEY_MISSING),
        _ if cause.is::<KeysError>() => Some(exit::KEY_MISSING),
        _ => cause.downcast_ref().filter(|fault: &&Fault| fault.is_final()).map(|_| exit::NEEDS_A_PERSON),
    });
    meaning.map_or(ExitCode::FAILURE, Into::into)
}

fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Broker(args) => {
            let traces = args.traces.clone();
            let options = args.options()?;
            logs::tell_broker(&options);
            let recorder = Recorder::Broker(options.ordinal);
            runtime(BROKER_THREADS)?.block_on(traced(&traces, recorder, async {
                ackwelld::broker::run(options, |_| {}, stopped()?).await
            }))
        }
        Role::Sidecar(args) => {
            let traces = args.traces.clone();
            let options = args.options()?;
            runtime(SIDECAR_THREADS)?.block_on(traced(&traces, Recorder::Sidecar, async {
                ackwelld::sidecar::run(options, |_| {}, stopped()?).await
            }))
        }
        Role::Drain(Drain { address }) => ackwelld::sidecar::tell_to_drain(address)
            .with_context(|| format!("tell the sidecar on {address} to drain")),
        Role::Backup(Backup { reach, task, folder }) => {
            let take = Take { reach: reach.reach(), task, folder };
            copy(async move { take.run().await }, reach.report.as_deref())
        }
        Role::Restore(Restore { reach, folder }) => {
            let restore = backup::Restore { reach: reach.reach(), folder };
            copy(async move { restore.run().await }, reach.report.as_deref())
        }
    }
}

/// What ended last is still exported.
async fn traced(
    variables: &Variables,
    recorder: Recorder,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let exporter = traces::start(variables, recorder);
    let ended = role.await;
    if let Some(exporter) = exporter {
        exporter.flush().await;
    }
    ended
}

/// Nothing of a backup or restore is lost when it is killed, so that it is not told to stop in any other way.
fn copy(copied: impl Future<Output = Result<Report, Fault>>, report: Option<&Path>) -> anyhow::Result<()> {
    let result = runtime(COPY_THREADS)?.block_on(copied);
    if let Some(path) = report {
        let words = result.as_ref().map_or_else(Fault::report, Report::clone);
        std::fs::write(path, serde_json::to_vec(&words)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    let Report { messages, bytes, .. } = result?;
    info!(messages, bytes, "done");
    Ok(())
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Resolves when the process is told to stop.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("told to stop: SIGTERM"),
            _ = interrupt.recv() => info!("told to stop: SIGINT"),
        }
    })
}
