//! A queue under load: an engine on a store in a folder, and clients of it in the same thread.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use ackwell_bench::body::Bodies;
use ackwell_bench::clock::{Stopwatch, wall_ms};
use ackwell_bench::latencies::Latencies;
use ackwell_bench::ledger::Ledger;
use ackwell_engine::command::{
    Batch, Configure, Delivery, Handover, NewMessage, Outcome, Oversized, Receive, Send, Settle,
};
use ackwell_engine::message::{Payload, QueueId};
use ackwell_engine::store::seal;
use ackwell_engine::store::{Entropy, MAX_ROWS};
use ackwell_engine::{Command, Engine, Reply, Settings, Store, Timestamp};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::cases::{Case, Keys};

/// Fixed, so that two runs do the same.
const ENTROPY: Entropy = Entropy { receipt_key: [7; 16], salt: 0x00be_4c43 };
/// Of a command that only fills or empties the queue.
pub(crate) const LARGE_BATCH: u32 = 1000;

pub(crate) struct Load {
    engine: Engine,
    queue: QueueId,
    keys: Keys,
    bodies: Bodies,
    /// How far the engine's time is ahead of the machine's.
    ahead_ms: u64,
    pub(crate) ledger: Ledger,
    /// What each client holds.
    held: Vec<Vec<Bytes>>,
    /// Clients of one record, and records under way at once.
    merged: usize,
    records: usize,
    next_record: usize,
    on_the_way: VecDeque<OnTheWay>,
}

/// A record that is written or applied.
struct OnTheWay {
    clients: Range<usize>,
    round: Round,
    since: Stopwatch,
}

/// What a client asks for in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Acks what it holds, sends so many, receives as many.
    Cycle(u32),
    /// Sends so many.
    Send(u32),
    /// Acks what it holds, receives up to so many.
    Drain(u32),
}

impl Load {
    /// On an empty or older store in that folder.
    pub(crate) fn open(folder: &Path, case: &Case) -> anyhow::Result<Self> {
        let keys = case.is_sealed.then(|| seal::Keys::new([("bench".to_owned(), [7; 32])])).flatten();
        let store = Store::open_with(folder, ENTROPY, MAX_ROWS, keys)?;
        let mut engine = Engine::open(store, Timestamp(wall_ms()))?;
        // Consumers that hold everything are part of what is measured.
        let settings = Settings { max_in_flight: u64::MAX, ..Settings::default() };
        let configure = Configure { name: "shop/orders".to_owned(), generation: 1, settings };
        let mut replies = engine.apply(Timestamp(wall_ms()), vec![Command::Configure(configure)])?.replies;
        let Some(Reply::Configured(queue, _)) = replies.pop() else {
            bail!("a queue is not made: {replies:?}")
        };
        let (merged, records) = (usize::try_from(case.merged)?, usize::try_from(case.records)?);
        Ok(Self {
            engine,
            queue,
            keys: case.keys,
            bodies: Bodies::new(case.body_bytes),
            ahead_ms: 0,
            ledger: Ledger::default(),
            held: vec![Vec::new(); merged * records],
            merged,
            records,
            next_record: 0,
            on_the_way: VecDeque::new(),
        })
    }

    /// Sends until so many more wait.
    pub(crate) fn fill(&mut self, count: u64) -> anyhow::Result<()> {
        let until = self.ledger.sent() + count;
        while self.ledger.sent() < until {
            let left = u32::try_from(until - self.ledger.sent()).unwrap_or(u32::MAX);
            self.one(0, Round::Send(left.min(LARGE_BATCH)))?;
        }
        Ok(())
    }

    /// One more record, of the clients whose turn it is; as many are on their way as there may be, until [`Load::rest`].
    /// How long the oldest one took, without making and checking its messages.
    pub(crate) fn step(&mut self, round: Round) -> anyhow::Result<Duration> {
        while self.on_the_way.len() < self.records {
            let start = self.next_record * self.merged;
            self.next_record = (self.next_record + 1) % self.records;
            self.submit(start..start + self.merged, round)?;
        }
        self.finish()
    }

    /// Waits until nothing is on its way.
    pub(crate) fn rest(&mut self) -> anyhow::Result<()> {
        while !self.on_the_way.is_empty() {
            self.finish()?;
        }
        Ok(())
    }

    /// A round of one client, with nothing else on its way.
    fn one(&mut self, client: usize, round: Round) -> anyhow::Result<()> {
        self.rest()?;
        self.submit(client..client + 1, round)?;
        self.rest()
    }

    fn submit(&mut self, clients: Range<usize>, round: Round) -> anyhow::Result<()> {
        let commands: Vec<Command> =
            clients.clone().flat_map(|client| self.commands(client, round)).collect();
        let now = self.now();
        self.on_the_way.push_back(OnTheWay { clients, round, since: Stopwatch::start() });
        Ok(self.engine.submit(now, commands)?)
    }

    fn finish(&mut self) -> anyhow::Result<Duration> {
        let OnTheWay { clients, round, since } =
            self.on_the_way.pop_front().context("nothing is on its way")?;
        let applied = self.engine.finish()?;
        let took = since.elapsed();
        ensure!(applied.expired.is_empty(), "deliveries timed out: the machine is too slow for this");
        let mut replies = applied.replies.into_iter();
        for client in clients {
            self.check(client, round, &mut replies)?;
        }
        ensure!(replies.next().is_none(), "there are more replies than commands");
        Ok(took)
    }

    fn commands(&mut self, client: usize, round: Round) -> Vec<Command> {
        let acks: Vec<_> = self.held[client].drain(..).map(|receipt| (receipt, Outcome::Ack)).collect();
        let settle = Command::Settle(Settle { queue: self.queue, settlements: acks });
        match round {
            Round::Cycle(count) => vec![settle, self.send(count), self.receive(count)],
            Round::Send(count) => vec![self.send(count)],
            Round::Drain(count) => vec![settle, self.receive(count)],
        }
    }

    fn send(&mut self, count: u32) -> Command {
        let numbers = self.ledger.send(count.into());
        let bodies = self.bodies.of(numbers.clone());
        let messages = numbers.zip(bodies).map(|(number, body)| self.message(number, body)).collect();
        Command::Send(Send { queue: self.queue, messages, batch: Batch::Each, request_id: String::new() })
    }

    fn message(&self, number: u64, body: Bytes) -> NewMessage {
        let mut payload = Payload { body, ..Payload::default() };
        match self.keys {
            Keys::Nothing => {}
            Keys::Ordering(keys) => payload.ordering_key = format!("key-{}", number % keys),
            Keys::Fairness(keys) => payload.fairness_key = format!("key-{}", number % keys),
        }
        NewMessage { payload, ..NewMessage::default() }
    }

    fn receive(&self, count: u32) -> Command {
        Command::Receive(Receive {
            queue: self.queue,
            max_messages: count,
            max_bytes: u64::MAX,
            oversized: Oversized::Comes,
            ack_timeout_ms: None,
            consumer: String::new(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        })
    }

    /// Everything was done that the client asked for, and every body is the one that was sent.
    fn check(
        &mut self,
        client: usize,
        round: Round,
        replies: &mut impl Iterator<Item = Reply>,
    ) -> anyhow::Result<()> {
        let mut next = || replies.next().context("a command was not answered");
        if round.settles() {
            let Reply::Settled(settled) = next()? else {
                bail!("a Settle is not answered by what became of it")
            };
            let refused = settled.into_iter().find_map(Result::err);
            ensure!(refused.is_none(), "an ack was refused: {refused:?}");
        }
        if let Round::Cycle(count) | Round::Send(count) = round {
            let Reply::Sent(sent) = next()? else { bail!("a Send is not answered by what became of it") };
            let stored = sent.iter().filter(|sent| sent.as_ref().is_ok_and(|sent| !sent.duplicate)).count();
            ensure!(stored == count as usize, "{stored} of {count} messages were stored");
        }
        if round.settles() {
            let Reply::Received(deliveries) = next()? else {
                bail!("a Receive is not answered by deliveries")
            };
            self.take(client, round, deliveries)?;
        }
        Ok(())
    }

    fn take(&mut self, client: usize, round: Round, deliveries: Vec<Delivery>) -> anyhow::Result<()> {
        if let Round::Cycle(count) = round {
            ensure!(deliveries.len() == count as usize, "{} of {count} messages came", deliveries.len());
        }
        for Delivery { receipt, message, .. } in deliveries {
            let number = self.bodies.number(&message.payload.body);
            self.ledger.receive(number.context("a body is not the one that was sent")?)?;
            self.held[client].push(receipt);
        }
        Ok(())
    }

    /// Rounds for that time.
    pub(crate) fn run_for(&mut self, time: Duration, round: Round) -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::default();
        let since = Stopwatch::start();
        while since.elapsed() < time {
            latencies.record(self.step(round)?);
        }
        self.rest()?;
        Ok(latencies)
    }

    /// Receives and acks what is left. Then everything that was sent has come, once, and nothing is stored any more.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        self.empty()?;
        self.check_counts(0)?;
        self.ledger.check_complete()
    }

    /// All clients receive and ack until nothing comes. They take turns, so that no delivery is held for long.
    fn empty(&mut self) -> anyhow::Result<()> {
        loop {
            for client in 0..self.held.len() {
                self.one(client, Round::Drain(LARGE_BATCH))?;
            }
            if self.held.iter().all(Vec::is_empty) {
                return Ok(());
            }
        }
    }

    /// The queue holds what was sent and not acked: so many, in flight or waiting.
    pub(crate) fn check_counts(&self, stored: u64) -> anyhow::Result<()> {
        let counts = self.engine.stats(self.queue).counts;
        let held: usize = self.held.iter().map(Vec::len).sum();
        ensure!(self.stored() == stored, "{} messages are stored, not {stored}: {counts:?}", self.stored());
        ensure!(counts.in_flight == held as u64, "{held} deliveries are held: {counts:?}");
        Ok(())
    }

    /// Messages in the queue.
    pub(crate) fn stored(&self) -> u64 {
        let counts = self.engine.stats(self.queue).counts;
        counts.ready + counts.delayed + counts.in_flight
    }

    /// Receives and acks all that an earlier process left, whose clients had been told that all before `confirmed` was
    /// acked, and all before its end stored. What came is one stretch of what was sent, and at least that.
    pub(crate) fn take_over(&mut self, confirmed: &Range<u64>) -> anyhow::Result<()> {
        let stored = self.stored();
        self.forget_consumers()?;
        // More than were sent: how many that were is not known.
        self.ledger.send(confirmed.end + stored);
        self.empty()?;
        let came = self.ledger.span();
        ensure!(self.ledger.received() == stored, "{} of {stored} messages came", self.ledger.received());
        ensure!(came.end - came.start == stored, "of messages {came:?} only {stored} came");
        ensure!(came.start >= confirmed.start, "message {} was acked and came back", came.start);
        ensure!(came.end >= confirmed.end, "message {} was confirmed and is lost", came.end);
        Ok(())
    }

    /// Time passes until deliveries of before have timed out, and then until they are Ready again.
    fn forget_consumers(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            self.ahead_ms += Settings::default().ack_timeout_ms * 2;
            self.engine.apply(self.now(), Vec::new())?;
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp(wall_ms() + self.ahead_ms)
    }

    /// Of each message.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.bodies.len_bytes() as u64
    }
}

impl Round {
    fn settles(self) -> bool {
        !matches!(self, Self::Send(_))
    }
}
