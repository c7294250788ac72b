//! `ackwell pause` and `ackwell resume`.

use clap::Args;
use serde_json::json;

use crate::args::{Output, Target};
use crate::{Outcome, output};

/// Stop handing messages out, until `ackwell resume`. Sending and settling go on.
#[derive(Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    target: Target,
}

/// Hand messages out again after `ackwell pause`.
#[derive(Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    target: Target,
}

impl Pause {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        self.target.connect().await?.pause(&self.target.queue).await?;
        match output {
            Output::Json | Output::Yaml => output::data(output, &json!({ "paused": true }))?,
            Output::Text => {
                let queue = self.target.queue;
                output::line(&format!("{queue} is paused; `ackwell resume {queue}` lets it go on"))?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Resume {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        self.target.connect().await?.resume(&self.target.queue).await?;
        match output {
            Output::Json | Output::Yaml => output::data(output, &json!({ "paused": false }))?,
            Output::Text => output::line(&format!("{} hands messages out", self.target.queue))?,
        }
        Ok(Outcome::Done)
    }
}
