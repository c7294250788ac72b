//! `ackwell backup`: what a queue of a cluster has, into a volume; and whether what is in a folder is a whole backup.

use std::path::Path;

use ackwelld::backup::{self, Fault, Manifest};
use clap::Args;
use serde_json::json;

use crate::args::{Output, queue_name};
use crate::output::count;
use crate::task::{self, Order, Ordered};
use crate::{Outcome, output};

/// Copy what a queue of a cluster has into a folder of a volume claim, while it goes on serving.
///
/// It makes a QueueTask, with your kubeconfig, and waits until the operator has done it. A new Queue begins with it by
/// `spec.bootstrap.restoreFrom`. `ackwell verify` reads all of a backup, where its volume is mounted.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell backup orders --namespace shop --claim backups --path orders/2026-01-31
  ackwell backup shop/orders --claim backups --path orders/1 --wait 12h")]
pub(crate) struct Backup {
    /// Name of the queue, like orders or shop/orders.
    #[arg(value_parser = queue_name)]
    queue: String,

    /// Name of a PersistentVolumeClaim in the namespace of the queue.
    #[arg(long, value_name = "NAME")]
    claim: String,

    /// Folder on it, which has no backup yet; made when missing.
    #[arg(long, value_name = "FOLDER")]
    path: String,

    #[command(flatten)]
    ordered: Ordered,
}

impl Backup {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let order = Order {
            work: "backup",
            fields: json!({"claimName": self.claim, "path": self.path}),
            queue: &self.queue,
            question: String::new(),
        };
        task::order(&self.ordered, order, output).await
    }
}

/// Whether there is a backup in the folder, whole or not.
pub(crate) fn is_in(folder: &Path) -> bool {
    backup::is_in(folder)
}

/// Reads all of it.
pub(crate) fn verify(folder: &Path, output: Output) -> anyhow::Result<Outcome> {
    let verified = backup::verify(folder);
    let (text, outcome) = match &verified {
        Ok(manifest) => (whole(manifest), Outcome::Done),
        Err(fault @ Fault::Folder { .. }) => {
            output::note(format_args!("error: {fault}"));
            return Ok(Outcome::Unreadable);
        }
        Err(fault) => (fault.to_string(), Outcome::Incomplete),
    };
    match output {
        Output::Text => output::line(&output::tame(&text))?,
        Output::Json | Output::Yaml => {
            let reason = verified.as_ref().err().map(Fault::reason);
            let fields = verified.as_ref().ok().map(|manifest| {
                let Manifest { queue, task, began, messages, shards, .. } = manifest;
                json!({
                    "queue": queue, "task": task, "began": began, "messages": messages, "shards": shards.len(),
                    "bytes": manifest.bytes(),
                })
            });
            output::data(output, &json!({"backup": fields, "reason": reason, "message": text}))?;
        }
    }
    Ok(outcome)
}

fn whole(manifest: &Manifest) -> String {
    let Manifest { queue, began, messages, shards, .. } = manifest;
    let shards = count(shards.len() as u64, "shard");
    format!(
        "nothing is wrong; a backup of {queue} as it was at {began}: {} of {shards}, {} bytes",
        count(*messages, "message"),
        manifest.bytes()
    )
}
