//! `ackwell cancel`: single messages removed.

use ackwell_client::Error;
use clap::Args;
use serde_json::json;

use crate::args::{Output, Target};
use crate::{Outcome, output};

/// Ids of one call, as the API allows.
const MAX_IDS: usize = 1000;

/// Remove single messages for good, unless a consumer holds them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell cancel orders 0199d3a8-0000-7000-8000-000000000001")]
pub(crate) struct Cancel {
    #[command(flatten)]
    target: Target,

    /// Ids of the messages.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Cancel {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let mut removed = 0;
        for ids in self.ids.chunks(MAX_IDS) {
            let results = match client.cancel(&self.target.queue, ids.to_vec()).await {
                // A call with a single id fails with it.
                Err(error) if ids.len() == 1 => vec![Err(error)],
                results => results?,
            };
            for (id, result) in ids.iter().zip(results) {
                removed += u64::from(result.is_ok());
                tell(id, result, output)?;
            }
        }
        if output == Output::Text {
            output::line(&format!("{} removed", output::count(removed, "message")))?;
        }
        let is_complete = removed == self.ids.len() as u64;
        Ok(if is_complete { Outcome::Done } else { Outcome::Incomplete })
    }
}

fn tell(id: &str, result: Result<(), Error>, output: Output) -> anyhow::Result<()> {
    match (result, output) {
        (Ok(()), Output::Text) => Ok(()),
        (Ok(()), Output::Json | Output::Yaml) => output::data(output, &json!({ "id": id })),
        (Err(error), _) => {
            output::note(format_args!("error: {id} was not removed: {error}"));
            Ok(())
        }
    }
}
