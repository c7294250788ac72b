//! `ackwell send`: store messages.

mod progress;
mod source;
mod stream;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use ackwell_client::{Available, Message};
use clap::Args;

use crate::args::{Output, Target, header};
use crate::send::source::{Input, Source, Unit};
use crate::send::stream::Stream;
use crate::{Outcome, duration, output};

/// Store messages: one for each line of stdin or of files.
///
/// A line ends with a line feed, which is not part of the message; an empty line is an empty message. Messages are
/// stored in the order of the lines, a batch at a time, in constant memory. At the first refusal it stops, and says which
/// line was refused.
#[derive(Args)]
#[command(after_help = "\
Examples:
  echo hello | ackwell send orders
  ackwell send orders --file orders.jsonl --content-type application/json
  ackwell send orders --body 'remind me' --delay 10m
  ackwell send pictures --file a.png --file b.png --whole")]
pub(crate) struct Send {
    #[command(flatten)]
    target: Target,

    /// File to read, - for stdin; can be repeated. Without it: stdin.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Each file is one message, not each line.
    #[arg(long)]
    whole: bool,

    /// The one message to send, instead of a file.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["files", "whole"])]
    body: Option<String>,

    /// Header of every message; can be repeated.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Content type of every message.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,

    /// Keep the messages with this key in order: one at a time, in the order of the lines.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    ordering_key: String,

    /// Let the messages take turns with those of other keys, as this tenant's.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    fairness_key: String,

    /// How urgent the messages are: 0 to 9, the highest first; 4 without it.
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,

    /// Hand the messages out only after this time, like 10s or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delay: Option<Duration>,

    /// Let the messages expire after this time.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    ttl: Option<Duration>,

    /// Store nothing when a message with this id was sent a short while ago.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true, requires = "body")]
    dedup_id: String,
}

impl Send {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let (template, queue) = (self.template()?, self.target.queue.clone());
        Stream::new(client, queue, template, output).run(self.source()).await
    }

    fn template(&self) -> anyhow::Result<Message> {
        let delay = self.delay.map(prost_types::Duration::try_from).transpose()?;
        Ok(Message {
            headers: self.headers.iter().cloned().collect(),
            content_type: self.content_type.clone(),
            ordering_key: self.ordering_key.clone(),
            fairness_key: self.fairness_key.clone(),
            priority: self.priority,
            dedup_id: self.dedup_id.clone(),
            available: delay.map(Available::Delay),
            ttl: self.ttl.map(prost_types::Duration::try_from).transpose()?,
            ..Message::default()
        })
    }

    fn source(self) -> Source {
        if let Some(text) = self.body {
            return Source::new(vec![Input::Text(text)], Unit::Whole);
        }
        let input = |path: PathBuf| if path.as_os_str() == "-" { Input::Stdin } else { Input::File(path) };
        let mut inputs: Vec<_> = self.files.into_iter().map(input).collect();
        if inputs.is_empty() {
            inputs.push(Input::Stdin);
        }
        if inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal() {
            output::note(format_args!("reading messages from the terminal, one a line; end with Ctrl-D"));
        }
        Source::new(inputs, if self.whole { Unit::Whole } else { Unit::Line })
    }
}
