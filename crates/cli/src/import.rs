//! `ackwell import`: sends exported messages again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use ackwell_client::{Batch, Client, Error, Message, Sent};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::args::{Output, Reach};
use crate::exported::Line;
use crate::output::count;
use crate::{Outcome, clock, output};

/// A body of 16 MiB in base64, and as much again for all else.
const MAX_LINE_BYTES: u64 = 48 << 20;
/// What is left out or refused is told one by one up to here.
const MAX_TOLD: u64 = 10;

/// Send exported messages again, as new messages, in the order of the file.
///
/// A message keeps its body, headers, keys, priority and dedup id; one without a dedup id gets its old id as one. So what the queue
/// still remembers is not stored twice: repeating an import within the queue's dedup window changes nothing. Damaged and expired
/// messages are left out. At the first refusal it stops, and says where to go on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell import messages.jsonl --queue orders --dry-run
  ackwell import messages.jsonl --queue orders
  ackwell export .ackwell --state dead | ackwell import - --queue orders")]
pub(crate) struct Import {
    /// File to read, - for stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    target: ImportTarget,

    /// Read and check all of the file, and send nothing.
    #[arg(long)]
    dry_run: bool,

    /// Begin with this line of the file, counted from 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    from_line: u64,
}

/// As [`Target`], with the queue as an option: the file comes first.
#[derive(Args)]
struct ImportTarget {
    /// Name of the queue, like orders or shop/orders.
    #[arg(long, value_parser = crate::args::queue_name)]
    queue: String,

    #[command(flatten)]
    reach: Reach,
}

/// An import under way.
struct Importer {
    /// `None`: nothing is sent.
    client: Option<Client>,
    queue: String,
    output: Output,
    batch: Batch,
    /// Line and name of each message in the batch.
    origins: Vec<(u64, String)>,
    counted: Counted,
}

#[derive(Default)]
struct Counted {
    sent: u64,
    duplicates: u64,
    damaged: u64,
    expired: u64,
    refused: u64,
}

impl Import {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let mut input = self.open()?;
        let ImportTarget { queue, reach } = self.target;
        let client = if self.dry_run { None } else { Some(reach.connect().await?) };
        let mut importer = Importer {
            client,
            queue,
            output,
            batch: Batch::default(),
            origins: Vec::new(),
            counted: Counted::default(),
        };
        let result = importer.read(&mut input, self.from_line).await;
        importer.tell();
        result?;
        let Counted { damaged, expired, refused, .. } = importer.counted;
        Ok(if damaged + expired + refused > 0 { Outcome::Incomplete } else { Outcome::Done })
    }

    fn open(&self) -> anyhow::Result<Box<dyn BufRead + Send>> {
        if self.file.as_os_str() == "-" {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file = File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        Ok(Box::new(BufReader::new(file)))
    }
}

impl Importer {
    async fn read(&mut self, input: &mut impl BufRead, from_line: u64) -> anyhow::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            if read.context("cannot read the messages")? == 0 {
                break;
            }
            if line.len() as u64 == MAX_LINE_BYTES {
                bail!("line {number}: longer than any message");
            }
            if number >= from_line && !line.trim_ascii().is_empty() {
                self.line(number, &line).await.with_context(|| format!("line {number}"))?;
            }
            if self.counted.refused > 0 {
                return Ok(());
            }
        }
        self.flush().await
    }

    async fn line(&mut self, number: u64, line: &[u8]) -> anyhow::Result<()> {
        let line: Line = serde_json::from_slice(line).context("it is no exported message")?;
        let name = line.name().to_owned();
        if line.is_damaged() {
            self.counted.damaged += 1;
            left_out(number, &name, "its body is damaged", self.counted.damaged);
            return Ok(());
        }
        let Some(message) = line.into_message(clock::now_ms())? else {
            self.counted.expired += 1;
            left_out(number, &name, "it has expired", self.counted.expired);
            return Ok(());
        };
        if let Some(message) = self.batch.push(message) {
            self.flush().await?;
            // An empty batch takes any message.
            drop(self.batch.push(message));
        }
        self.origins.push((number, name));
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let origins = std::mem::take(&mut self.origins);
        let messages: Vec<Message> = self.batch.take();
        let first = origins.first().map_or(1, |(number, _)| *number);
        let Some(client) = self.client.as_ref().filter(|_| !messages.is_empty()) else {
            self.counted.sent += messages.len() as u64;
            return Ok(());
        };
        let stopped = || format!("go on with --from-line {first}");
        let results = client.send_batch(&self.queue, messages).await.with_context(stopped)?;
        for ((number, name), result) in origins.into_iter().zip(results) {
            self.settle(number, &name, result)?;
        }
        if self.counted.refused > 0 {
            output::note(format_args!("stopped; {}", stopped()));
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, name: &str, result: Result<Sent, Error>) -> anyhow::Result<()> {
        match result {
            Ok(sent) => {
                self.counted.sent += u64::from(!sent.duplicate);
                self.counted.duplicates += u64::from(sent.duplicate);
                match self.output {
                    Output::Text => Ok(()),
                    Output::Json | Output::Yaml => output::data(
                        self.output,
                        &json!({"from": name, "id": sent.id, "duplicate": sent.duplicate}),
                    ),
                }
            }
            Err(error) => {
                self.counted.refused += 1;
                if self.counted.refused <= MAX_TOLD {
                    output::note(format_args!("error: line {number} was refused: {error}"));
                }
                Ok(())
            }
        }
    }

    fn tell(&self) {
        let Counted { sent, duplicates, damaged, expired, refused } = self.counted;
        let done = if self.client.is_some() { "imported to" } else { "would be imported to" };
        let parts = [
            (duplicates, "were there already"),
            (damaged, "left out with a damaged body"),
            (expired, "left out since they have expired"),
            (refused, "refused"),
        ];
        let parts =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}"));
        let all: Vec<String> = std::iter::once(count(sent, "message")).chain(parts).collect();
        output::note(format_args!("{done} {}: {}", self.queue, all.join(", ")));
    }
}

fn left_out(number: u64, name: &str, why: &str, so_far: u64) {
    if so_far <= MAX_TOLD {
        output::note(format_args!("line {number} is left out: {why}: {}", output::tame(name)));
    }
}
