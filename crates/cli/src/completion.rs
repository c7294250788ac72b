//! `ackwell completion` and `ackwell man`: what shells and `man` know of the command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::{Outcome, output};

/// Print a script that completes commands and options.
#[derive(Args)]
#[command(after_help = "\
Examples:
  source <(ackwell completion bash)
  ackwell completion zsh > \"${fpath[1]}/_ackwell\"
  ackwell completion fish > ~/.config/fish/completions/ackwell.fish")]
pub(crate) struct Completion {
    /// For which shell.
    shell: Shell,
}

/// Write man pages: one of all, and one of each command.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Folder for the pages; made when missing.
    folder: PathBuf,
}

impl Completion {
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ackwell", &mut script);
        output::print(&script)?;
        Ok(Outcome::Done)
    }
}

impl Man {
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        clap_mangen::generate_to(Cli::command(), &self.folder)
            .with_context(|| format!("write to {}", self.folder.display()))?;
        Ok(Outcome::Done)
    }
}
