//! `ackwell purge`: messages removed for good.

use ackwell_client::{PurgeRequest, PurgeResponse};
use clap::{Args, CommandFactory, error::ErrorKind};
use serde_json::json;

use crate::args::{Cli, Output, Target};
use crate::filter::{Filter, StateName};
use crate::{Outcome, confirm, output};

/// Remove messages for good, in every state but in flight.
///
/// Look first with --dry-run. To remove every message, without a filter, say --all.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell purge orders --state dead --dry-run
  ackwell purge orders --header tenant=acme
  ackwell purge orders --all")]
pub(crate) struct Purge {
    #[command(flatten)]
    target: Target,

    /// Count what matches and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Every message, not those of a filter.
    #[arg(long)]
    all: bool,

    /// Only messages in this state; can be repeated.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateName>,

    /// At most so many; 0: all that match.
    #[arg(long = "max", value_name = "N", default_value_t = 0)]
    max_messages: u64,

    /// Do not ask. At a terminal it is asked before anything is removed.
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    filter: Filter,
}

impl Purge {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        self.check()?;
        let client = self.target.connect().await?;
        let request = PurgeRequest {
            queue: self.target.queue,
            filter: Some(self.filter.in_states(self.states)),
            dry_run: self.dry_run,
            max_messages: self.max_messages,
        };
        if !self.dry_run && !self.yes && confirm::is_possible() {
            let would = client.purge(PurgeRequest { dry_run: true, ..request.clone() }).await?;
            let question = format!("Remove {} for good?", output::count(would.matched, "message"));
            if would.matched > 0 && !confirm::ask(&question)? {
                output::note(format_args!("nothing was removed"));
                return Ok(Outcome::Incomplete);
            }
        }
        let answer = client.purge(request).await?;
        match output {
            Output::Json | Output::Yaml => output::data(
                output,
                &json!({
                    "matched": answer.matched, "purged": answer.purged, "dryRun": self.dry_run,
                }),
            )?,
            Output::Text if self.dry_run => output::line(&would_purge(answer))?,
            Output::Text => output::line(&purged(answer))?,
        }
        Ok(Outcome::Done)
    }

    /// What is removed does not come back: a filter that was forgotten must not mean everything.
    fn check(&self) -> Result<(), clap::Error> {
        let has_filter = !self.filter.is_empty() || !self.states.is_empty();
        let problem = match (has_filter, self.all, self.dry_run) {
            (true, true, _) => "--all means every message: leave it or the filter out",
            (false, false, false) => {
                "this would remove every message for good: give a filter, look with --dry-run, or say --all"
            }
            _ => return Ok(()),
        };
        Err(Cli::command().error(ErrorKind::MissingRequiredArgument, problem))
    }
}

fn would_purge(answer: PurgeResponse) -> String {
    format!("{} would be removed; nothing was changed", output::count(answer.matched, "message"))
}

fn purged(answer: PurgeResponse) -> String {
    let PurgeResponse { matched, purged } = answer;
    format!("{purged} of {} removed", output::count(matched, "matching message"))
}
