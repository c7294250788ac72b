//! Tortures the real thing, and looks whether it keeps its promises: `cargo xtask torture kill`, `full` and `flip`.

mod audit;
mod body;
mod broker;
mod clock;
mod console;
mod dice;
mod flip;
mod full;
mod kill;
mod ledger;
mod volume;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use console::say;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    torture: Torture,
}

#[derive(Subcommand)]
enum Torture {
    /// Kill a loaded broker again and again.
    Kill(kill::Options),
    /// Fill a small volume until nothing fits any more, and make room again.
    Full(full::Options),
    /// Flip bits in the files of a stopped store, and look what is served afterwards.
    Flip(flip::Options),
    /// One stretch of `flip`, in a process that may not survive it.
    #[command(hide = true)]
    FlipSome(flip::Stretch),
}

fn main() -> ExitCode {
    let done = match Args::parse().torture {
        Torture::Kill(options) => kill::run(&options),
        Torture::Full(options) => full::run(&options),
        Torture::Flip(options) => flip::run(&options),
        Torture::FlipSome(stretch) => flip::run_stretch(&stretch),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
