//! What is in a store, without what is in its messages.

use std::collections::BTreeMap;
use std::io;

use super::checkpoint::{Checkpoint, TableSize};
use super::scan::{Met, Scan};
use super::segments::{self, Found, Segment};
use super::state::State;
use super::{Offline, OfflineError};
use crate::command::Command;
use crate::message::{QueueId, Row};
use crate::messages::Counts;
use crate::moving::{Place, Placement};
use crate::settings::Settings;
use crate::store::codec;
use crate::store::tables::FILE;
use crate::task::Task;
use crate::time::Timestamp;

/// A store, as a whole.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Of state.redb; `None` when that cannot be read.
    pub state: Option<StateView>,
    /// Why the queues are shown as of the last checkpoint, without what the log has behind it.
    pub not_current: Option<String>,
    /// By name.
    pub queues: Vec<QueueView>,
    /// By number.
    pub segments: Vec<SegmentView>,
    /// Pieces that cannot be believed: `verify` tells which.
    pub flaws: u64,
    /// Other files, such as what was put aside.
    pub others: Vec<String>,
}

/// The state as of the last checkpoint.
#[derive(Clone, Debug)]
pub struct StateView {
    /// Of all its tables.
    pub format: u8,
    /// Length of the file.
    pub bytes: u64,
    /// Keeps the message ids of shards apart.
    pub salt: Option<u32>,
    /// Places of messages that were given out, plus 1.
    pub next_seq: Option<u64>,
    /// Deliveries that were begun, plus 1; also the fencing token.
    pub next_epoch: Option<u64>,
    /// Numbers of queues that were given out, plus 1.
    pub next_queue: Option<u32>,
    /// The time of the last commit.
    pub clock: Option<Timestamp>,
    /// Where the log goes on behind it: segment, byte, number of the record.
    pub applied: Option<(u64, u32, u64)>,
    /// Each with rows and bytes of its pages.
    pub tables: Vec<(String, u64, u64)>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Its number.
    pub id: QueueId,
    /// `namespace/name`.
    pub name: String,
    /// Of its settings.
    pub generation: u64,
    /// Somebody paused it.
    pub is_paused: bool,
    /// It is being deleted.
    pub is_closed: bool,
    /// Its rules.
    pub settings: Settings,
    /// Its messages.
    pub counts: Counts,
}

/// A segment of the log.
#[derive(Clone, Debug, Default)]
pub struct SegmentView {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub name: String,
    /// A broker put it aside.
    pub is_aside: bool,
    /// Length of the file.
    pub bytes: u64,
    /// Records that can be read.
    pub records: u64,
    /// Of these records, the first and the last.
    pub lsns: Option<(u64, u64)>,
    /// When these happened.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Bytes that hold these records.
    pub used: u64,
    /// Messages whose body lies here.
    pub live: u64,
    /// Bytes of these bodies with their headers.
    pub live_bytes: u64,
}

/// A record of the log.
#[derive(Clone, Debug)]
pub struct RecordView {
    /// Its number.
    pub lsn: u64,
    /// Its segment's file.
    pub file: String,
    /// Where it begins.
    pub offset: u32,
    /// With its payloads.
    pub bytes: u64,
    /// When it happened.
    pub time: Timestamp,
    /// Its commands, each in a line.
    pub commands: Vec<String>,
    /// Messages that it sends.
    pub messages: u64,
    /// Of these, bodies that fail their checksums.
    pub damaged: u64,
    /// The store was opened just before.
    pub resumes: bool,
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Looked {
    /// All of a segment.
    Segment(u64),
    /// The one with this number, or several where one was put aside.
    Record(u64),
}

impl Offline {
    /// What is there, counted.
    pub fn inspect(&self) -> Result<Overview, OfflineError> {
        let files = segments::all(self)?;
        let mut flaws = 0;
        let opened = Checkpoint::open(&*self.disk, &mut |_| flaws += 1, &mut |_| {})?;
        let checkpoint = opened.as_ref().map(|(checkpoint, _)| checkpoint);
        let (state, not_current) = match State::current(self) {
            _ if flaws > 0 => (State::of_checkpoint(checkpoint), Some("state.redb is damaged".to_owned())),
            Ok(state) => (state, None),
            Err(why) => (State::of_checkpoint(checkpoint), Some(why)),
        };
        let (queues, live) = count(&state, checkpoint)?;
        let applied = checkpoint.and_then(|checkpoint| checkpoint.kept.applied);
        let mut views: BTreeMap<(u64, bool), SegmentView> =
            files.iter().map(|file| ((file.number, file.is_aside), SegmentView::of(file))).collect();
        Scan::new(applied, |met| {
            if let Met::Record(segment, found) = met
                && let Some(view) = views.get_mut(&(segment.number, false))
            {
                view.add(&found);
            }
            Ok(())
        })
        .run(&files)?;
        for (number, (messages, bytes)) in live {
            if let Some(view) = views.get_mut(&(number, false)) {
                (view.live, view.live_bytes) = (messages, bytes);
            }
        }
        Ok(Overview {
            state: opened.map(|(checkpoint, sizes)| self.state_view(&checkpoint, &sizes)).transpose()?,
            not_current,
            queues,
            segments: views.into_values().collect(),
            flaws,
            others: self.others(&files)?,
        })
    }

    /// Records that can be read.
    pub fn records(
        &self,
        looked: Looked,
        tell: &mut dyn FnMut(RecordView) -> io::Result<()>,
    ) -> Result<(), OfflineError> {
        let files = segments::all(self)?;
        for file in &files {
            if matches!(looked, Looked::Segment(number) if number != file.number) {
                continue;
            }
            let mut told = Ok(());
            segments::each_record(file, &mut |found| {
                if matches!(looked, Looked::Record(lsn) if lsn != found.at.lsn) || told.is_err() {
                    return;
                }
                told = tell(RecordView::of(file, found));
            })?;
            told.map_err(OfflineError::Told)?;
        }
        Ok(())
    }

    fn state_view(&self, checkpoint: &Checkpoint, sizes: &[TableSize]) -> io::Result<StateView> {
        let meta = checkpoint.kept.meta;
        let tables = sizes.iter().map(|size| (size.name.clone(), size.rows, size.bytes));
        Ok(StateView {
            format: codec::FORMAT,
            bytes: self.disk.open(FILE)?.len()?,
            salt: meta.map(|meta| meta.salt),
            next_seq: meta.map(|meta| meta.next_seq),
            next_epoch: meta.map(|meta| meta.next_epoch),
            next_queue: meta.map(|meta| meta.next_queue),
            clock: meta.map(|meta| meta.clock),
            applied: checkpoint.kept.applied.map(|applied| (applied.segment, applied.offset, applied.lsn)),
            tables: tables.collect(),
        })
    }

    fn others(&self, files: &[Segment]) -> io::Result<Vec<String>> {
        let is_shown = |name: &String| name == FILE || files.iter().any(|file| file.name == *name);
        let mut others: Vec<String> = self.disk.list()?.into_iter().filter(|name| !is_shown(name)).collect();
        others.sort();
        Ok(others)
    }
}

/// Messages of each queue, and of each segment with the bytes of their payloads.
type Live = BTreeMap<u64, (u64, u64)>;

fn count(state: &State<'_>, checkpoint: Option<&Checkpoint>) -> Result<(Vec<QueueView>, Live), OfflineError> {
    let (mut counts, mut live) = (BTreeMap::<QueueId, Counts>::new(), Live::new());
    for row in state.rows() {
        let (_, row): (_, Row) = row?;
        counts.entry(row.queue).or_default().add(&row);
        if checkpoint.is_some_and(|checkpoint| checkpoint.has_moved(row.location.segment)) {
            continue;
        }
        let (messages, bytes) = live.entry(row.location.segment).or_default();
        *messages += 1;
        *bytes += u64::from(row.location.len);
    }
    let view = |(id, record): (&QueueId, &crate::store::QueueRecord)| QueueView {
        id: *id,
        name: record.name.clone(),
        generation: record.generation,
        is_paused: record.is_paused,
        is_closed: record.is_closed,
        settings: record.settings.clone(),
        counts: counts.get(id).copied().unwrap_or_default(),
    };
    let mut queues: Vec<QueueView> = state.queues.iter().map(view).collect();
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((queues, live))
}

impl SegmentView {
    fn of(file: &Segment) -> Self {
        let (number, is_aside, bytes) = (file.number, file.is_aside, file.len);
        Self { number, name: file.name.clone(), is_aside, bytes, ..Self::default() }
    }

    fn add(&mut self, found: &Found) {
        let (lsn, time) = (found.at.lsn, found.decoded.batch.now);
        self.records += 1;
        self.used += found.bytes.len() as u64;
        self.lsns = Some((self.lsns.map_or(lsn, |(first, _)| first), lsn));
        self.times = Some((self.times.map_or(time, |(first, _)| first), time));
    }
}

impl RecordView {
    fn of(file: &Segment, found: &Found) -> Self {
        let batch = &found.decoded.batch;
        let mut commands: Vec<String> = batch.commands.iter().map(describe).collect();
        if !batch.corrupt.is_empty() {
            commands.push(format!("found corrupt: {} messages", batch.corrupt.len()));
        }
        Self {
            lsn: found.at.lsn,
            file: file.name.clone(),
            offset: found.at.offset,
            bytes: found.bytes.len() as u64,
            time: batch.now,
            commands,
            messages: found.decoded.blobs.len() as u64,
            damaged: found.decoded.damaged as u64,
            resumes: batch.resumes,
        }
    }
}

/// Without receipts, keys and bodies.
fn describe(command: &Command) -> String {
    match command {
        Command::Configure(configure) => {
            format!("configure {} to generation {}", configure.name, configure.generation)
        }
        Command::Pause(pause) if pause.paused => format!("pause queue {}", pause.queue.0),
        Command::Pause(pause) => format!("resume queue {}", pause.queue.0),
        Command::Delete(delete) => format!("delete queue {}", delete.queue.0),
        Command::Send(send) => {
            let bytes: usize = send.messages.iter().map(|message| message.payload.body.len()).sum();
            format!("send {} messages of {bytes} bytes to queue {}", send.messages.len(), send.queue.0)
        }
        Command::Receive(receive) => {
            format!("receive up to {} messages of queue {}", receive.max_messages, receive.queue.0)
        }
        Command::HandOver(hand_over) => {
            format!("hand over {} deliveries of queue {}", hand_over.receipts.len(), hand_over.queue.0)
        }
        Command::Settle(settle) => {
            format!("settle {} deliveries of queue {}", settle.settlements.len(), settle.queue.0)
        }
        Command::Extend(extend) => {
            format!("extend {} deliveries of queue {}", extend.receipts.len(), extend.queue.0)
        }
        Command::Commit(commit) => {
            let settled: usize = commit.settle.iter().map(|settle| settle.settlements.len()).sum();
            let sent: usize = commit.send.iter().map(|outgoing| outgoing.messages.len()).sum();
            format!("commit {settled} settlements and {sent} messages")
        }
        Command::Cancel(cancel) => {
            format!("cancel {} messages of queue {}", cancel.ids.len(), cancel.queue.0)
        }
        Command::Redrive(selection) => format!("redrive messages of queue {}", selection.queue.0),
        Command::Purge(selection) => format!("purge messages of queue {}", selection.queue.0),
        Command::Task(Task { queue, id, cancel: true, .. }) => {
            format!("end task {} of queue {}", id.uid, queue.0)
        }
        Command::Task(Task { queue, id, has_begun: false, .. }) => {
            format!("begin task {} of queue {}", id.uid, queue.0)
        }
        Command::Task(Task { queue, id, .. }) => format!("go on with task {} of queue {}", id.uid, queue.0),
        Command::Place(_)
        | Command::Arrive(_)
        | Command::Import(_)
        | Command::Depart(_)
        | Command::Forget(_) => describe_move(command),
    }
}

fn describe_move(command: &Command) -> String {
    match command {
        Command::Place(Place { queue, placement: Placement { generation, ordinal, from, to } }) => {
            format!(
                "be shard {ordinal} of queue {}, from {from} to {to} shards, generation {generation}",
                queue.0
            )
        }
        Command::Arrive(arrive) => {
            format!("prepare for messages of shard {} for queue {}", arrive.source.ordinal, arrive.queue.0)
        }
        Command::Import(import) => {
            let (messages, source) = (import.messages.len(), import.source);
            format!(
                "take page {} of shard {source}, {messages} messages, into queue {}",
                import.transfer, import.queue.0
            )
        }
        Command::Depart(depart) => {
            format!("choose up to {} messages of queue {} to go", depart.max_messages, depart.queue.0)
        }
        Command::Forget(forget) => {
            format!(
                "remove page {} of queue {}, which is at shard {}",
                forget.transfer, forget.queue.0, forget.target
            )
        }
        _ => String::new(),
    }
}
