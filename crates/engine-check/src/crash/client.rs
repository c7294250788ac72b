//! Applications that fill and drain queues, so that every part of the store gets something to do.
//!
//! The histories of [`crate::check`] look for what the rules of the engine miss; this traffic has bodies of all sizes,
//! backlogs that come and go, and messages that stay long after their neighbours are gone.

use ackwell_engine::command::{
    Available, Batch, Cancel, Commit, Configure, Extend, Handover, Mode, NewMessage, Outcome, Outgoing,
    Oversized, Pause, Receive, Selection, Send, Settle,
};
use ackwell_engine::message::{MessageId, Payload, Priority, QueueId, State};
use ackwell_engine::task::{Order, Task, TaskId, Work};
use ackwell_engine::{Command, Engine, Reply, Settings};
use bytes::Bytes;

use crate::dice::Dice;

const QUEUES: [&str; 2] = ["shop/orders", "shop/logs"];
/// Receipts and ids that may be used once more.
const KNOWN: usize = 200;

/// The queues that there may be, by name.
pub(super) fn queues(engine: &Engine) -> impl Iterator<Item = (&'static str, Option<QueueId>)> {
    QUEUES.iter().map(|name| (*name, engine.queue(name)))
}

/// All applications of one shard.
pub(super) struct Client {
    generation: u64,
    sent: u64,
    receipts: Vec<(QueueId, Bytes)>,
    ids: Vec<(QueueId, MessageId)>,
    habits: Habits,
    is_gentle: bool,
}

/// What a schedule likes.
struct Habits {
    /// How often each kind of command comes, in the order of [`Client::command`]; changes as queues fill and drain.
    weights: [u64; 12],
    body_bytes: &'static [usize],
    most_messages: u64,
    keys: &'static [&'static str],
    priorities: &'static [u32],
    /// One message in so many has something special.
    special_once_in: u64,
}

const FILL: [u64; 12] = [1, 1, 20, 5, 4, 1, 1, 1, 1, 0, 0, 1];
const DRAIN: [u64; 12] = [1, 1, 1, 14, 24, 1, 2, 1, 1, 0, 0, 1];
const MIX: [u64; 12] = [2, 2, 16, 16, 20, 4, 6, 2, 2, 1, 1, 2];
/// The kinds that need receipts, and what is done where there are none.
const OF_RECEIPTS: [usize; 3] = [4, 5, 6];
const RECEIVE: usize = 3;
/// This kind and those behind it remove messages without settling them, or bring them back.
const CANCEL: usize = 7;

impl Client {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let habits = Habits {
            weights: FILL,
            body_bytes: dice.pick(&[
                &[10],
                &[0, 10, 300],
                &[1000],
                &[10, 1000, 5000, 20_000],
                &[4096, 12_000],
            ]),
            most_messages: dice.pick(&[1, 4, 30]),
            keys: dice.pick(&[&[""], &["", "a", "b", "c"]]),
            priorities: dice.pick(&[&[4], &[0, 4, 9]]),
            special_once_in: dice.pick(&[2, 10, 1000]),
        };
        Self { generation: 0, sent: 0, receipts: Vec::new(), ids: Vec::new(), habits, is_gentle: false }
    }

    /// From now on nothing goes but what is settled: no ttl, purge, cancel or delete, no retention.
    pub(super) fn be_gentle(&mut self) {
        self.is_gentle = true;
        self.habits.special_once_in = u64::MAX;
    }

    /// What is asked next of a shard that is as the engine is.
    pub(super) fn commands(&mut self, dice: &mut Dice, engine: &Engine) -> Vec<Command> {
        if dice.one_in(8) {
            self.habits.weights = dice.pick(&[FILL, FILL, DRAIN, MIX]);
        }
        (0..dice.count(0, 4)).map(|_| self.command(dice, engine)).collect()
    }

    /// Receipts and ids are good for later.
    pub(super) fn learn(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (Command::Receive(receive), Reply::Received(deliveries)) => {
                let receipts = deliveries.iter().map(|delivery| (receive.queue, delivery.receipt.clone()));
                self.receipts.extend(receipts);
            }
            (Command::Send(send), Reply::Sent(results)) => {
                self.ids.extend(results.iter().flatten().map(|sent| (send.queue, sent.id)));
            }
            _ => {}
        }
        keep_newest(&mut self.receipts);
        keep_newest(&mut self.ids);
    }

    fn command(&mut self, dice: &mut Dice, engine: &Engine) -> Command {
        let name = dice.pick(&QUEUES);
        let Some(queue) = engine.queue(name) else { return self.configure(dice, name) };
        let kind = match dice.weighted(&self.habits.weights) {
            CANCEL.. if self.is_gentle => RECEIVE,
            kind => kind,
        };
        let is_idle = OF_RECEIPTS.contains(&kind) && self.receipts.iter().all(|(of, _)| *of != queue);
        match if is_idle { RECEIVE } else { kind } {
            0 => self.configure(dice, name),
            1 => Command::Pause(Pause { queue, paused: dice.one_in(4) }),
            2 => Command::Send(Send {
                queue,
                messages: self.messages(dice),
                batch: dice.pick(&[Batch::Each, Batch::Atomic]),
                request_id: self.request_id(dice),
            }),
            RECEIVE => receive(dice, queue),
            4 => Command::Settle(self.settle(dice, queue)),
            5 => {
                let receipts = self.some_receipts(dice, queue);
                Command::Extend(Extend { queue, receipts, ack_timeout_ms: dice.pick(&[None, Some(60_000)]) })
            }
            6 => Command::Commit(Commit {
                settle: vec![self.settle(dice, queue)],
                send: vec![Outgoing { queue, messages: self.messages(dice) }],
                request_id: self.request_id(dice),
            }),
            CANCEL => {
                let ids = self.ids.iter().filter(|(of, _)| *of == queue).map(|(_, id)| *id);
                Command::Cancel(Cancel { queue, ids: ids.filter(|_| dice.one_in(20)).collect() })
            }
            8 => Command::Redrive(selection(dice, queue)),
            9 => Command::Purge(selection(dice, queue)),
            10 => Command::Delete(ackwell_engine::command::Delete {
                queue,
                max_messages: dice.pick(&[3, 1000]),
            }),
            _ => Command::Task(task(dice, queue)),
        }
    }

    fn configure(&mut self, dice: &mut Dice, name: &str) -> Command {
        self.generation += 1;
        let settings = Settings {
            ack_timeout_ms: dice.pick(&[2000, 30_000]),
            max_attempts: if self.is_gentle { 100 } else { dice.pick(&[1, 3, 10]) },
            dead_ms: if self.is_gentle { 0 } else { dice.pick(&[5000, 1_000_000]) },
            ..Settings::default()
        };
        Command::Configure(Configure { name: name.to_owned(), generation: self.generation, settings })
    }

    fn messages(&mut self, dice: &mut Dice) -> Vec<NewMessage> {
        (0..dice.count(1, self.habits.most_messages)).map(|_| self.message(dice)).collect()
    }

    fn message(&mut self, dice: &mut Dice) -> NewMessage {
        let bytes = dice.pick(self.habits.body_bytes);
        let is_special = dice.one_in(self.habits.special_once_in);
        self.sent += 1;
        NewMessage {
            payload: Payload {
                body: body(self.sent, bytes),
                headers: Vec::new(),
                content_type: format!("message {}", self.sent),
                dedup_id: if is_special { dice.pick(&["", "x", "y"]).to_owned() } else { String::new() },
                ordering_key: dice.pick(self.habits.keys).to_owned(),
                fairness_key: dice.pick(self.habits.keys).to_owned(),
            },
            available: match is_special.then(|| dice.below(3)) {
                Some(0) => Available::After(dice.pick(&[10, 5000, 10_000_000])),
                _ => Available::Now,
            },
            ttl_ms: (is_special && dice.one_in(3)).then(|| dice.pick(&[50, 4000, 300_000])),
            max_attempts: None,
            priority: Priority::new(dice.pick(self.habits.priorities)).expect("these are below ten"),
            position: None,
        }
    }

    fn settle(&mut self, dice: &mut Dice, queue: QueueId) -> Settle {
        let receipts = self.some_receipts(dice, queue);
        let settlements: Vec<_> = receipts.into_iter().map(|receipt| (receipt, outcome(dice))).collect();
        // Most are used once; some repeat what was done.
        let used = |receipt: &Bytes| settlements.iter().any(|(of, _)| of == receipt);
        self.receipts.retain(|(_, receipt)| !used(receipt) || dice.one_in(5));
        Settle { queue, settlements }
    }

    /// Two calls with one id are one call: here they are not, which only a store that knows all of them can tell.
    fn request_id(&self, dice: &mut Dice) -> String {
        if self.is_gentle { String::new() } else { request_id(dice) }
    }

    fn some_receipts(&self, dice: &mut Dice, queue: QueueId) -> Vec<Bytes> {
        let mine = self.receipts.iter().filter(|(of, _)| *of == queue).map(|(_, receipt)| receipt.clone());
        let most = dice.count(0, 40);
        mine.filter(|_| !dice.one_in(4)).take(most).collect()
    }
}

fn keep_newest<T>(known: &mut Vec<T>) {
    let surplus = known.len().saturating_sub(KNOWN);
    known.drain(..surplus);
}

/// No two are the same, nor any two parts of one.
pub(super) fn body(number: u64, bytes: usize) -> Bytes {
    let words = (0_u64..).flat_map(|word| (number << 32 | word).to_le_bytes());
    words.take(bytes).collect::<Vec<u8>>().into()
}

fn request_id(dice: &mut Dice) -> String {
    if dice.one_in(4) { format!("request-{}", dice.below(4)) } else { String::new() }
}

fn receive(dice: &mut Dice, queue: QueueId) -> Command {
    Command::Receive(Receive {
        queue,
        max_messages: dice.pick(&[1, 10, 100]),
        max_bytes: dice.pick(&[5000, 1_000_000]),
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "crash".to_owned(),
        request_id: request_id(dice),
        handover: dice.pick(&[Handover::AtOnce, Handover::Reported]),
    })
}

fn outcome(dice: &mut Dice) -> Outcome {
    let reason = "bad".to_owned();
    match dice.below(16) {
        0 => Outcome::Nack { delay_ms: dice.pick(&[None, Some(0), Some(20_000)]), reason },
        1 => Outcome::Release,
        2 => Outcome::Reject { reason },
        3 => Outcome::Lost { reason },
        _ => Outcome::Ack,
    }
}

/// Of more tasks than a queue remembers.
fn task(dice: &mut Dice, queue: QueueId) -> Task {
    let created = dice.below(100);
    let work = if dice.one_in(3) { Work::Purge(vec![State::Dead]) } else { Work::Redrive };
    let order = Order {
        work,
        stored_before: None,
        max_messages: dice.pick(&[0, 5]),
        max_per_second: dice.pick(&[0, 2]),
    };
    let id = TaskId { created: ackwell_engine::Timestamp(created), uid: format!("task-{created}") };
    Task { queue, id, order, has_begun: !dice.one_in(3), cancel: dice.one_in(9) }
}

fn selection(dice: &mut Dice, queue: QueueId) -> Selection {
    let states = dice.pick(&[vec![State::Dead], vec![State::Dead], vec![State::Delayed], vec![]]);
    let filter = ackwell_engine::command::Filter { states, ..Default::default() };
    Selection { queue, filter, after: None, max_messages: dice.pick(&[1, 10, 1000]), mode: Mode::Apply }
}
