//! `ackwell redrive`: Dead messages back to Ready.

use ackwell_client::{RedriveRequest, RedriveResponse};
use clap::Args;
use serde_json::json;

use crate::args::{Output, Target};
use crate::filter::Filter;
use crate::task::{self, IN_A_CLUSTER, Order, Ordered, refused};
use crate::{Outcome, confirm, output};

/// Put dead messages back to ready, with the same id and attempts counted from 0.
///
/// Without a filter it is all of them. Look first with --dry-run, or with `ackwell peek QUEUE --state dead`. With
/// --namespace or --context it makes a QueueTask, with your kubeconfig, and waits until the operator has done it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell redrive orders --dry-run
  ackwell redrive orders --reason-contains 'connection refused' --max 100
  ackwell redrive orders --namespace shop --rate 50")]
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

    #[command(flatten)]
    ordered: Ordered,

    /// At most so many in a second; 0: as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = IN_A_CLUSTER)]
    rate: u32,
}

impl Redrive {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        if self.ordered.place.is_named() {
            return self.order(output).await;
        }
        if self.rate > 0 {
            return Err(refused("--rate is for a queue of a cluster: name it with --namespace"));
        }
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

    /// By the operator.
    async fn order(self, output: Output) -> anyhow::Result<Outcome> {
        if self.dry_run || !self.filter.is_empty() {
            return Err(refused(
                "a task of a cluster has no filter and no --dry-run: leave them out, or call a broker with --address and \
                 without --namespace; `ackwell status` says how many messages are dead",
            ));
        }
        let all =
            if self.max_messages == 0 { "all".to_owned() } else { format!("up to {}", self.max_messages) };
        let question = format!("Put {all} dead messages of {} back to ready?", self.target.queue);
        let order = Order {
            work: "redrive",
            fields: json!({"maxMessages": self.max_messages, "maxPerSecond": self.rate}),
            queue: &self.target.queue,
            question: if self.yes { String::new() } else { question },
        };
        task::order(&self.ordered, order, output).await
    }
}

fn would_redrive(answer: RedriveResponse) -> String {
    format!("{} would be redriven; nothing was changed", output::count(answer.matched, "dead message"))
}

fn redriven(answer: RedriveResponse) -> String {
    let RedriveResponse { matched, redriven } = answer;
    format!("{} of {} redriven", redriven, output::count(matched, "matching dead message"))
}
