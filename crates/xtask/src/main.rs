//! Chores of this repository. `cargo xtask --help` lists them.

mod generate;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write all generated files that are committed: proto bindings.
    Gen {
        /// Change nothing; fail when a file would change.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Gen { check } => generate::run(check),
    }
}
