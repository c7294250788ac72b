//! The daemon: `ackwelld broker` or `ackwelld sidecar`.

mod args;

use std::process::ExitCode;

use ackwell_engine::StoreError;
use ackwell_proto::exit;
use anyhow::Context as _;
use args::{Args, Drain, LogFormat, Role};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// The engine has a thread of its own; these serve connections.
const BROKER_THREADS: usize = 2;
/// A sidecar is small: it mostly waits.
const SIDECAR_THREADS: usize = 1;

fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(&args.log, args.log_format);
    match run(args.role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn std::error::Error, "ended by an error");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_format = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(StoreError::Format { .. }))
    };
    if error.chain().any(of_format) { exit::OTHER_FORMAT.into() } else { ExitCode::FAILURE }
}

fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Broker(args) => {
            let options = args.options()?;
            runtime(BROKER_THREADS)?
                .block_on(async { ackwelld::broker::run(options, |_| {}, stopped()?).await })
        }
        Role::Sidecar(args) => {
            let options = args.options()?;
            runtime(SIDECAR_THREADS)?
                .block_on(async { ackwelld::sidecar::run(options, |_| {}, stopped()?).await })
        }
        Role::Drain(Drain { address }) => ackwelld::sidecar::tell_to_drain(address)
            .with_context(|| format!("tell the sidecar on {address} to drain")),
    }
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

fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => logger.json().flatten_event(true).init(),
        LogFormat::Text => logger.init(),
    }
}
