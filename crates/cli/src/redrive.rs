//! `ackwell redrive`: Dead messages back to Ready.

use ackwell_client::{RedriveRequest, RedriveResponse};
use clap::Args;
use serde_json::json;

use crate::args::{Output, Target};
use crate::filter::Filter;
use crate::{Outcome, confirm, output};

/// Put dead messages back to ready, with the same id and attempts counted from 0.
///
/// Without a filter it is all of them. Look first with --dry-run, or with `ackwell peek QUEUE --state dead`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell redrive orders --dry-run
  ackwell redrive orders --reason-contains 'connection refused' --max 100")]
pub(crate) struct Redrive {
    #[command(flatten)]
    target: Target,

    /// Count what matches and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// At most so many; 0: all.
    #[arg(long = "max", value_name = "N", default_value_t = 0)]
    max_messages: u64,

    /// Do not ask. At a terminal it is asked before anything is changed.
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    filter: Filter,
}

impl Redrive {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let request = RedriveRequest {
            queue: self.target.queue,
            filter: Some(self.filter.into()),
            max_messages: self.max_messages,
            dry_run: self.dry_run,
        };
        if !self.dry_run && !self.yes && confirm::is_possible() {
            let would = client.redrive(RedriveRequest { dry_run: true, ..request.clone() }).await?;
            let question = format!("Put {} back to ready?", output::count(would.matched, "dead message"));
            if would.matched > 0 && !confirm::ask(&question)? {
                output::note(format_args!("nothing was changed"));
                return Ok(Outcome::Incomplete);
            }
        }
        let answer = client.redrive(request).await?;
        match output {
            Output::Json | Output::Yaml => output::data(
                output,
                &json!({
                    "matched": answer.matched, "redriven": answer.redriven, "dryRun": self.dry_run,
                }),
            )?,
            Output::Text if self.dry_run => output::line(&would_redrive(answer))?,
            Output::Text => output::line(&redriven(answer))?,
        }
        Ok(Outcome::Done)
    }
}

fn would_redrive(answer: RedriveResponse) -> String {
    format!("{} would be redriven; nothing was changed", output::count(answer.matched, "dead message"))
}

fn redriven(answer: RedriveResponse) -> String {
    let RedriveResponse { matched, redriven } = answer;
    format!("{} of {} redriven", redriven, output::count(matched, "matching dead message"))
}
