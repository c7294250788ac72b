//! Any commands, however senseless: a typed answer each, never a panic, and the counts stay exact.
#![no_main]

use ackwell_engine::command::{
    Available, Batch, Cancel, Commit, Configure, Delete, Extend, Filter, HandOver, Handover, Mode, NewMessage, Outcome,
    Outgoing, Oversized, Pause, Receive, Selection, Send, Settle,
};
use ackwell_engine::message::{MessageId, Payload, Priority, QueueId, State};
use ackwell_engine::settings::{Backoff, BackoffPolicy, Expired};
use ackwell_engine::store::Entropy;
use ackwell_engine::task::{Order, Task, TaskId, Work};
use ackwell_engine::{Command, Engine, Reply, Settings, Store, Timestamp};
use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const START: Timestamp = Timestamp(1_764_000_000_000);

/// What a caller can say, in numbers. Receipts and ids are chosen among those given out.
#[derive(Arbitrary, Debug)]
enum Ask {
    Pass(u64),
    Restart,
    Configure { name: bool, generation: u8, numbers: [u64; 10], attempts: u32, drop: bool, linear: bool },
    Pause(u8, bool),
    Delete(u8, u64),
    Send(u8, Vec<Item>, bool, u8),
    Receive { queue: u8, max: u16, bytes: u64, waits: bool, ack_ms: Option<u64>, request: u8, reported: bool },
    HandOver(u8, u8),
    Settle(u8, u8, End),
    Extend(u8, u8, Option<u64>),
    Commit(u8, u8, End, u8, Vec<Item>, u8),
    Cancel(u8, u8),
    Redrive(u8, Which),
    Purge(u8, Which),
    Task { queue: u8, number: u8, states: Option<[bool; 3]>, before: Option<u64>, max: u64, rate: u64, cancel: bool },
}

#[derive(Arbitrary, Debug)]
struct Item {
    bytes: u16,
    delay_ms: Option<u64>,
    at_ms: Option<u64>,
    ttl_ms: Option<u64>,
    attempts: Option<u32>,
    priority: u8,
    ordering: u8,
    fairness: u8,
    dedup: u8,
}

#[derive(Arbitrary, Debug)]
enum End {
    Ack,
    Nack(Option<u64>),
    Release,
    Reject,
    Lost,
}

#[derive(Arbitrary, Debug)]
struct Which {
    dead: bool,
    ordering: u8,
    min_attempts: u32,
    after: Option<u64>,
    max: u64,
    dry: bool,
}

struct World {
    engine: Engine,
    now: Timestamp,
    receipts: Vec<Bytes>,
    ids: Vec<MessageId>,
}

fuzz_target!(|asks: Vec<Ask>| {
    let store = Store::volatile(Entropy { receipt_key: [7; 16], salt: 1 });
    let engine = Engine::open(store, START).expect("a store in memory opens");
    let mut world = World { engine, now: START, receipts: Vec::new(), ids: Vec::new() };
    for ask in asks {
        world = world.play(ask);
        for queue in 0..4 {
            let queue = QueueId(queue);
            assert_eq!(world.engine.stats(queue).counts, world.engine.recount(queue));
        }
    }
});

impl World {
    fn play(mut self, ask: Ask) -> Self {
        let command = match ask {
            Ask::Pass(ms) => {
                self.now = self.now.plus_ms(ms % 1_000_000_000);
                None
            }
            Ask::Restart => {
                self.engine = Engine::open(self.engine.into_store(), self.now).expect("it reopens");
                return self;
            }
            ask => Some(self.command(ask)),
        };
        let applied = self.engine.apply(self.now, command.into_iter().collect()).expect("memory works");
        applied.replies.into_iter().for_each(|reply| self.learn(reply));
        self
    }

    fn command(&self, ask: Ask) -> Command {
        match ask {
            Ask::Pass(_) | Ask::Restart => unreachable!("not commands"),
            Ask::Configure { name, generation, numbers, attempts, drop, linear } => {
                let name = if name { "a/b" } else { "a/c" }.to_owned();
                let settings = settings(numbers, attempts, drop, linear);
                Command::Configure(Configure { name, generation: generation.into(), settings })
            }
            Ask::Pause(queue, paused) => Command::Pause(Pause { queue: id(queue), paused }),
            Ask::Delete(queue, max_messages) => Command::Delete(Delete { queue: id(queue), max_messages }),
            Ask::Send(queue, items, atomic, request) => Command::Send(Send {
                queue: id(queue),
                messages: messages(items),
                batch: if atomic { Batch::Atomic } else { Batch::Each },
                request_id: word(request),
            }),
            Ask::Receive { queue, max, bytes, waits, ack_ms, request, reported } => Command::Receive(Receive {
                queue: id(queue),
                max_messages: max.into(),
                max_bytes: bytes,
                oversized: if waits { Oversized::Waits } else { Oversized::Comes },
                ack_timeout_ms: ack_ms,
                consumer: "fuzz".into(),
                request_id: word(request),
                handover: if reported { Handover::Reported } else { Handover::AtOnce },
            }),
            Ask::HandOver(queue, held) => {
                Command::HandOver(HandOver { queue: id(queue), receipts: vec![self.receipt(held)] })
            }
            Ask::Settle(queue, held, end) => Command::Settle(self.settle(queue, held, end)),
            Ask::Extend(queue, held, ack_timeout_ms) => {
                Command::Extend(Extend { queue: id(queue), receipts: vec![self.receipt(held)], ack_timeout_ms })
            }
            Ask::Commit(from, held, end, to, items, request) => Command::Commit(Commit {
                settle: vec![self.settle(from, held, end)],
                send: vec![Outgoing { queue: id(to), messages: messages(items) }],
                request_id: word(request),
            }),
            Ask::Cancel(queue, which) => {
                let ids = self.ids.get(usize::from(which)).copied().into_iter().collect();
                Command::Cancel(Cancel { queue: id(queue), ids })
            }
            Ask::Redrive(queue, which) => Command::Redrive(selection(queue, which)),
            Ask::Purge(queue, which) => Command::Purge(selection(queue, which)),
            Ask::Task { queue, number, states, before, max, rate, cancel } => Command::Task(Task {
                queue: id(queue),
                id: TaskId { created: Timestamp(number.into()), uid: word(number) },
                order: Order {
                    work: states.map_or(Work::Redrive, |wanted| Work::Purge(some_states(wanted))),
                    stored_before: before.map(|ms| START.plus_ms(ms % 1_000_000_000)),
                    max_messages: max,
                    max_per_second: rate,
                },
                cancel,
            }),
        }
    }

    fn settle(&self, queue: u8, held: u8, end: End) -> Settle {
        let reason = String::new();
        let outcome = match end {
            End::Ack => Outcome::Ack,
            End::Nack(delay_ms) => Outcome::Nack { delay_ms, reason },
            End::Release => Outcome::Release,
            End::Reject => Outcome::Reject { reason },
            End::Lost => Outcome::Lost { reason },
        };
        Settle { queue: id(queue), settlements: vec![(self.receipt(held), outcome)] }
    }

    fn receipt(&self, held: u8) -> Bytes {
        self.receipts.get(usize::from(held)).cloned().unwrap_or_default()
    }

    fn learn(&mut self, reply: Reply) {
        match reply {
            Reply::Received(deliveries) => {
                self.receipts.extend(deliveries.into_iter().map(|delivery| delivery.receipt));
            }
            Reply::Sent(results) => self.ids.extend(results.into_iter().flatten().map(|sent| sent.id)),
            _ => {}
        }
    }
}

fn id(queue: u8) -> QueueId {
    QueueId(u32::from(queue % 4))
}

fn word(number: u8) -> String {
    if number % 4 == 0 { String::new() } else { format!("{}", number % 4) }
}

fn messages(items: Vec<Item>) -> Vec<NewMessage> {
    items.into_iter().map(message).collect()
}

fn message(item: Item) -> NewMessage {
    let delay = item.delay_ms.map(Available::After);
    let at = item.at_ms.map(|ms| Available::At(Timestamp(ms)));
    NewMessage {
        payload: Payload {
            body: Bytes::from(vec![b'x'; item.bytes.into()]),
            dedup_id: word(item.dedup),
            ordering_key: word(item.ordering),
            fairness_key: word(item.fairness),
            ..Payload::default()
        },
        available: delay.or(at).unwrap_or_default(),
        ttl_ms: item.ttl_ms,
        max_attempts: item.attempts,
        priority: Priority::new(u32::from(item.priority % 10)).expect("0 to 9"),
        position: None,
    }
}

fn some_states(wanted: [bool; 3]) -> Vec<State> {
    let states = [State::Ready, State::Delayed, State::Dead].into_iter().zip(wanted);
    states.filter(|(_, is_wanted)| *is_wanted).map(|(state, _)| state).collect()
}

fn selection(queue: u8, which: Which) -> Selection {
    let Which { dead, ordering, min_attempts, after, max, dry } = which;
    let states = if dead { vec![State::Dead] } else { Vec::new() };
    let filter = Filter { states, ordering_key: word(ordering), min_attempts, ..Filter::default() };
    let mode = if dry { Mode::DryRun } else { Mode::Apply };
    Selection { queue: id(queue), filter, after, max_messages: max, mode }
}

fn settings(numbers: [u64; 10], max_attempts: u32, drop: bool, linear: bool) -> Settings {
    let [ack, processing, min_ms, max_ms, messages, bytes, body, in_flight, dead, step] = numbers;
    let policy = if linear { BackoffPolicy::Linear } else { BackoffPolicy::Exponential };
    Settings {
        ack_timeout_ms: ack,
        max_processing_ms: processing,
        max_attempts,
        backoff: Backoff { policy, min_ms, max_ms },
        max_messages: messages,
        max_bytes: bytes,
        max_message_bytes: body,
        max_in_flight: in_flight,
        dead_ms: dead,
        dedup_window_ms: step,
        expired: if drop { Expired::Drop } else { Expired::DeadLetter },
        priority_step_ms: step,
    }
}
