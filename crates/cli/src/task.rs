//! Tasks of a cluster: a `QueueTask` is made, and waited for. What it takes is the right to make one; the operator does it.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use serde_json::{Value, json};

use crate::args::{Cli, Output};
use crate::cluster::{Cluster, Place, TASKS, short_name};
use crate::wait::until;
use crate::{Outcome, confirm, duration, output};

/// Of the options.
pub(crate) const IN_A_CLUSTER: &str = "In a cluster, with --namespace or --context";

/// Options of what is done in a cluster.
#[derive(Args)]
#[command(next_help_heading = IN_A_CLUSTER)]
pub(crate) struct Ordered {
    #[command(flatten)]
    pub(crate) place: Place,

    /// Wait so long for the task to be over; 0s: only make it.
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "1h")]
    pub(crate) wait: Duration,
}

/// What a task shall do.
pub(crate) struct Order<'a> {
    /// `redrive`, `purge`, `backup`.
    pub(crate) work: &'static str,
    /// Its fields.
    pub(crate) fields: Value,
    pub(crate) queue: &'a str,
    /// Asked before it is made; empty: nobody is asked.
    pub(crate) question: String,
}

/// Makes the task and waits for it.
pub(crate) async fn order(ordered: &Ordered, order: Order<'_>, output: Output) -> anyhow::Result<Outcome> {
    let cluster = ordered.place.open(Some(order.queue)).await?;
    let name = short_name(order.queue);
    // It would be rejected, and somebody would have to look why.
    cluster.queue(name).await?;
    // The namespace may be that of the kubeconfig, which nobody sees.
    let question = format!("In namespace {}: {}", cluster.namespace(), order.question);
    if !order.question.is_empty() && confirm::is_possible() && !confirm::ask(&question)? {
        output::note(format_args!("nothing was changed"));
        return Ok(Outcome::Incomplete);
    }
    let task = &new_name(order.work, name);
    cluster.create_once(TASKS, task, &manifest(&order, name, task)).await?;
    if !ordered.wait.is_zero() {
        output::note(format_args!("{task}: made; it goes on when this command ends"));
        wait(&cluster, task, ordered.wait).await?;
    }
    told(&find(&cluster, task).await?, task, output)
}

/// Chosen here and not by the API server: so a repeated call makes no second one.
fn new_name(work: &str, queue: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{work}-{queue}-{}", &random[..8])
}

fn manifest(order: &Order<'_>, queue: &str, task: &str) -> Value {
    json!({
        "apiVersion": "ackwell.dev/v1alpha1",
        "kind": "QueueTask",
        "metadata": {"name": task},
        "spec": {"queueName": queue, order.work: order.fields},
    })
}

async fn find(cluster: &Cluster, task: &str) -> anyhow::Result<Value> {
    let found = cluster.find(TASKS, task).await?;
    found.with_context(|| format!("the task {task} is gone, and what became of it is not known"))
}

/// Shows how far it is, whenever that changes.
async fn wait(cluster: &Cluster, task: &str, limit: Duration) -> anyhow::Result<()> {
    let mut shown = String::new();
    let look = async || {
        let left = left(&find(cluster, task).await?);
        if let Some(now) = left.as_ref().filter(|now| **now != shown) {
            output::note(format_args!("{task}: {now}"));
            shown.clone_from(now);
        }
        Ok(left)
    };
    let waited = until(limit, look).await;
    let again = format!("kubectl get queuetasks.ackwell.dev {task} --namespace {}", cluster.namespace());
    waited.with_context(|| format!("{task} goes on; `{again}` shows it"))
}

/// `None`: it is over.
fn left(task: &Value) -> Option<String> {
    let status = &task["status"];
    let state = status["state"].as_str().unwrap_or("Pending");
    if !["Pending", "Running"].contains(&state) {
        return None;
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let waits = conditions.iter().find(|condition| condition["reason"] == "Waiting");
    let why = waits.and_then(|condition| condition["message"].as_str()).map(output::tame);
    let why = why.map(|why| format!(", waits: {why}")).unwrap_or_default();
    let [processed, total] = ["processed", "total"].map(|field| status[field].as_u64().unwrap_or(0));
    Some(format!("{}, {processed} of {total}{why}", state.to_lowercase()))
}

fn told(task: &Value, name: &str, output: Output) -> anyhow::Result<Outcome> {
    let status = &task["status"];
    let state = status["state"].as_str().unwrap_or("Pending");
    let [processed, total, failed] =
        ["processed", "total", "failed"].map(|field| status[field].as_u64().unwrap_or(0));
    match output {
        Output::Json | Output::Yaml => output::data(
            output,
            &json!({"task": name, "state": state, "processed": processed, "total": total, "failed": failed}),
        )?,
        Output::Text => output::line(&format!(
            "{name}: {}, {processed} of {}{}",
            state.to_lowercase(),
            output::count(total, "message"),
            if failed > 0 { format!(", {failed} corrupt") } else { String::new() },
        ))?,
    }
    match state {
        // What is not over was only to be made.
        "Succeeded" | "Pending" | "Running" => Ok(Outcome::Done),
        _ => bail!("{name} {}: {}", state.to_lowercase(), why(status)),
    }
}

fn why(status: &Value) -> String {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let failed = conditions.iter().find(|condition| condition["type"] == "Failed");
    let message = failed.and_then(|condition| condition["message"].as_str());
    output::tame(message.unwrap_or("it does not say why"))
}

/// What a task cannot do.
pub(crate) fn refused(problem: &str) -> anyhow::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, problem).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &str, reason: &str) -> Value {
        let condition =
            json!({"type": "Reconciling", "reason": reason, "message": "shard\u{1b} 1 does not serve"});
        json!({"status": {"state": state, "processed": 3, "total": 7, "conditions": [condition]}})
    }

    /// People see how far it is, and what it waits for; nothing of it moves their cursor.
    #[test]
    fn what_is_left_is_told_until_it_is_over() {
        assert_eq!(left(&json!({})).unwrap(), "pending, 0 of 0");
        assert_eq!(left(&task("Running", "Running")).unwrap(), "running, 3 of 7");
        let waits = left(&task("Running", "Waiting")).unwrap();
        assert_eq!(waits, "running, 3 of 7, waits: shard\\u{1b} 1 does not serve");
        for state in ["Succeeded", "Failed", "Rejected", "Cancelled"] {
            assert_eq!(left(&task(state, "Done")), None);
        }
    }
}
