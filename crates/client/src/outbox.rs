//! What a producer has taken and not seen confirmed, over as many streams as that takes. No I/O.
//!
//! Rules, the same in every language's client:
//!
//! - The other side names the producer, and the name stays; batches keep their `seq`. After a broken stream what is not confirmed is said
//!   again under the same `seq`, so that nothing is stored twice.
//! - Nothing is said beyond the window of the other side.
//! - A message that was refused for the moment only is said again as part of a later batch, until its time is over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use ackwell_proto::v1::produce_request::Frame as Say;
use ackwell_proto::v1::produce_response::Frame as Told;
use ackwell_proto::v1::{
    Message, ProduceBatch, ProduceConfirm, ProduceOpen, ProduceRequest, ProduceWindow, SendResult,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::batch::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};
use crate::error::is_passing;
use crate::{Error, Sent};

/// Where a refusal has no hint of its own.
const SAY_AGAIN: Duration = Duration::from_millis(500);

/// A message that was taken.
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) bytes: usize,
    pub(crate) taken_at: Instant,
    pub(crate) confirm: oneshot::Sender<Result<Sent, Error>>,
    /// Its part of the producer's room, until it is confirmed.
    #[expect(dead_code, reason = "what it holds is given back when the entry goes")]
    pub(crate) room: [OwnedSemaphorePermit; 2],
}

impl Entry {
    fn tell(self, result: Result<Sent, Error>) {
        // Whoever waited may have gone.
        let _ = self.confirm.send(result);
    }
}

/// One producer of one queue.
pub(crate) struct Outbox {
    queue: String,
    /// Empty until the other side gave one: it knows then that nothing was sent under it.
    name: String,
    limit: Duration,
    window: Option<ProduceWindow>,
    waiting: VecDeque<Entry>,
    batches: BTreeMap<u64, Vec<Entry>>,
    /// Of `batches`, those not said yet on this stream.
    unsaid: VecDeque<u64>,
    refused: Vec<Entry>,
    seq: u64,
    said_messages: usize,
    said_bytes: usize,
    is_leaving: bool,
}

impl Outbox {
    pub(crate) fn new(queue: String, limit: Duration) -> Self {
        Self {
            queue,
            name: String::new(),
            limit,
            window: None,
            waiting: VecDeque::new(),
            batches: BTreeMap::new(),
            unsaid: VecDeque::new(),
            refused: Vec::new(),
            seq: 0,
            said_messages: 0,
            said_bytes: 0,
            is_leaving: false,
        }
    }

    /// Whether everything that was taken is confirmed or refused.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batches.is_empty() && self.refused.is_empty()
    }

    /// Whether the other side goes away and has answered everything.
    pub(crate) fn is_left(&self) -> bool {
        self.is_leaving && self.batches.is_empty()
    }

    /// Takes a message.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

    /// The first frame of a new stream.
    pub(crate) fn open(&mut self) -> ProduceRequest {
        (self.window, self.is_leaving) = (None, false);
        (self.said_messages, self.said_bytes) = (0, 0);
        self.unsaid = self.batches.keys().copied().collect();
        let open = ProduceOpen { queue: self.queue.clone(), producer: self.name.clone(), want_ids: true };
        ProduceRequest { frame: Some(Say::Open(open)) }
    }

    /// What is to be said next, if anything is and there is room for it.
    pub(crate) fn next_frame(&mut self) -> Option<ProduceRequest> {
        if self.is_leaving {
            return None;
        }
        let seq = self.next_batch(self.window?)?;
        let batch = &self.batches[&seq];
        self.said_messages += batch.len();
        self.said_bytes += bytes_of(batch);
        let messages = batch.iter().map(|entry| entry.message.clone()).collect();
        Some(ProduceRequest { frame: Some(Say::Batch(ProduceBatch { seq, messages })) })
    }

    fn next_batch(&mut self, window: ProduceWindow) -> Option<u64> {
        if let Some(seq) = self.unsaid.front() {
            let batch = &self.batches[seq];
            return self.fits(window, batch.len(), bytes_of(batch)).then(|| self.unsaid.pop_front())?;
        }
        let batch = self.cut(window);
        if batch.is_empty() {
            return None;
        }
        self.seq += 1;
        self.batches.insert(self.seq, batch);
        Some(self.seq)
    }

    fn cut(&mut self, window: ProduceWindow) -> Vec<Entry> {
        let (mut count, mut bytes) = (0, 0);
        for entry in self.waiting.iter().take(MAX_BATCH_MESSAGES) {
            let is_too_large = count > 0 && bytes + entry.bytes > MAX_BATCH_BYTES;
            if is_too_large || !self.fits(window, count + 1, bytes + entry.bytes) {
                break;
            }
            count += 1;
            bytes += entry.bytes;
        }
        self.waiting.drain(..count).collect()
    }

    /// Whether that many more may be on their way; one may always go alone.
    fn fits(&self, window: ProduceWindow, messages: usize, bytes: usize) -> bool {
        let max_bytes = if window.max_bytes == 0 { u64::MAX } else { window.max_bytes };
        let is_within = self.said_messages + messages <= window.max_messages as usize
            && (self.said_bytes + bytes) as u64 <= max_bytes;
        is_within || (self.said_messages == 0 && (messages == 1 || !self.unsaid.is_empty()))
    }

    /// Reads one frame of the other side; when what it refused for the moment is to be said again.
    pub(crate) fn take(&mut self, frame: Told) -> Option<Duration> {
        match frame {
            Told::Opened(opened) => (self.name, self.window) = (opened.producer, opened.window),
            Told::Window(window) => self.window = Some(window),
            Told::Confirm(confirm) => return self.confirm(confirm),
            Told::GoAway(_) => self.is_leaving = true,
        }
        None
    }

    fn confirm(&mut self, confirm: ProduceConfirm) -> Option<Duration> {
        let results = confirm.results.into_iter().map(|each| ((each.seq, each.index), each.result));
        let mut results: HashMap<_, _> = results.collect();
        let mut again = None;
        let unconfirmed = self.batches.split_off(&confirm.through_seq.saturating_add(1));
        for (seq, batch) in std::mem::replace(&mut self.batches, unconfirmed) {
            self.said_messages = self.said_messages.saturating_sub(batch.len());
            self.said_bytes = self.said_bytes.saturating_sub(bytes_of(&batch));
            for (index, entry) in (0_u32..).zip(batch) {
                let result = results.remove(&(seq, index)).flatten().unwrap_or_default();
                again = again.max(self.judge(entry, result));
            }
        }
        again
    }

    fn judge(&mut self, entry: Entry, result: SendResult) -> Option<Duration> {
        match result.error.map(Error::from) {
            Some(error) if is_passing(&error) && !self.is_late(&entry) => {
                self.refused.push(entry);
                return Some(error.retry_after().unwrap_or(SAY_AGAIN));
            }
            Some(error) => entry.tell(Err(error)),
            None => entry.tell(Ok(Sent { id: result.id, duplicate: result.duplicate })),
        }
        None
    }

    /// What could not be stored is said once more, before younger messages.
    pub(crate) fn say_again(&mut self) {
        for entry in self.refused.drain(..).rev() {
            self.waiting.push_front(entry);
        }
    }

    /// Whether something has been waiting for too long.
    pub(crate) fn has_late(&self) -> bool {
        let said = self.batches.values().flatten();
        said.chain(&self.refused).chain(&self.waiting).any(|entry| self.is_late(entry))
    }

    /// Gives up on everything: what was taken later cannot be confirmed before the oldest is.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.unsaid.clear();
        let said = std::mem::take(&mut self.batches).into_values().flatten();
        let others = self.refused.drain(..).chain(self.waiting.drain(..));
        said.chain(others).for_each(|entry| entry.tell(Err(error.clone())));
    }

    fn is_late(&self, entry: &Entry) -> bool {
        entry.taken_at.elapsed() > self.limit
    }
}

fn bytes_of(batch: &[Entry]) -> usize {
    batch.iter().map(|entry| entry.bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ackwell_proto::v1::{ItemError, ProduceOpened, ProduceResult};
    use tokio::sync::Semaphore;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn outbox(limit: Duration) -> Outbox {
        let mut outbox = Outbox::new("orders".to_owned(), limit);
        outbox.open();
        outbox
    }

    async fn push(outbox: &mut Outbox) -> oneshot::Receiver<Result<Sent, Error>> {
        let room = Arc::new(Semaphore::new(2));
        let permit = || Arc::clone(&room).acquire_owned();
        let room = [permit().await.unwrap(), permit().await.unwrap()];
        let (confirm, confirmed) = oneshot::channel();
        let taken_at = Instant::now();
        outbox.push(Entry { message: Message::default(), bytes: 1, taken_at, confirm, room });
        confirmed
    }

    fn opened(max_messages: u32) -> Told {
        let window = Some(ProduceWindow { max_messages, max_bytes: 0 });
        Told::Opened(ProduceOpened { producer: "p".to_owned(), window })
    }

    fn confirm(seq: u64, results: impl IntoIterator<Item = SendResult>) -> Told {
        let result = |(index, result)| ProduceResult { seq, index, result: Some(result) };
        let results = (0..).zip(results).map(result).collect();
        Told::Confirm(ProduceConfirm { through_seq: seq, results })
    }

    fn batch(outbox: &mut Outbox) -> Option<ProduceBatch> {
        match outbox.next_frame()?.frame? {
            Say::Batch(batch) => Some(batch),
            Say::Open(open) => panic!("{open:?}"),
        }
    }

    /// Promise: what is sent again after a broken connection is known again, and not stored twice, in a smaller window too.
    #[tokio::test]
    async fn unconfirmed_batch_keeps_its_seq_on_the_next_stream() {
        let mut outbox = outbox(LIMIT);
        outbox.take(opened(100));
        let _first = push(&mut outbox).await;
        let _second = push(&mut outbox).await;
        let first = batch(&mut outbox).unwrap();
        outbox.open();
        assert_eq!(batch(&mut outbox), None, "the window is not known yet");
        outbox.take(opened(1));
        assert_eq!(batch(&mut outbox), Some(first));
    }

    /// Promise: a producer slows down when it is told to, and confirms tell each message its id.
    #[tokio::test]
    async fn nothing_is_said_beyond_the_window() {
        let mut outbox = outbox(LIMIT);
        outbox.take(opened(2));
        let (first, second, _third) =
            (push(&mut outbox).await, push(&mut outbox).await, push(&mut outbox).await);
        assert_eq!(batch(&mut outbox).unwrap().messages.len(), 2);
        assert_eq!(batch(&mut outbox), None);
        let stored = |id: &str, duplicate| SendResult { id: id.to_owned(), duplicate, error: None };
        outbox.take(confirm(1, [stored("a", false), stored("b", true)]));
        assert_eq!(first.await.unwrap().unwrap(), Sent { id: "a".to_owned(), duplicate: false });
        assert_eq!(second.await.unwrap().unwrap(), Sent { id: "b".to_owned(), duplicate: true });
        assert_eq!(batch(&mut outbox).unwrap().messages.len(), 1);
    }

    /// Promise: a broker that is away for a moment is a pause; one that stays away is an error, in the end.
    #[tokio::test(start_paused = true)]
    async fn message_refused_for_the_moment_is_said_again_until_it_is_late() {
        let away = || {
            let error = ItemError { reason: "BROKER_UNAVAILABLE".to_owned(), ..ItemError::default() };
            SendResult { error: Some(error), ..SendResult::default() }
        };
        let mut outbox = outbox(LIMIT);
        outbox.take(opened(10));
        let confirmed = push(&mut outbox).await;
        batch(&mut outbox).unwrap();
        assert_eq!(outbox.take(confirm(1, [away()])), Some(SAY_AGAIN));
        outbox.say_again();
        assert_eq!(batch(&mut outbox).unwrap().seq, 2);
        tokio::time::advance(LIMIT * 2).await;
        assert_eq!(outbox.take(confirm(2, [away()])), None);
        assert_eq!(
            confirmed.await.unwrap().unwrap_err().reason(),
            Some(ackwell_proto::Reason::BrokerUnavailable)
        );
        assert!(outbox.is_idle());
    }
}
