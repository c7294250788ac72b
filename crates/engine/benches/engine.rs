//! What one message costs, operation by operation, with 0, 1 M and 10 M others waiting, and with 10 000 keys.
//!
//! ```text
//! cargo bench -p ackwell-engine                      all of it: 10 minutes and 10 GB of memory
//! cargo bench -p ackwell-engine -- 'send/0'          one of it
//! ```
//!
//! The store keeps payloads in memory and nothing else: this is the engine's own work, without log and checkpoints.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ackwell_engine::command::{
    Available, Batch, Configure, Delivery, Handover, NewMessage, Outcome, Oversized, Receive, Send, Settle,
};
use ackwell_engine::message::{Payload, QueueId};
use ackwell_engine::store::Entropy;
use ackwell_engine::{Command, Engine, Reply, Settings, Store, Timestamp};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: u32 = 100;
const BACKLOGS: [u64; 3] = [0, 1_000_000, 10_000_000];
const KEYS: u64 = 10_000;

/// The keys that messages get, round robin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keyed {
    Nothing,
    Ordering,
    Fairness,
}

/// A queue in steady state: what goes in comes out.
struct World {
    engine: Engine,
    queue: QueueId,
    now: Timestamp,
    sent: u64,
    keyed: Keyed,
}

impl World {
    fn with_backlog(backlog: u64, keyed: Keyed) -> Self {
        let entropy = Entropy { receipt_key: [7; 16], salt: 1 };
        let now = Timestamp(1_764_000_000_000);
        let mut engine = Engine::open(Store::forgetful(entropy), now).expect("new");
        let settings = Settings { max_in_flight: u64::MAX, ..Settings::default() };
        let configure = Configure { name: "shop/orders".to_owned(), generation: 1, settings };
        let Reply::Configured(queue, _) = one(&mut engine, now, Command::Configure(configure)) else {
            unreachable!("a valid queue is made")
        };
        let mut world = Self { engine, queue, now, sent: 0, keyed };
        while world.sent < backlog {
            world.send(1000, Available::Now);
        }
        world
    }

    /// A millisecond later, so that what is remembered for a while is forgotten at the pace of a busy queue.
    fn apply(&mut self, command: Command) -> Reply {
        self.now = self.now.plus_ms(1);
        one(&mut self.engine, self.now, command)
    }

    fn send(&mut self, count: u32, available: Available) {
        let messages = (0..count).map(|_| self.message(available)).collect();
        let send = Send { queue: self.queue, messages, batch: Batch::Each, request_id: String::new() };
        self.apply(Command::Send(send));
    }

    fn message(&mut self, available: Available) -> NewMessage {
        self.sent += 1;
        let key = |of| if self.keyed == of { format!("key-{}", self.sent % KEYS) } else { String::new() };
        let payload = Payload {
            body: Bytes::from_static(&[b'x'; 100]),
            ordering_key: key(Keyed::Ordering),
            fairness_key: key(Keyed::Fairness),
            ..Payload::default()
        };
        NewMessage { payload, available, ..NewMessage::default() }
    }

    fn receive(&mut self) -> Vec<Delivery> {
        let receive = Receive {
            queue: self.queue,
            max_messages: BATCH,
            max_bytes: u64::MAX,
            oversized: Oversized::Comes,
            ack_timeout_ms: None,
            consumer: String::new(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        };
        match self.apply(Command::Receive(receive)) {
            Reply::Received(deliveries) => deliveries,
            other => unreachable!("a Receive is answered by deliveries, not {other:?}"),
        }
    }

    fn settle(&mut self, deliveries: Vec<Delivery>, outcome: &Outcome) {
        let settlements =
            deliveries.into_iter().map(|delivery| (delivery.receipt, outcome.clone())).collect();
        self.apply(Command::Settle(Settle { queue: self.queue, settlements }));
    }

    /// One batch through the whole life, with the time of the step that is asked for.
    fn cycle(&mut self, step: Step) -> Duration {
        let send = timed(|| self.send(BATCH, Available::Now));
        let mut deliveries = Vec::new();
        let receive = timed(|| deliveries = black_box(self.receive()));
        let nack = timed(|| {
            if step == Step::Nack {
                let again = Outcome::Nack { delay_ms: Some(0), reason: String::new() };
                self.settle(std::mem::take(&mut deliveries), &again);
            }
        });
        if step == Step::Nack {
            deliveries = self.receive();
        }
        let ack = timed(|| self.settle(deliveries, &Outcome::Ack));
        match step {
            Step::Send => send,
            Step::Receive => receive,
            Step::Nack => nack,
            Step::Ack => ack,
        }
    }

    /// A batch of delays that end together.
    fn sweep(&mut self) -> Duration {
        self.send(BATCH, Available::After(1));
        self.now = self.now.plus_ms(1);
        let sweep = timed(|| _ = self.engine.apply(self.now, Vec::new()).expect("memory"));
        let deliveries = self.receive();
        self.settle(deliveries, &Outcome::Ack);
        sweep
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Send,
    Receive,
    Nack,
    Ack,
}

fn one(engine: &mut Engine, now: Timestamp, command: Command) -> Reply {
    engine.apply(now, vec![command]).expect("memory").replies.remove(0)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn operations(criterion: &mut Criterion) {
    for backlog in BACKLOGS {
        measure(criterion, &format!("{backlog}"), || World::with_backlog(backlog, Keyed::Nothing));
    }
    for keyed in [Keyed::Ordering, Keyed::Fairness] {
        let name = format!("1000000, {KEYS} keys for {keyed:?}").to_lowercase();
        measure(criterion, &name, || World::with_backlog(1_000_000, keyed));
    }
}

fn measure(criterion: &mut Criterion, name: &str, make: impl Fn() -> World) {
    // Made on first use: a filter that names another world does not pay for this one.
    let world = std::cell::OnceCell::new();
    let world = || world.get_or_init(|| std::cell::RefCell::new(make())).borrow_mut();
    let steps = [("send", Step::Send), ("receive", Step::Receive), ("ack", Step::Ack), ("nack", Step::Nack)];
    for (operation, step) in steps {
        bench(criterion, operation, name, &mut || world().cycle(step));
    }
    bench(criterion, "sweep", name, &mut || world().sweep());
}

fn bench(criterion: &mut Criterion, operation: &str, name: &str, run: &mut dyn FnMut() -> Duration) {
    let mut group = criterion.benchmark_group(operation);
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| run()).sum());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = operations
}
criterion_main!(benches);
