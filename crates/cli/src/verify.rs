//! `ackwell verify`: whether the store of a stopped broker is whole.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use ackwell_engine::store::offline::{Event, Finding, Hit, OfflineError, Severity, Summary};
use clap::Args;
use serde_json::{Value, json};

use crate::args::Output;
use crate::clock::Stopwatch;
use crate::offline::{Folder, unreadable};
use crate::output::{count, tame};
use crate::{Outcome, backup, output};

/// Often enough to look alive.
const INTERVAL: Duration = Duration::from_millis(200);
/// Carriage return, and erase to the end of the line.
const CLEAR: &str = "\r\x1b[K";
/// Messages of one finding that are named in a line for people; JSON has all.
const MAX_NAMED: usize = 10;

/// Check every byte of the store of a stopped broker, or of a backup, and change none.
///
/// Reads the state and the log with all their checksums, and every body. Each finding says what is wrong, in which bytes of
/// which file, and which messages are hit. Of a backup it says the first thing that is wrong. Code 0: it is whole; 1: something is wrong; 2: it could not be read.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell verify .ackwell
  ackwell verify /backups/orders/2026-01-31
  ackwell verify /var/lib/ackwell --output json | jq -r '.messages[].id'")]
pub(crate) struct Verify {
    #[command(flatten)]
    folder: Folder,
}

impl Verify {
    pub(crate) fn run(self, output: Output) -> anyhow::Result<Outcome> {
        if backup::is_in(self.folder.path()) {
            return backup::verify(self.folder.path(), output);
        }
        match self.verify(output) {
            Ok(summary) if summary.findings > 0 => Ok(Outcome::Incomplete),
            Ok(_) => Ok(Outcome::Done),
            Err(error) => unreadable(error),
        }
    }

    fn verify(&self, output: Output) -> anyhow::Result<Summary> {
        let offline = self.folder.open()?;
        let mut progress = Progress::new(output);
        let mut unprinted = None;
        let told = offline.verify(&mut |event| {
            let printed = match event {
                Event::Finding(finding) => progress.clear().and_then(|()| print(&finding, output)),
                Event::Note(note) => {
                    output::note(format_args!("note: {}", tame(&note)));
                    Ok(())
                }
                Event::Progress(read, total) => progress.show(read, total),
            };
            printed.map_err(|error| {
                unprinted = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        progress.clear()?;
        let summary = told.map_err(|error| match (error, unprinted) {
            (OfflineError::Told(_), Some(error)) => error,
            (error, _) => error.into(),
        })?;
        summarize(summary, output)?;
        Ok(summary)
    }
}

fn print(finding: &Finding, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json | Output::Yaml => output::data(output, &in_json(finding)),
        Output::Text => output::line(&in_text(finding)),
    }
}

fn in_json(finding: &Finding) -> Value {
    let Finding { severity, kind, file, bytes, what, messages } = finding;
    let hit =
        |hit: &Hit| json!({"id": hit.id.map(|id| id.to_string()), "place": hit.seq.0, "queue": hit.queue});
    json!({
        "severity": word(*severity), "kind": kind, "file": file,
        "from": bytes.as_ref().map(|bytes| bytes.start), "to": bytes.as_ref().map(|bytes| bytes.end),
        "what": what, "messages": messages.iter().map(hit).collect::<Vec<_>>(),
    })
}

fn in_text(finding: &Finding) -> String {
    let Finding { severity, kind: _, file, bytes, what, messages } = finding;
    let bytes = bytes.as_ref().map(|bytes| (bytes.start, bytes.end.saturating_sub(1).max(bytes.start)));
    let bytes = bytes.map(|(first, last)| format!("bytes {first} to {last}"));
    let parts = [Some(word(*severity).to_owned()), Some(file.clone()), bytes, Some(tame(what))];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let hit = |hit: &Hit| {
        let id = hit.id.map_or_else(|| format!("place {}", hit.seq.0), |id| id.to_string());
        format!("    {id} of {}", tame(&hit.queue))
    };
    let mut lines = vec![parts.join("  ")];
    lines.extend(messages.iter().take(MAX_NAMED).map(hit));
    if messages.len() > MAX_NAMED {
        lines.push(format!("    and {} more", messages.len() - MAX_NAMED));
    }
    lines.join("\n")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Doubt => "doubt",
    }
}

fn summarize(summary: Summary, output: Output) -> anyhow::Result<()> {
    let Summary { records, payloads, messages, findings } = summary;
    if output != Output::Text {
        return output::data(
            output,
            &json!({
                "records": records, "payloads": payloads, "stored": messages, "findings": findings,
            }),
        );
    }
    let verdict = if findings == 0 { "nothing is wrong".to_owned() } else { count(findings, "finding") };
    let (records, bodies) = (count(records, "record"), count(messages, "message"));
    output::line(&format!("{verdict}; read {records} and {bodies}"))
}

/// How far it is, for whoever watches the terminal.
struct Progress {
    since: Stopwatch,
    is_shown: bool,
    is_drawn: bool,
}

impl Progress {
    fn new(output: Output) -> Self {
        let is_shown = output == Output::Text && io::stderr().is_terminal();
        Self { since: Stopwatch::start(), is_shown, is_drawn: false }
    }

    fn show(&mut self, read: u64, total: u64) -> anyhow::Result<()> {
        if self.is_shown && self.since.elapsed() >= INTERVAL {
            let percent = read.saturating_mul(100) / total.max(1);
            write!(io::stderr(), "{CLEAR}{percent} % of {} MB", total / 1_000_000)?;
            (self.since, self.is_drawn) = (Stopwatch::start(), true);
        }
        Ok(())
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_drawn) {
            write!(io::stderr(), "{CLEAR}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ackwell_engine::message::Seq;

    use super::*;

    /// What a person needs: what, where, which messages; and nothing that a name could do to the terminal.
    #[test]
    fn finding_in_text_says_what_where_and_which() {
        let hit = Hit { id: None, seq: Seq(7), queue: "shop/\u{1b}orders".into() };
        let finding = Finding {
            severity: Severity::Damage,
            kind: "payload",
            file: "0000000000000001.log".into(),
            bytes: Some(10..20),
            what: "the body of a message fails its checksum".into(),
            messages: vec![hit],
        };
        assert_eq!(
            in_text(&finding),
            "damage  0000000000000001.log  bytes 10 to 19  the body of a message fails its checksum\n    \
             place 7 of shop/\\u{1b}orders"
        );
    }
}
