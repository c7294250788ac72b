//! `ackwell get`: one message, whole.

use clap::Args;

use crate::args::{Output, Target};
use crate::output::tame;
use crate::peek::{row, table_head};
use crate::shown::{Bodies, Shown};
use crate::{Outcome, output};

/// Show one message with its whole body, whatever its state, without taking or changing it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell get orders 0199d3a8-0000-7000-8000-000000000001
  ackwell get orders 0199d3a8-0000-7000-8000-000000000001 --output json | jq .history")]
pub(crate) struct Get {
    #[command(flatten)]
    target: Target,

    /// Id of the message.
    id: String,
}

impl Get {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let message = self.target.connect().await?.get(&self.target.queue, &self.id).await?;
        match output {
            Output::Json | Output::Yaml => output::data(output, &Shown::new(&message, Bodies::Shown))?,
            Output::Text => {
                let body = tame(&String::from_utf8_lossy(&message.body));
                output::line(&format!("{}\n{}\n    {body}", table_head(), row(&message)))?;
            }
        }
        Ok(Outcome::Done)
    }
}
