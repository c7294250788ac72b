//! `ackwell export`: the messages of a stopped broker, into a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use ackwell_engine::State;
use ackwell_engine::store::offline::{Exported, OfflineError, Source, Wanted};
use ackwell_proto::QueueName;
use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::exported::Line;
use crate::filter::StateName;
use crate::offline::{Folder, unreadable};
use crate::output::{Closed, count};
use crate::{Outcome, output};

/// Write the messages of a stopped broker as JSON, one a line, in stored order and in constant memory.
///
/// `--from state` has what a broker would serve. `--from log` has every send that is still in the log, whether the state knows it
/// or not: what a damaged state has lost, and also what was acked since.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell export .ackwell --to messages.jsonl
  ackwell export .ackwell --queue orders --state dead | jq -r .bodyBase64
  ackwell export .ackwell --from log --to sends.jsonl")]
pub(crate) struct Export {
    #[command(flatten)]
    folder: Folder,

    /// Only messages of this queue, like shop/orders, or orders where one namespace has it.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,

    /// Only messages in this state; can be repeated.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateName>,

    /// Where messages are looked for.
    #[arg(long, value_enum, default_value_t = From::State)]
    from: From,

    /// File to write, which must not be there yet. Without it: stdout.
    #[arg(long = "to", value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum From {
    State,
    Log,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        self.export().or_else(unreadable)
    }

    fn export(&self) -> anyhow::Result<Outcome> {
        let offline = self.folder.open()?;
        let mut out: Box<dyn Write> = match &self.to {
            None => Box::new(BufWriter::new(io::stdout().lock())),
            Some(path) => {
                let file =
                    File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
                Box::new(BufWriter::new(file))
            }
        };
        let mut counted = Counted::default();
        let source = match self.from {
            From::State => Source::State,
            From::Log => Source::Log,
        };
        let told = offline.export(source, &self.wanted(), &mut |message| {
            if self.wants(&message.queue) {
                counted.add(&message);
                write(&mut out, message)?;
            }
            Ok(())
        });
        let missing = told.and_then(|missing| {
            out.flush().map_err(OfflineError::Told)?;
            Ok(missing)
        });
        let missing = missing.map_err(closed)?;
        counted.tell();
        if let (Some(queue), 0) = (&self.queue, counted.messages) {
            output::note(format_args!(
                "there is none of {queue}; `ackwell inspect` lists the queues of the folder"
            ));
        }
        missing.iter().for_each(|why| output::note(format_args!("warning: {why}")));
        let is_all = missing.is_empty() && counted.damaged == 0;
        Ok(if is_all { Outcome::Done } else { Outcome::Incomplete })
    }

    fn wanted(&self) -> Wanted {
        let state = |name: &StateName| match name {
            StateName::Ready => State::Ready,
            StateName::Delayed => State::Delayed,
            StateName::InFlight => State::InFlight,
            StateName::Dead => State::Dead,
        };
        let queue = self.queue.clone().filter(|queue| queue.contains(['/', '#']));
        Wanted { queue, states: self.states.iter().map(state).collect() }
    }

    /// A short name means the queue in any namespace.
    fn wants(&self, queue: &str) -> bool {
        let Some(wanted) = self.queue.as_deref() else { return true };
        let short = QueueName::parse(queue, "default").map(|name| name.name() == wanted);
        queue == wanted || short.unwrap_or(false)
    }
}

fn write(out: &mut dyn Write, message: Exported) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line::of(message))?;
    out.write_all(b"\n")
}

/// Whoever reads has seen enough, like `head`.
fn closed(error: OfflineError) -> anyhow::Error {
    match error {
        OfflineError::Told(source) if source.kind() == io::ErrorKind::BrokenPipe => Closed.into(),
        OfflineError::Told(source) => anyhow::Error::new(source).context("cannot write the messages"),
        other => other.into(),
    }
}

#[derive(Default)]
struct Counted {
    messages: u64,
    damaged: u64,
    unknown: u64,
}

impl Counted {
    fn add(&mut self, message: &Exported) {
        self.messages += 1;
        self.damaged += u64::from(message.is_damaged);
        self.unknown += u64::from(message.state.is_none());
    }

    fn tell(&self) {
        let parts = [
            (self.unknown, "of them not in the state: acked, purged, refused, or lost"),
            (self.damaged, "of them with a damaged body"),
        ];
        let parts =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}"));
        let all: Vec<String> = std::iter::once(count(self.messages, "message")).chain(parts).collect();
        output::note(format_args!("exported {}", all.join(", ")));
    }
}
