//! `ackwell`: serve Queue manifests on one machine, send, receive and look after messages anywhere, and operate the Queues
//! of a cluster.
//!
//! A command prints its data on stdout and everything else on stderr. It ends with 0 (done), 1 (failed, or only part
//! of it was done), 2 (the command line is wrong, or a folder cannot be read) or 3 (there was nothing: no message, no queue).

mod args;
mod backup;
mod bundle;
mod cancel;
mod clock;
mod cluster;
mod completion;
mod confirm;
mod dev;
mod duration;
mod explain;
mod export;
mod exported;
mod filter;
mod get;
mod import;
mod inspect;
mod manifest;
mod offline;
mod output;
mod pause;
mod peek;
mod purge;
mod receive;
mod redrive;
mod restart;
mod send;
mod shown;
mod stats;
mod status;
mod suspend;
mod task;
mod top;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// How a command ended without an error that is still to be told.
enum Outcome {
    Done,
    /// Some of it was refused; stderr says what.
    Incomplete,
    /// No message came in time, or there is no queue.
    Nothing,
    /// What a command is about could not be read, so that nothing can be said about it; stderr says why.
    Unreadable,
}

fn main() -> ExitCode {
    exit_code(Cli::try_parse().map_err(anyhow::Error::new).and_then(run))
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(execute(cli));
    // A thread may still wait for a line from the terminal; it must not keep the process.
    runtime.shutdown_background();
    result
}

async fn execute(cli: Cli) -> anyhow::Result<Outcome> {
    let output = cli.output;
    match cli.command {
        Command::Dev(dev) => dev.run(output).await,
        Command::Send(send) => send.run(output).await,
        Command::Receive(receive) => receive.run(output).await,
        Command::Peek(peek) => peek.run(output).await,
        Command::Stats(stats) => stats.run(output).await,
        Command::Redrive(redrive) => redrive.run(output).await,
        Command::Get(get) => get.run(output).await,
        Command::Explain(explain) => explain.run(output).await,
        Command::Purge(purge) => purge.run(output).await,
        Command::Cancel(cancel) => cancel.run(output).await,
        Command::Pause(pause) => pause.run(output).await,
        Command::Resume(resume) => resume.run(output).await,
        Command::Inspect(inspect) => inspect.run(output),
        Command::Verify(verify) => verify.run(output),
        Command::Export(export) => export.run(),
        Command::Import(import) => import.run(output).await,
        Command::Status(status) => status.run(output).await,
        Command::Top(top) => top.run(output).await,
        Command::Suspend(suspend) => suspend.run(output).await,
        Command::Restart(restart) => restart.run(output).await,
        Command::Backup(backup) => backup.run(output).await,
        Command::DebugBundle(bundle) => bundle.run().await,
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

fn exit_code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::FAILURE,
        Ok(Outcome::Nothing) => ExitCode::from(3),
        Ok(Outcome::Unreadable) => ExitCode::from(2),
        // Whoever reads has seen enough, like `head`.
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        return print_usage(usage);
    }
    output::note(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}

/// Help and version come here too, with code 0.
fn print_usage(usage: &clap::Error) -> ExitCode {
    // When the terminal is gone there is nobody to tell.
    drop(usage.print());
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
