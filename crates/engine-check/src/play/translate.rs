//! From what a history asks to commands with the ids and receipts of this play.

use ackwell_engine::command::{
    Available, Cancel, Commit, Configure, Delete, Extend, Filter, HandOver, NewMessage, Outcome, Outgoing,
    Pause, Receive, Selection, Send, Settle,
};
use ackwell_engine::message::{MessageId, Payload, QueueId, Seq};
use ackwell_engine::task::{Order, Task, TaskId};
use ackwell_engine::{Command, Settings, Timestamp};
use bytes::Bytes;

use super::{Play, START};
use crate::history::{Ask, Chore, Item, Pick, SLOTS, Sieve, Slot, Wish};

/// Receipts and ids that are picked from: older ones are used up.
const NEWEST: usize = 8;
/// What bodies are cut from.
static BODY: [u8; 200_000] = [b'x'; 200_000];

impl Play {
    pub(super) fn first_queues(&mut self) -> Vec<Command> {
        let settings = Settings { ack_timeout_ms: 10_000, ..Settings::default() };
        (0..SLOTS).map(|slot| self.configure(slot, settings.clone(), false)).collect()
    }

    /// A change that is stored in any case.
    pub(super) fn change_of_settings(&mut self) -> Command {
        self.generation += 1;
        let (name, generation) = ("shop/unused".to_owned(), self.generation);
        Command::Configure(Configure { name, generation, settings: Settings::default() })
    }

    pub(super) fn command(&mut self, ask: &Ask) -> Command {
        match ask.clone() {
            Ask::Configure { slot, settings, outdated } => self.configure(slot, *settings, outdated),
            Ask::Pause { slot, paused } => Command::Pause(Pause { queue: self.queue(slot), paused }),
            Ask::Delete { slot, max } => {
                Command::Delete(Delete { queue: self.queue(slot), max_messages: max })
            }
            Ask::Send { slot, items, batch, request } => {
                let (queue, messages) = (self.queue(slot), self.messages(&items));
                Command::Send(Send { queue, messages, batch, request_id: name_of(request) })
            }
            Ask::Receive { slot, receive } => self.receive(slot, &receive),
            Ask::HandOver { slot, picks } => {
                let queue = self.queue(slot);
                Command::HandOver(HandOver { queue, receipts: self.receipts_of(queue, &picks) })
            }
            Ask::Settle { slot, ends } => Command::Settle(self.settle(slot, &ends)),
            Ask::Extend { slot, picks, ack_ms } => {
                let queue = self.queue(slot);
                let receipts = self.receipts_of(queue, &picks);
                Command::Extend(Extend { queue, receipts, ack_timeout_ms: ack_ms })
            }
            Ask::Commit { settle, send, request } => self.commit(&settle, &send, request),
            Ask::Cancel { slot, picks } => {
                let queue = self.queue(slot);
                let ids = picks.iter().filter_map(|pick| self.id(queue, *pick)).collect();
                Command::Cancel(Cancel { queue, ids })
            }
            Ask::Redrive(sieve) => Command::Redrive(self.selection(&sieve)),
            Ask::Purge(sieve) => Command::Purge(self.selection(&sieve)),
            Ask::Task(chore) => Command::Task(self.task(chore)),
        }
    }

    fn configure(&mut self, slot: Slot, settings: Settings, outdated: bool) -> Command {
        self.generation += 1;
        let generation = if outdated { 1 } else { self.generation };
        Command::Configure(Configure { name: format!("shop/{slot}"), generation, settings })
    }

    fn commit(
        &mut self,
        settle: &[(Slot, Vec<(Pick, Outcome)>)],
        send: &[(Slot, Vec<Item>)],
        request: u64,
    ) -> Command {
        let settle = settle.iter().map(|(slot, ends)| self.settle(*slot, ends)).collect();
        let outgoing = |(slot, items): &(Slot, Vec<Item>)| Outgoing {
            queue: self.queue(*slot),
            messages: self.messages(items),
        };
        let send = send.iter().map(outgoing).collect();
        Command::Commit(Commit { settle, send, request_id: name_of(request) })
    }

    fn settle(&self, slot: Slot, ends: &[(Pick, Outcome)]) -> Settle {
        let queue = self.queue(slot);
        let end = |(pick, outcome): &(Pick, Outcome)| (self.receipt(queue, *pick), outcome.clone());
        Settle { queue, settlements: ends.iter().map(end).collect() }
    }

    fn receive(&self, slot: Slot, wish: &Wish) -> Command {
        let Wish { max_messages, max_bytes, oversized, ack_ms, handover, request } = wish.clone();
        Command::Receive(Receive {
            queue: self.queue(slot),
            max_messages,
            max_bytes,
            oversized,
            ack_timeout_ms: ack_ms,
            consumer: format!("consumer-{max_messages}"),
            request_id: name_of(request),
            handover,
        })
    }

    fn selection(&self, sieve: &Sieve) -> Selection {
        let queue = self.queue(sieve.slot);
        let stored_at = |pick| self.id(queue, pick).map_or(START, stored_at);
        let filter = Filter {
            states: sieve.states.clone(),
            ordering_key: sieve.ordering_key.to_owned(),
            fairness_key: sieve.fairness_key.to_owned(),
            headers: sieve.is_odd.then(|| ("odd".to_owned(), "1".to_owned())).into_iter().collect(),
            reason_contains: sieve.reason.to_owned(),
            min_attempts: sieve.min_attempts,
            stored_after: sieve.stored.filter(|(_, after)| *after).map(|(pick, _)| stored_at(pick)),
            stored_before: sieve.stored.filter(|(_, after)| !*after).map(|(pick, _)| stored_at(pick)),
            ids: sieve.ids.iter().filter_map(|pick| self.id(queue, *pick)).collect(),
        };
        let after = sieve.after.and_then(|pick| self.id(queue, pick)).map(|id| id.seq().0);
        Selection { queue, filter, after, max_messages: sieve.max, mode: sieve.mode }
    }

    fn task(&self, chore: Chore) -> Task {
        let Chore { slot, number, work, stored_before, max, rate, has_begun, cancel } = chore;
        let queue = self.queue(slot);
        let stored_before =
            stored_before.map(|pick| self.id(queue, pick).map_or(START, |id| stored_at(id).plus_ms(1)));
        let order = Order { work, stored_before, max_messages: max, max_per_second: rate };
        let id = TaskId { created: START.plus_ms(number), uid: format!("task-{number}") };
        Task { queue, id, order, has_begun, cancel }
    }

    /// Each message is told from all others by its content type.
    fn messages(&mut self, items: &[Item]) -> Vec<NewMessage> {
        let new = |item: &Item| {
            self.sent += 1;
            NewMessage {
                payload: Payload {
                    body: Bytes::from_static(&BODY).slice(..item.bytes),
                    headers: vec![("odd".to_owned(), (self.sent % 2).to_string())],
                    content_type: format!("message {}", self.sent),
                    dedup_id: item.dedup_id.to_owned(),
                    ordering_key: item.ordering_key.to_owned(),
                    fairness_key: item.fairness_key.to_owned(),
                },
                available: match item.available {
                    Available::At(at) => Available::At(START.plus_ms(at.0)),
                    other => other,
                },
                ttl_ms: item.ttl_ms,
                max_attempts: item.max_attempts,
                priority: item.priority,
                position: None,
            }
        };
        items.iter().map(new).collect()
    }

    /// A queue that is gone leaves its place to an id that nobody has.
    fn queue(&self, slot: Slot) -> QueueId {
        self.engine.queue(&format!("shop/{slot}")).unwrap_or(QueueId(77))
    }

    fn receipts_of(&self, queue: QueueId, picks: &[Pick]) -> Vec<Bytes> {
        picks.iter().map(|pick| self.receipt(queue, *pick)).collect()
    }

    /// Mostly one of the queue's own, seldom of another, or made up.
    fn receipt(&self, queue: QueueId, pick: Pick) -> Bytes {
        let is_of_any = (pick >> 32).is_multiple_of(16);
        let all = self.known.iter().rev().filter(|(_, lease)| is_of_any || lease.queue == queue);
        let newest: Vec<&Bytes> = all.map(|(receipt, _)| receipt).take(NEWEST).collect();
        match pick_of(&newest, pick) {
            Some(receipt) if !(pick >> 40).is_multiple_of(32) => (*receipt).clone(),
            _ => Bytes::from_static(b"made up"),
        }
    }

    fn id(&self, queue: QueueId, pick: Pick) -> Option<MessageId> {
        let is_of_any = (pick >> 32).is_multiple_of(16);
        let all = self.ids.iter().rev().filter(|(of, _)| is_of_any || *of == queue);
        let newest: Vec<MessageId> = all.map(|(_, id)| *id).take(NEWEST).collect();
        let id = pick_of(&newest, pick).copied()?;
        // The place alone is no name.
        let is_forged = (pick >> 40).is_multiple_of(32);
        Some(if is_forged { MessageId::new(Timestamp(1), 1, Seq(id.seq().0)) } else { id })
    }
}

fn pick_of<T>(from: &[T], pick: Pick) -> Option<&T> {
    let index = pick.checked_rem(from.len() as u64)?;
    from.get(usize::try_from(index).ok()?)
}

/// A `UUIDv7` begins with it.
fn stored_at(id: MessageId) -> Timestamp {
    let hex: String = id.to_string().chars().filter(char::is_ascii_hexdigit).take(12).collect();
    Timestamp(u64::from_str_radix(&hex, 16).expect("a UUID is hexadecimal"))
}

fn name_of(request: u64) -> String {
    if request == 0 { String::new() } else { format!("request-{request}") }
}
