//! Messages, one by one, for a file that can be sent again.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;

use super::checkpoint::Checkpoint;
use super::payloads::{Lies, Payloads};
use super::segments::{self, Found, Segment};
use super::state::State;
use super::{Offline, OfflineError};
use crate::command::{Available, Command, NewMessage};
use crate::message::{
    Attempt, DeadReason, Location, MessageId, Payload, Priority, QueueId, Row, Seq, Stage, State as Word,
};
use crate::store::codec::read_payload;
use crate::store::encoding::Reader;
use crate::time::Timestamp;

/// Where messages are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What a broker would have: the last checkpoint and what the log has behind it.
    State,
    /// Every send that is still in the log, also in segments that were put aside, whether the state knows it or not.
    Log,
}

/// Which messages.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only of the queue with this name (`namespace/name`); `None`: of all.
    pub queue: Option<String>,
    /// Only in these states; empty: in any. With [`Source::Log`] one that the state does not know is in none.
    pub states: Vec<Word>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its name; `None`: the state does not know it.
    pub id: Option<MessageId>,
    /// Where the log has it: segment and byte. Names it among all of a store.
    pub place: (u64, u32),
    /// Checksum of the payload that was sent.
    pub crc: u32,
    /// Its queue; `#3` when only the number is known.
    pub queue: String,
    /// `None`: the state does not know it. It was settled, purged or lost.
    pub state: Option<Word>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Failed attempts.
    pub attempts: u32,
    /// Times handed out.
    pub deliveries: u32,
    /// The newest failed attempts, newest first.
    pub history: Vec<Attempt>,
    /// Why it is Dead.
    pub dead_reason: Option<DeadReason>,
    /// Not to be handed out before.
    pub delayed_until: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Its own limit of attempts.
    pub max_attempts: Option<u32>,
    /// How urgent it is.
    pub priority: Priority,
    /// Length of the body that was sent.
    pub body_bytes: u64,
    /// What the sender gave. Of a damaged one what lies there now, as far as it makes sense.
    pub payload: Payload,
    /// The payload is not what was sent, or not there.
    pub is_damaged: bool,
}

type Tell<'a> = dyn FnMut(Exported) -> io::Result<()> + 'a;

impl Offline {
    /// Tells every wanted message, in stored order. Returns why it is not all: what is damaged, or what the log has that could
    /// not be applied.
    pub fn export(
        &self,
        from: Source,
        wanted: &Wanted,
        tell: &mut Tell<'_>,
    ) -> Result<Vec<String>, OfflineError> {
        let files = segments::all(self)?;
        let mut flaws = 0u64;
        let opened = Checkpoint::open(&*self.disk, &mut |_| flaws += 1, &mut |_| {})?;
        let checkpoint = opened.map(|(checkpoint, _)| checkpoint);
        let mut missing = Vec::new();
        let state = match if flaws == 0 { State::current(self) } else { Err("it is damaged".to_owned()) } {
            Ok(state) => state,
            Err(why) => {
                missing.push(format!(
                    "the state is the one of the last checkpoint, as far as it can be read, without what the log has behind it: {why}"
                ));
                State::of_checkpoint(checkpoint.as_ref())
            }
        };
        let mut exporter =
            Exporter { state: &state, wanted, tell, payloads: Payloads::new(checkpoint.as_ref(), &files) };
        match from {
            Source::State => exporter.state()?,
            Source::Log => exporter.log(&files)?,
        }
        Ok(missing)
    }
}

struct Exporter<'a> {
    state: &'a State<'a>,
    wanted: &'a Wanted,
    tell: &'a mut Tell<'a>,
    payloads: Payloads<'a>,
}

/// A message of a record: what it is, and where its payload lies.
struct Sent {
    queue: QueueId,
    stored_at: Timestamp,
    message: NewMessage,
    location: Location,
    is_damaged: bool,
}

type Rows<'a> = Peekable<Box<dyn Iterator<Item = Result<(Seq, Row), OfflineError>> + 'a>>;

impl Exporter<'_> {
    fn state(&mut self) -> Result<(), OfflineError> {
        for row in self.state.rows() {
            let (seq, row) = row?;
            if self.wants(row.queue, Some(row.state())) {
                let (payload, is_damaged) = match self.payloads.read(row.location)? {
                    Lies::Whole(payload) => (payload, false),
                    Lies::Damaged(bytes) => (guess(&bytes).unwrap_or_default(), true),
                    Lies::Missing(_) => (Payload::default(), true),
                };
                let told = self.known(seq, &row, payload, is_damaged);
                (self.tell)(told).map_err(OfflineError::Told)?;
            }
        }
        Ok(())
    }

    /// Rows and sends are in the same order: where payloads lie grows with the places of messages.
    fn log(&mut self, files: &[Segment]) -> Result<(), OfflineError> {
        let mut rows = self.state.rows().peekable();
        let mut number = None;
        for file in files.iter().filter(|file| number.replace(file.number) != Some(file.number)) {
            let same = files.iter().filter(|other| other.number == file.number);
            for sent in sends_of(same)? {
                let row = row_at(&mut rows, sent.location)?;
                self.sent(sent, row)?;
            }
        }
        Ok(())
    }

    fn sent(&mut self, sent: Sent, row: Option<(Seq, Row)>) -> Result<(), OfflineError> {
        let Sent { queue, stored_at, message, location, is_damaged } = sent;
        if !self.wants(queue, row.as_ref().map(|(_, row)| row.state())) {
            return Ok(());
        }
        let told = match row {
            Some((seq, row)) => self.known(seq, &row, message.payload, is_damaged),
            None => Exported {
                id: None,
                place: (location.segment, location.offset),
                crc: location.crc,
                queue: self.state.queue_name(queue),
                state: None,
                stored_at,
                attempts: 0,
                deliveries: 0,
                history: Vec::new(),
                dead_reason: None,
                delayed_until: available_at(stored_at, message.available),
                expires_at: message.ttl_ms.map(|ttl_ms| stored_at.plus_ms(ttl_ms)),
                max_attempts: message.max_attempts,
                priority: message.priority,
                body_bytes: message.payload.body.len() as u64,
                payload: message.payload,
                is_damaged,
            },
        };
        (self.tell)(told).map_err(OfflineError::Told)
    }

    fn wants(&self, queue: QueueId, state: Option<Word>) -> bool {
        let Wanted { queue: name, states } = self.wanted;
        name.as_ref().is_none_or(|name| self.state.queue_name(queue) == *name)
            && (states.is_empty() || state.is_some_and(|state| states.contains(&state)))
    }

    fn known(&self, seq: Seq, row: &Row, payload: Payload, is_damaged: bool) -> Exported {
        let (dead_reason, delayed_until) = match row.stage {
            Stage::Dead { reason, .. } => (Some(reason), None),
            Stage::Delayed { until } => (None, Some(until)),
            Stage::Ready | Stage::InFlight(_) => (None, None),
        };
        Exported {
            id: self.state.id(seq, row),
            place: (row.location.segment, row.location.offset),
            crc: row.location.crc,
            queue: self.state.queue_name(row.queue),
            state: Some(row.state()),
            stored_at: row.stored_at,
            attempts: row.attempts,
            deliveries: row.deliveries,
            history: row.history.clone(),
            dead_reason,
            delayed_until,
            expires_at: row.expires_at,
            max_attempts: row.max_attempts,
            priority: row.priority,
            body_bytes: row.body_bytes,
            payload,
            is_damaged,
        }
    }
}

/// The row whose payload lies there; rows before it are passed over.
fn row_at(rows: &mut Rows<'_>, wanted: Location) -> Result<Option<(Seq, Row)>, OfflineError> {
    let place = |location: Location| (location.segment, location.offset);
    loop {
        match rows.peek() {
            Some(Ok((_, row))) if place(row.location) > place(wanted) => return Ok(None),
            None => return Ok(None),
            Some(_) => {}
        }
        match rows.next().transpose()? {
            Some((seq, row)) if place(row.location) == place(wanted) => return Ok(Some((seq, row))),
            _ => {}
        }
    }
}

/// The sends of all files of one segment, by their places: of what is in several, one that is not damaged.
fn sends_of<'a>(files: impl Iterator<Item = &'a Segment>) -> io::Result<Vec<Sent>> {
    let mut sends: BTreeMap<u32, Sent> = BTreeMap::new();
    for file in files {
        segments::each_record(file, &mut |found| {
            for sent in sends_in(found) {
                let offset = sent.location.offset;
                if sends.get(&offset).is_none_or(|before| before.is_damaged) {
                    sends.insert(offset, sent);
                }
            }
        })?;
    }
    Ok(sends.into_values().collect())
}

fn sends_in(found: &Found) -> Vec<Sent> {
    let batch = &found.decoded.batch;
    let messages = batch.commands.iter().flat_map(messages_of);
    let sends = messages.zip(&found.decoded.blobs).map(|((queue, message), blob)| {
        let location = Location {
            segment: found.at.segment,
            offset: found.at.offset + blob.offset,
            len: blob.len,
            crc: blob.crc,
        };
        let bytes = found.bytes.slice(blob.offset as usize..(blob.offset + blob.len) as usize);
        let is_damaged = crc32c::crc32c(&bytes) != blob.crc;
        let mut message = message.clone();
        if is_damaged && let Some(payload) = guess(&bytes) {
            message.payload = payload;
        }
        Sent { queue, stored_at: batch.now, message, location, is_damaged }
    });
    sends.collect()
}

/// In the order of the payloads.
fn messages_of(command: &Command) -> Vec<(QueueId, &NewMessage)> {
    fn of(queue: QueueId, messages: &[NewMessage]) -> impl Iterator<Item = (QueueId, &NewMessage)> {
        messages.iter().map(move |message| (queue, message))
    }
    match command {
        Command::Send(send) => of(send.queue, &send.messages).collect(),
        Command::Commit(commit) => {
            commit.send.iter().flat_map(|outgoing| of(outgoing.queue, &outgoing.messages)).collect()
        }
        _ => Vec::new(),
    }
}

/// What damaged bytes say, if they still make sense.
fn guess(bytes: &bytes::Bytes) -> Option<Payload> {
    let mut input = Reader::over(bytes);
    let payload = read_payload(&mut input, |body| bytes.slice_ref(body))?;
    input.end(payload)
}

fn available_at(stored_at: Timestamp, available: Available) -> Option<Timestamp> {
    match available {
        Available::Now => None,
        Available::After(ms) => Some(stored_at.plus_ms(ms)),
        Available::At(at) => Some(at),
    }
}
