//! `ackwell inspect`: what is in the store of a stopped broker.

use std::io;

use ackwell_engine::store::offline::{
    Looked, OfflineError, Overview, QueueView, RecordView, SegmentView, StateView,
};
use clap::Args;
use serde_json::{Value, json};

use crate::args::Output;
use crate::offline::{Folder, time, unreadable};
use crate::output::tame;
use crate::{Outcome, output};

/// Show what is in the store of a stopped broker: state, queues, segments of the log. Never what is in messages.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell inspect .ackwell
  ackwell inspect .ackwell --segment 2a
  ackwell inspect .ackwell --record 4711 --output json")]
pub(crate) struct Inspect {
    #[command(flatten)]
    folder: Folder,

    /// Show the records of this segment, by its number in hexadecimal.
    #[arg(long, value_name = "N", value_parser = segment, conflicts_with = "record")]
    segment: Option<u64>,

    /// Show the record with this number.
    #[arg(long, value_name = "LSN")]
    record: Option<u64>,
}

/// As the file has it, or without the zeros before it.
fn segment(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix(".log").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "use the number in the name of the file".to_owned())
}

impl Inspect {
    pub(crate) fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let looked = self.segment.map(Looked::Segment).or(self.record.map(Looked::Record));
        let done = match looked {
            Some(looked) => self.records(looked, output),
            None => self.overview(output),
        };
        done.map(|()| Outcome::Done).or_else(unreadable)
    }

    fn overview(&self, output: Output) -> anyhow::Result<()> {
        let overview = self.folder.open()?.inspect()?;
        match output {
            Output::Json | Output::Yaml => output::data(output, &overview_in_json(&overview)),
            Output::Text => output::line(&overview_in_text(&overview)),
        }
    }

    fn records(&self, looked: Looked, output: Output) -> anyhow::Result<()> {
        let (mut found, mut unprinted) = (0u64, None);
        let told = self.folder.open()?.records(looked, &mut |record| {
            found += 1;
            let printed = match output {
                Output::Json | Output::Yaml => output::data(output, &record_in_json(&record)),
                Output::Text => output::line(&record_in_text(&record)),
            };
            printed.map_err(|error| {
                unprinted = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        told.map_err(|error| match (error, unprinted) {
            (OfflineError::Told(_), Some(error)) => error,
            (error, _) => error.into(),
        })?;
        anyhow::ensure!(found > 0, "there is no such record");
        Ok(())
    }
}

fn overview_in_text(overview: &Overview) -> String {
    let mut lines = match &overview.state {
        Some(state) => state_in_text(state),
        None => vec!["state.redb cannot be read".to_owned()],
    };
    if overview.flaws > 0 {
        lines
            .push(format!("pieces of state.redb that are damaged: {}; see `ackwell verify`", overview.flaws));
    }
    lines.extend(overview.not_current.as_ref().map(|why| {
        format!("the messages are those of the last checkpoint, as far as it can be read: {}", tame(why))
    }));
    lines.push(format!(
        "\n{:30}  {:>10}  {:>10}  {:>10}  {:>10}  {:>14}",
        "QUEUE", "READY", "DELAYED", "IN FLIGHT", "DEAD", "BYTES"
    ));
    lines.extend(overview.queues.iter().map(queue_in_text));
    lines.push(format!(
        "\n{:24}  {:>11}  {:>9}  {:>9}  {:>11}  RECORDS, WHEN",
        "SEGMENT", "BYTES", "RECORDS", "LIVE", "LIVE BYTES"
    ));
    lines.extend(overview.segments.iter().map(segment_in_text));
    if !overview.others.is_empty() {
        lines.push(format!("\nother files: {}", tame(&overview.others.join(", "))));
    }
    lines.join("\n")
}

fn state_in_text(state: &StateView) -> Vec<String> {
    let shown = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let applied = state.applied.map(|(segment, offset, lsn)| {
        format!("the log goes on with record {lsn}, at byte {offset} of segment {segment:016x}")
    });
    let tables = state.tables.iter().map(|(name, rows, bytes)| format!("{name} {rows} ({bytes} bytes)"));
    vec![
        format!("state.redb: format {}, {} bytes; no broker has the folder", state.format, state.bytes),
        format!(
            "  as of the last checkpoint; {}",
            applied.unwrap_or_else(|| "it is not known of what".into())
        ),
        format!(
            "  next message {}, next delivery {}, next queue {}, salt {}, last commit {}",
            shown(state.next_seq),
            shown(state.next_epoch),
            shown(state.next_queue.map(u64::from)),
            state.salt.map_or_else(|| "?".to_owned(), |salt| format!("{salt:06x}")),
            state.clock.map_or_else(|| "?".to_owned(), time),
        ),
        format!("  rows: {}", tables.collect::<Vec<_>>().join(", ")),
    ]
}

fn queue_in_text(queue: &QueueView) -> String {
    let counts = queue.counts;
    let marks = [(queue.is_paused, "paused"), (queue.is_closed, "being deleted")];
    let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    format!(
        "{:30}  {:>10}  {:>10}  {:>10}  {:>10}  {:>14}  {}\n  number {}, generation {}: {}",
        tame(&queue.name),
        counts.ready,
        counts.delayed,
        counts.in_flight,
        counts.dead,
        counts.bytes,
        marks.join(", "),
        queue.id.0,
        queue.generation,
        settings_in_text(queue),
    )
}

fn settings_in_text(queue: &QueueView) -> String {
    let Value::Object(settings) = settings(queue) else { return String::new() };
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn segment_in_text(segment: &SegmentView) -> String {
    let records = segment.lsns.map(|(first, last)| format!("{first} to {last}"));
    let times = segment.times.map(|(first, last)| format!(", {} to {}", time(first), time(last)));
    format!(
        "{:24}  {:>11}  {:>9}  {:>9}  {:>11}  {}{}",
        segment.name,
        segment.bytes,
        segment.records,
        segment.live,
        segment.live_bytes,
        records.unwrap_or_else(|| if segment.is_aside { "put aside".into() } else { "free".into() }),
        times.unwrap_or_default(),
    )
}

fn record_in_text(record: &RecordView) -> String {
    let mut lines = vec![format!(
        "record {}  {}  byte {}  {} bytes  {}",
        record.lsn,
        record.file,
        record.offset,
        record.bytes,
        time(record.time)
    )];
    if record.resumes {
        lines.push("  the store was opened".to_owned());
    }
    if record.damaged > 0 {
        lines.push(format!("  {} of {} bodies are damaged", record.damaged, record.messages));
    }
    lines.extend(record.commands.iter().map(|command| format!("  {}", tame(command))));
    lines.join("\n")
}

fn overview_in_json(overview: &Overview) -> Value {
    json!({
        "state": overview.state.as_ref().map(state_in_json),
        "current": overview.not_current.is_none(),
        "flaws": overview.flaws,
        "queues": overview.queues.iter().map(queue_in_json).collect::<Vec<_>>(),
        "segments": overview.segments.iter().map(segment_in_json).collect::<Vec<_>>(),
        "otherFiles": overview.others,
    })
}

fn state_in_json(state: &StateView) -> Value {
    let applied = state.applied.map(
        |(segment, offset, lsn)| json!({"segment": format!("{segment:016x}"), "byte": offset, "record": lsn}),
    );
    let table =
        |(name, rows, bytes): &(String, u64, u64)| json!({"name": name, "rows": rows, "bytes": bytes});
    json!({
        "format": state.format, "bytes": state.bytes, "salt": state.salt, "nextMessage": state.next_seq,
        "nextDelivery": state.next_epoch, "nextQueue": state.next_queue, "lastCommit": state.clock.map(time),
        "applied": applied, "tables": state.tables.iter().map(table).collect::<Vec<_>>(),
    })
}

fn queue_in_json(queue: &QueueView) -> Value {
    let counts = queue.counts;
    json!({
        "number": queue.id.0, "queue": queue.name, "generation": queue.generation, "paused": queue.is_paused,
        "deleting": queue.is_closed, "ready": counts.ready, "delayed": counts.delayed, "inFlight": counts.in_flight,
        "dead": counts.dead, "bytes": counts.bytes, "settings": settings(queue),
    })
}

fn settings(queue: &QueueView) -> Value {
    let settings = &queue.settings;
    json!({
        "ackTimeoutMs": settings.ack_timeout_ms, "maxProcessingMs": settings.max_processing_ms,
        "maxAttempts": settings.max_attempts, "backoff": format!("{:?}", settings.backoff.policy),
        "backoffMinMs": settings.backoff.min_ms, "backoffMaxMs": settings.backoff.max_ms,
        "maxMessages": settings.max_messages, "maxBytes": settings.max_bytes,
        "maxMessageBytes": settings.max_message_bytes, "maxInFlight": settings.max_in_flight,
        "deadMs": settings.dead_ms, "dedupWindowMs": settings.dedup_window_ms,
        "expired": format!("{:?}", settings.expired), "priorityStepMs": settings.priority_step_ms,
    })
}

fn segment_in_json(segment: &SegmentView) -> Value {
    json!({
        "segment": format!("{:016x}", segment.number), "file": segment.name, "aside": segment.is_aside,
        "bytes": segment.bytes, "used": segment.used, "records": segment.records,
        "firstRecord": segment.lsns.map(|(first, _)| first), "lastRecord": segment.lsns.map(|(_, last)| last),
        "firstTime": segment.times.map(|(first, _)| time(first)),
        "lastTime": segment.times.map(|(_, last)| time(last)),
        "live": segment.live, "liveBytes": segment.live_bytes,
    })
}

fn record_in_json(record: &RecordView) -> Value {
    json!({
        "record": record.lsn, "file": record.file, "byte": record.offset, "bytes": record.bytes,
        "time": time(record.time), "commands": record.commands, "messages": record.messages,
        "damaged": record.damaged, "opened": record.resumes,
    })
}
