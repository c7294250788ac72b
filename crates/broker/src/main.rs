//! The daemon: `ackwelld broker` or `ackwelld sidecar`.

mod args;

use std::process::ExitCode;

use ackwell_engine::StoreError;
use ackwell_engine::store::seal::KeysError;
use ackwell_proto::exit;
use ackwelld::logs;
use ackwelld::traces::{self, Recorder, Variables};
use anyhow::Context as _;
use args::{Args, Drain, LogFormat, Role};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// The engine has a thread of its own; these serve connections.
const BROKER_THREADS: usize = 2;
/// A sidecar is small: it mostly waits.
const SIDECAR_THREADS: usize = 1;

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
        _ => cause.is::<KeysError>().then_some(exit::KEY_MISSING),
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
