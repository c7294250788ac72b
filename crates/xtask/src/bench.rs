//! `cargo xtask bench`: builds a benchmark as releases are built, and runs it on the disk that the build folder is on.

use std::path::PathBuf;

use crate::child;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    what: What,
    /// Measure each case for so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Measure this case; may be given more than once. Absent: all that take no gigabytes.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// An existing folder on the disk to measure. Absent: one in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The engine on its store.
    Store,
    /// A broker behind gRPC.
    Broker,
    /// What a sidecar costs, idle and for each call.
    Sidecar,
}

impl What {
    fn program(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Broker => "broker",
            Self::Sidecar => "sidecar",
        }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let program = options.what.program();
    child::run(&mut workspace.cargo(["build", "--release", "--package", "ackwell-bench", "--bin", program]))?;
    let data = match &options.data {
        Some(folder) => std::path::absolute(folder)?,
        None => workspace.folder("bench")?,
    };
    let mut bench = child::command(workspace.target.join("release").join(program), []);
    bench.arg("--data").arg(data);
    if options.what != What::Store {
        child::run(&mut workspace.cargo(["build", "--release", "--package", "ackwelld"]))?;
        bench.arg("--ackwelld").arg(workspace.target.join("release/ackwelld"));
    }
    options.seconds.iter().for_each(|seconds| _ = bench.args(["--seconds", &seconds.to_string()]));
    options.cases.iter().for_each(|case| _ = bench.args(["--case", case]));
    child::run(&mut bench)
}
