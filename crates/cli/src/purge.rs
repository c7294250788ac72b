//! `ackwell purge`: messages removed for good.

use std::time::Duration;

use ackwell_client::{PurgeRequest, PurgeResponse};
use anyhow::bail;
use clap::{Args, CommandFactory, error::ErrorKind};
use serde_json::json;

use crate::args::{Cli, Output, Target};
use crate::filter::{Filter, StateName};
use crate::task::{self, IN_A_CLUSTER, Order, Ordered, refused};
use crate::{Outcome, confirm, duration, output};

/// Remove messages for good, in every state but in flight.
///
/// Look first with --dry-run. To remove every message, without a filter, say --all. With --namespace or --context it makes a
/// QueueTask, with your kubeconfig, and waits until the operator has done it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell purge orders --state dead --dry-run
  ackwell purge orders --header tenant=acme
  ackwell purge orders --all
  ackwell purge orders --namespace shop --state dead --older-than 7d")]
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

    #[command(flatten)]
    ordered: Ordered,

    /// Only messages that were stored so long ago.
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = IN_A_CLUSTER)]
    older_than: Option<Duration>,
}

impl Purge {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        self.check()?;
        if self.ordered.place.is_named() {
            return self.order(output).await;
        }
        if self.older_than.is_some() {
            return Err(refused("--older-than is for a queue of a cluster: name it with --namespace"));
        }
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

    /// By the operator.
    async fn order(self, output: Output) -> anyhow::Result<Outcome> {
        let queue = &self.target.queue;
        let (target, messages) = self.target_of_task()?;
        let seconds = whole_seconds(self.older_than)?;
        let order = Order {
            work: "purge",
            fields: json!({"target": target, "olderThanSeconds": seconds}),
            queue,
            question: if self.yes {
                String::new()
            } else {
                let age =
                    if seconds > 0 { format!(" that are older than {seconds}s") } else { String::new() };
                format!("Remove {messages} of {queue}{age} for good?")
            },
        };
        task::order(&self.ordered, order, output).await
    }

    /// And in words.
    fn target_of_task(&self) -> anyhow::Result<(&'static str, &'static str)> {
        let is_plain = !self.dry_run && self.filter.is_empty() && self.max_messages == 0;
        match (is_plain, self.all, self.states.as_slice()) {
            (true, true, []) => Ok(("All", "all messages")),
            (true, false, [StateName::Ready]) => Ok(("Ready", "all ready messages")),
            (true, false, [StateName::Dead]) => Ok(("DeadLetter", "all dead messages")),
            _ => Err(refused(
                "a task of a cluster removes --all, --state ready or --state dead, and --older-than; for more, call a broker \
                 with --address and without --namespace",
            )),
        }
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

/// Of an age of which a task knows the seconds only; 0 means any age there, which nobody gives.
fn whole_seconds(age: Option<Duration>) -> anyhow::Result<u64> {
    match age {
        None => Ok(0),
        Some(age) if age >= Duration::from_secs(1) && age.subsec_nanos() == 0 => Ok(age.as_secs()),
        Some(_) => bail!("--older-than takes whole seconds in a cluster, 1s at least"),
    }
}
