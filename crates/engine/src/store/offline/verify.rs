//! Whether a store is whole: every byte that is in use is read, and held against what it must be.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::checkpoint::{Checkpoint, Flaw, key_name, places};
use super::database::BadPage;
use super::payloads::{Lies, Payloads};
use super::scan::{Met, Next, Scan};
use super::segments::{self, Found, Segment};
use super::state::{State, check_redb};
use super::{Offline, OfflineError};
use crate::message::{Location, MessageId, QueueId, Row, Seq};
use crate::messages::Counts;
use crate::store::log::name_of;
use crate::store::tables::FILE;

/// Payloads found damaged while reading the log that are remembered, so that the message is named that has them. There are more
/// only when a whole disk is gone.
const MAX_REMEMBERED: usize = 100_000;

/// What is told while a store is verified.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something is wrong.
    Finding(Finding),
    /// Nothing is wrong, but somebody may want to know.
    Note(String),
    /// So many bytes of so many were read.
    Progress(u64, u64),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How sure that is.
    pub severity: Severity,
    /// A word for programs.
    pub kind: &'static str,
    /// In which file.
    pub file: String,
    /// Which bytes of it.
    pub bytes: Option<Range<u64>>,
    /// For people.
    pub what: String,
    /// The messages that are hit, as far as they are known.
    pub messages: Vec<Hit>,
}

/// How sure it is that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something was there and is not what it was.
    Damage,
    /// It may be damage, or what a crash leaves of something that was never confirmed.
    Doubt,
}

/// A message that something is wrong with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its name; `None` when what names are made of is lost.
    pub id: Option<MessageId>,
    /// Its place in stored order.
    pub seq: Seq,
    /// Its queue.
    pub queue: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of the log.
    pub records: u64,
    /// In the log, of messages that are there and that are gone.
    pub payloads: u64,
    /// Of all queues.
    pub messages: u64,
    /// Of both severities.
    pub findings: u64,
}

type Tell<'a> = dyn FnMut(Event) -> io::Result<()> + 'a;

impl Offline {
    /// Reads all of it and tells what is wrong.
    pub fn verify(&self, tell: &mut Tell<'_>) -> Result<Summary, OfflineError> {
        let segments = segments::all(self)?;
        let mut total = segments.iter().map(|segment| segment.len).sum::<u64>();
        total += self.disk.open(FILE).and_then(|file| file.len()).unwrap_or(0);
        let mut verifier = Verifier {
            tell,
            summary: Summary::default(),
            damaged: BTreeMap::new(),
            read: 0,
            total,
            failed: None,
        };
        verifier.run(self, &segments)?;
        Ok(verifier.summary)
    }
}

struct Verifier<'a> {
    tell: &'a mut Tell<'a>,
    summary: Summary,
    /// Payloads that are not what was written: by segment and offset, how long, and in which record.
    damaged: BTreeMap<(u64, u32), (u32, u64)>,
    read: u64,
    total: u64,
    /// Telling failed; the rest is only awaited.
    failed: Option<io::Error>,
}

impl Verifier<'_> {
    fn run(&mut self, offline: &Offline, segments: &[Segment]) -> Result<(), OfflineError> {
        self.leftovers(offline)?;
        let (checkpoint, is_whole) = self.state_file(offline)?;
        let end = self.log(checkpoint.as_ref(), segments)?;
        self.log_end(checkpoint.as_ref(), end);
        let state = match is_whole.then(|| self.engine(offline)).flatten() {
            Some(state) => state,
            None => State::of_checkpoint(checkpoint.as_ref()),
        };
        for damage in state.damage() {
            self.say(Event::Note(format!("a broker goes on without it, or has: {damage}")));
        }
        self.rows(&state, &mut Payloads::new(checkpoint.as_ref(), segments))?;
        self.without_message();
        self.failed.take().map_or(Ok(()), |error| Err(OfflineError::Told(error)))
    }

    fn say(&mut self, event: Event) {
        if self.failed.is_none() {
            self.failed = (self.tell)(event).err();
        }
    }

    fn find(&mut self, finding: Finding) {
        self.summary.findings += 1;
        self.say(Event::Finding(finding));
    }

    fn advance(&mut self, bytes: u64) {
        self.read += bytes;
        let (read, total) = (self.read.min(self.total), self.total);
        self.say(Event::Progress(read, total));
    }

    fn leftovers(&mut self, offline: &Offline) -> io::Result<()> {
        for name in offline.disk.list()? {
            let what = match name.as_str() {
                "state.new" => {
                    "a crash left it while a state was made or copied; the next opening removes it"
                }
                "state.suspect" => "a sync of state.redb failed; the next opening copies the file",
                name if name.contains("damaged") => "a copy of a segment that a broker found damaged",
                _ => continue,
            };
            self.say(Event::Note(format!("{name}: {what}")));
        }
        Ok(())
    }

    fn state_file(&mut self, offline: &Offline) -> Result<(Option<Checkpoint>, bool), OfflineError> {
        let (mut flaws, mut read) = (Vec::new(), 0);
        let opened = Checkpoint::open(&*offline.disk, &mut |flaw| flaws.push(flaw), &mut |used| {
            read += used.end - used.start;
        })?;
        self.advance(read);
        let is_whole = !flaws.iter().any(|flaw| !matches!(flaw, Flaw::Header(_)));
        let checkpoint = opened.map(|(checkpoint, _)| checkpoint);
        flaws.into_iter().for_each(|flaw| self.find(of_state(flaw)));
        if let Some(checkpoint) = &checkpoint {
            checkpoint.wrong_summaries(&mut |no| {
                let what = format!(
                    "what is known of page {no} of messages is not what is in it; a broker makes it anew"
                );
                self.find(file_finding("index", what));
            })?;
        }
        if is_whole && let Err(what) = check_redb(offline) {
            self.find(file_finding("state", format!("redb does not accept it: {what}")));
            return Ok((checkpoint, false));
        }
        Ok((checkpoint, is_whole))
    }

    fn engine<'s>(&mut self, offline: &Offline) -> Option<State<'s>> {
        match State::current(offline) {
            Ok(state) => Some(state),
            Err(what) => {
                self.find(Finding {
                    file: String::new(),
                    ..file_finding("opening", format!("a broker could not open the store: {what}"))
                });
                None
            }
        }
    }

    fn log(
        &mut self,
        checkpoint: Option<&Checkpoint>,
        segments: &[Segment],
    ) -> Result<Option<Next>, OfflineError> {
        let applied = checkpoint.and_then(|checkpoint| checkpoint.kept.applied);
        let lsn = applied.map_or(0, |applied| applied.lsn);
        let mut last = None;
        let end = Scan::new(applied, |met| {
            if let Some((segment, found)) = last.take() {
                self.record(segment, &found, Severity::Damage);
            }
            match met {
                Met::Record(segment, found) => last = Some((segment, found)),
                other => self.find(of_log(other, lsn)),
            }
            Ok(())
        })
        .run(segments)?;
        if let Some((segment, found)) = last {
            // Behind the checkpoint nobody knows whether the last record was confirmed.
            let severity = if found.at.lsn < lsn { Severity::Damage } else { Severity::Doubt };
            self.record(segment, &found, severity);
        }
        Ok(end)
    }

    fn record(&mut self, segment: &Segment, found: &Found, severity: Severity) {
        self.summary.records += 1;
        self.summary.payloads += found.decoded.blobs.len() as u64;
        self.advance(found.bytes.len() as u64);
        if found.decoded.damaged == 0 {
            return;
        }
        for blob in &found.decoded.blobs {
            if blob.bytes(&found.bytes, &found.at, &segment.cover).is_some() {
                continue;
            }
            let offset = found.at.offset + blob.offset;
            if severity == Severity::Doubt || self.damaged.len() >= MAX_REMEMBERED {
                let what = format!("a message of record {}, the last one", found.at.lsn);
                self.find(payload_finding(segment, offset, blob.len, severity, &what));
            } else {
                self.damaged.insert((segment.number, offset), (blob.len, found.at.lsn));
            }
        }
    }

    fn log_end(&mut self, checkpoint: Option<&Checkpoint>, end: Option<Next>) {
        let Some(applied) = checkpoint.and_then(|checkpoint| checkpoint.kept.applied) else { return };
        let lsn = end.map_or(1, |end| end.lsn);
        if lsn < applied.lsn {
            let what = format!(
                "records {lsn} to {} are not there; state.redb has what they did, so that only their bodies can be lost",
                applied.lsn - 1
            );
            let file = name_of(applied.segment);
            self.find(Finding { file, ..file_finding("log", what) });
        }
    }

    fn rows(&mut self, state: &State<'_>, payloads: &mut Payloads<'_>) -> Result<(), OfflineError> {
        let mut counts: BTreeMap<QueueId, Counts> = BTreeMap::new();
        for row in state.rows() {
            let (seq, row) = row?;
            self.summary.messages += 1;
            counts.entry(row.queue).or_default().add(&row);
            self.row(state, seq, &row, payloads)?;
        }
        for (queue, counts) in counts {
            if state.counted(queue).is_some_and(|counted| counted != counts) {
                let name = state.queue_name(queue);
                self.find(file_finding(
                    "counts",
                    format!("the messages of {name} are not as many as are counted"),
                ));
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        state: &State<'_>,
        seq: Seq,
        row: &Row,
        payloads: &mut Payloads<'_>,
    ) -> Result<(), OfflineError> {
        let hit = Hit { id: state.id(seq, row), seq, queue: state.queue_name(row.queue) };
        if !state.queues.contains_key(&row.queue) || state.next_seq().is_some_and(|next| seq >= next) {
            let what = "a message has a queue or a place that was never given out".to_owned();
            self.find(Finding { messages: vec![hit.clone()], ..file_finding("row", what) });
        }
        let Location { segment, offset, len, .. } = row.location;
        let what = match payloads.read(row.location)? {
            Lies::Whole(payload) if payload.body.len() as u64 == row.body_bytes => return Ok(()),
            Lies::Whole(_) => "the body of a message is not as long as its row says".to_owned(),
            Lies::Damaged(_) => "the body of a message fails its checksum".to_owned(),
            Lies::Missing(why) => format!("the body of a message is missing: {why}"),
        };
        self.damaged.remove(&(segment, offset));
        let start = u64::from(offset);
        let file = payloads.file(row.location);
        self.find(Finding {
            severity: Severity::Damage,
            kind: "payload",
            bytes: (file != FILE).then(|| start..start + u64::from(len)),
            file,
            what,
            messages: vec![hit],
        });
        Ok(())
    }

    /// What is damaged and belongs to no message that is there.
    fn without_message(&mut self) {
        for ((segment, offset), (len, lsn)) in std::mem::take(&mut self.damaged) {
            let start = u64::from(offset);
            self.find(Finding {
                bytes: Some(start..start + u64::from(len)),
                file: name_of(segment),
                ..file_finding("payload", format!("the body of a message that is gone, of record {lsn}"))
            });
        }
    }
}

/// Damage of state.redb.
fn file_finding(kind: &'static str, what: String) -> Finding {
    Finding {
        severity: Severity::Damage,
        kind,
        file: FILE.to_owned(),
        bytes: None,
        what,
        messages: Vec::new(),
    }
}

fn payload_finding(segment: &Segment, offset: u32, len: u32, severity: Severity, of: &str) -> Finding {
    let start = u64::from(offset);
    Finding {
        severity,
        kind: "payload",
        file: segment.name.clone(),
        bytes: Some(start..start + u64::from(len)),
        what: format!("a body fails its checksum: {of}"),
        messages: Vec::new(),
    }
}

fn of_state(flaw: Flaw) -> Finding {
    match flaw {
        Flaw::File(why) => file_finding("state", format!("the state cannot be read: {why}")),
        Flaw::Header(suspicion) => Finding {
            severity: if suspicion.may_be_a_crash { Severity::Doubt } else { Severity::Damage },
            bytes: Some(suspicion.at),
            ..file_finding("header", suspicion.what.to_owned())
        },
        Flaw::Page(table, page) => {
            Finding { bytes: Some(page.at.clone()), ..file_finding("page", of_page(&table, &page)) }
        }
        Flaw::Row { table, key, at } => Finding {
            bytes: Some(at),
            ..file_finding("row", format!("a row of {table} fails its checksum or makes no sense: {key}"))
        },
        Flaw::Count { table, expected, found } => {
            file_finding("counts", format!("{table} has {found} rows, and should have {expected}"))
        }
        Flaw::Missing { table, key } => file_finding("row", format!("{table} {key} is not there")),
    }
}

fn of_page(table: &str, page: &BadPage) -> String {
    let why = page.why;
    if table.is_empty() {
        return format!(
            "a page of the list of tables cannot be believed: {why}; with it go the tables in it"
        );
    }
    let lost = match places(table, page) {
        Some(places) if places.start == 0 && places.end > u64::MAX / 4 => "all messages".to_owned(),
        Some(places) => format!("the messages with places {} to {}", places.start, places.end - 1),
        None => {
            let name = |key: &Option<Vec<u8>>, none: &str| {
                key.as_ref().map_or_else(|| none.to_owned(), |key| key_name(table, key))
            };
            format!(
                "its rows behind {} up to {}",
                name(&page.after, "the first"),
                name(&page.up_to, "the last")
            )
        }
    };
    format!("a page of {table} cannot be believed: {why}; with it go {lost}")
}

fn of_log(met: Met<'_>, applied: u64) -> Finding {
    let in_log = |kind, segment: &Segment, bytes, what| Finding {
        severity: Severity::Damage,
        kind,
        file: segment.name.clone(),
        bytes: Some(bytes),
        what,
        messages: Vec::new(),
    };
    let effects = |first: Option<u64>| match first {
        Some(first) if first < applied => "state.redb has what it did",
        Some(_) => "state.redb does not have what it did",
        None => "it is not known which",
    };
    match met {
        Met::Record(segment, found) => in_log("record", segment, 0..0, format!("record {}", found.at.lsn)),
        Met::Damaged { segment, from, to, first, next } => {
            let name = |lsn: Option<u64>| lsn.map_or_else(|| "?".to_owned(), |lsn| lsn.to_string());
            let end = to.map_or(segment.len, u64::from);
            let what = format!(
                "record {} cannot be read; the next one that can is {}; {}",
                name(first),
                name(next),
                effects(first)
            );
            in_log("record", segment, from.into()..end, what)
        }
        Met::Unchained { segment, at, expected } => {
            let what = format!("record {} does not follow the one before, which is {}", at.lsn, expected - 1);
            in_log("record", segment, at.offset.into()..segment.len, what)
        }
        Met::Torn { segment, from, lsn } => {
            let is_applied = lsn.is_some_and(|lsn| lsn < applied);
            let what = match lsn {
                Some(lsn) => format!("record {lsn} cannot be read, and none follows; {}", effects(Some(lsn))),
                None => "what lies there cannot be read".to_owned(),
            };
            let severity = if is_applied { Severity::Damage } else { Severity::Doubt };
            Finding { severity, ..in_log("record", segment, from.into()..segment.len, what) }
        }
        Met::Missing(number) => Finding {
            file: name_of(number),
            ..file_finding("segment", "the segment is not there, and the log goes on in it".to_owned())
        },
    }
}
