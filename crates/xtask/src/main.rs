//! Chores of this repository. `cargo xtask --help` lists them.

mod bench;
mod child;
mod cluster;
mod console;
mod dist;
mod generate;
mod image;
mod prove;
mod test;
mod tools;
mod torture;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use console::{complain, say};
use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write all generated files that are committed.
    Gen {
        /// Change nothing; fail when a file would change.
        #[arg(long)]
        check: bool,
    },
    /// Run all tests: prepares what they need, says what it is doing, ends with the runners' summaries.
    Test(test::Options),
    /// Measure how fast the store or a broker is, beside what the disk can do.
    Bench(bench::Options),
    /// Kill brokers, fill volumes and flip bits of stores, and see whether every promise is kept.
    Torture(torture::Options),
    /// Plant mistakes in the store, and see that schedules of power cuts find each.
    Prove(prove::Options),
    /// Build the container images and write them as OCI archives to target/images.
    Image(image::Options),
    /// Write the chart, plain manifests and the bill of materials to target/dist.
    Dist(dist::Options),
    /// Run the one-node Kubernetes of the tests.
    Cluster(cluster::Options),
    /// Provide helm, kubectl and promtool in target/tools, and print where they are.
    Tools,
}

fn main() -> ExitCode {
    run(Args::parse().command).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Gen { check } => generate::run(check)?,
        Command::Test(options) => return test::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options)?,
        Command::Torture(options) => torture::run(&workspace, &options)?,
        Command::Prove(options) => prove::run(&workspace, &options)?,
        Command::Image(options) => image::run(&workspace, &options)?,
        Command::Dist(options) => dist::run(&workspace, &options)?,
        Command::Cluster(options) => cluster::run(&workspace, &options)?,
        Command::Tools => {
            let tools = tools::provide(&workspace)?;
            say(tools.helm.display());
            say(tools.kubectl.display());
            say(tools::promtool(&workspace)?.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
