//! One history, played to the engine, to the [model](crate::model) and to the [observer](crate::observer), and then once
//! more to a fresh engine, which must give the same answers and end in the same state.

mod translate;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use ackwell_engine::command::{Applied, Delivery, Filter};
use ackwell_engine::message::{Message, MessageId, QueueId};
use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Command, Engine, Reply, Store, Timestamp};
use bytes::Bytes;

use crate::disk::SimDisk;
use crate::history::{Fate, Step};
use crate::model::{Lease, Model, Receipts};
use crate::observer::Observer;
use crate::violation::{Violation, ensure};

/// So late that a clock which is set back stays in the past of nothing.
const START: Timestamp = Timestamp(1_000_000_000);
/// Every message of so many batches is explained: the model looks through everything for each.
const EXPLAINED_ONCE_IN: usize = 4;
/// So small that a history goes through several.
const SMALL: Options = Options {
    segment_bytes: 16 << 10,
    checkpoint_bytes: 24 << 10,
    max_rows: 300,
    reserve_bytes: 0,
    threads: Threads::One,
};
const ENTROPY: Entropy = Entropy { receipt_key: [7; 16], salt: 0x00ab_cdef };

/// Where the second engine keeps its state. What the two kinds of stores keep cannot differ without an answer differing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    /// In maps, like the first.
    Volatile,
    /// On a disk, in memory: through every encoder and decoder, checkpoint and replay.
    Disk,
}

/// Plays the steps; says how many batches they were.
pub(crate) fn play(steps: &[Step], twin: Twin) -> Result<u64, Violation> {
    let mut play = Play::new()?;
    steps.iter().try_for_each(|step| play.step(step))?;
    let digest = play.engine.digest();
    play.log.push(Entry::Digest(digest));
    replay(&play.log, twin)?;
    Ok(play.log.len() as u64)
}

struct Play {
    /// What the machine's clock says.
    clock: Timestamp,
    engine: Engine,
    model: Model,
    observer: Observer,
    log: Vec<Entry>,
    generation: u64,
    queues: Vec<QueueId>,
    /// All that were ever given out.
    receipts: Receipts,
    /// Those that somebody has, in the order they were given.
    known: Vec<(Bytes, Lease)>,
    ids: Vec<(QueueId, MessageId)>,
    sent: u64,
}

/// What happened to the engine, to be done again.
enum Entry {
    Batch(Timestamp, Vec<Command>, Applied),
    Restart(Timestamp),
    Digest(u128),
}

impl Play {
    fn new() -> Result<Self, Violation> {
        let engine = open(Store::volatile(ENTROPY), START)?;
        let mut play = Self {
            clock: START,
            engine,
            model: Model::new(ENTROPY, START),
            observer: Observer::default(),
            log: vec![Entry::Restart(START)],
            generation: 0,
            queues: Vec::new(),
            receipts: BTreeMap::new(),
            known: Vec::new(),
            ids: Vec::new(),
            sent: 0,
        };
        let commands = play.first_queues();
        play.batch(commands, Fate::Answered)?;
        Ok(play)
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        match step {
            Step::Batch { after_ms, back_ms, asks, fate } => {
                self.clock = Timestamp(self.clock.plus_ms(*after_ms).0.saturating_sub(*back_ms));
                let commands = asks.iter().map(|ask| self.command(ask)).collect();
                self.batch(commands, *fate)
            }
            Step::Wake { early_ms } => {
                let at = self.engine.next_wakeup().unwrap_or(self.clock);
                self.clock = Timestamp(at.0.saturating_sub(*early_ms)).max(self.clock);
                self.batch(Vec::new(), Fate::Answered)
            }
            Step::Restart { after_ms, back_ms } => {
                // The time is stored with a change only, so that a clock which went back needs one before.
                self.clock = self.clock.max(self.model.now());
                let change = self.change_of_settings();
                self.batch(vec![change], Fate::Answered)?;
                self.clock = Timestamp(self.clock.plus_ms(*after_ms).0.saturating_sub(*back_ms));
                self.restart()
            }
        }
    }

    fn batch(&mut self, commands: Vec<Command>, fate: Fate) -> Result<(), Violation> {
        if fate == Fate::Lost {
            return self.lose(commands);
        }
        let applied = apply(&mut self.engine, self.clock, commands.clone())?;
        let expected = self.model.apply(self.clock, &commands, &self.receipts);
        same("model: replies", &applied.replies.len(), &expected.replies.len(), &"a batch")?;
        for (command, (answered, wanted)) in
            commands.iter().zip(applied.replies.iter().zip(&expected.replies))
        {
            same("model: reply", &without_receipts(answered), wanted, command)?;
        }
        self.learn_receipts(&commands, &applied.replies, fate)?;
        let expired: Vec<Option<&Lease>> =
            applied.expired.iter().map(|receipt| self.receipts.get(receipt)).collect();
        same("model: expired", &expired, &expected.expired.iter().map(Some).collect(), &commands)?;
        self.learn_ids(&commands, &applied.replies);
        self.learn_queues(&commands, &applied.replies);
        self.compare_states()?;
        self.observe(&commands, &applied)?;
        self.log.push(Entry::Batch(self.clock, commands, applied));
        if fate == Fate::Answered {
            return Ok(());
        }
        self.clock = self.clock.max(self.model.now());
        self.restart()
    }

    /// The batch never reaches the disk.
    fn lose(&mut self, commands: Vec<Command>) -> Result<(), Violation> {
        let survivor = self.engine.survivor();
        apply(&mut self.engine, self.clock, commands)?;
        self.clock = self.clock.max(self.model.now());
        self.engine = open(survivor.expect("it is volatile"), self.clock)?;
        self.after_restart()
    }

    fn restart(&mut self) -> Result<(), Violation> {
        let engine = std::mem::replace(&mut self.engine, open(Store::volatile(ENTROPY), START)?);
        self.engine = open(engine.into_store(), self.clock)?;
        self.after_restart()
    }

    fn after_restart(&mut self) -> Result<(), Violation> {
        self.model.restart(self.clock);
        self.log.push(Entry::Restart(self.clock));
        self.log.push(Entry::Digest(self.engine.digest()));
        let everything = self.everything()?;
        self.observer.restarted(self.clock, &everything)?;
        self.compare_states()
    }

    fn compare_states(&self) -> Result<(), Violation> {
        same("model: queues", &self.queues, &self.model.queue_ids().collect(), &self.clock)?;
        same("model: next wakeup", &self.engine.next_wakeup(), &self.model.next_wakeup(), &self.clock)?;
        for (queue, messages) in self.everything()? {
            let expected = self.model.shown(queue);
            same("model: messages", &messages.iter().collect::<Vec<_>>(), &expected, &queue)?;
            same("model: stats", &self.engine.stats(queue), &self.model.stats(queue), &queue)?;
            same("recount", &self.engine.stats(queue).counts, &self.engine.recount(queue), &queue)?;
            same("model: grantable", &self.engine.grantable(queue), &self.model.grantable(queue), &queue)?;
            if self.log.len().is_multiple_of(EXPLAINED_ONCE_IN) {
                self.compare_explanations(queue, &messages)?;
            }
        }
        Ok(())
    }

    fn compare_explanations(&self, queue: QueueId, messages: &[Message]) -> Result<(), Violation> {
        let mut free = Vec::new();
        for message in messages {
            let explained = self.engine.explain(queue, message.id);
            let explained = explained.map_err(|error| Violation::new("store", error.to_string()))?;
            free.extend(
                explained.iter().filter(|explained| explained.reasons.is_empty()).map(|_| message.id),
            );
            same("model: explain", &explained, &self.model.explain(queue, message.id), message)?;
        }
        // Whom nothing keeps, the next Receive gets; and somebody it gets if anybody is grantable.
        let is_consistent = free.len() as u64 == self.engine.grantable(queue).min(1);
        ensure(is_consistent, "explain", || format!("{queue:?}: nothing keeps {free:?}"))
    }

    fn observe(&mut self, commands: &[Command], applied: &Applied) -> Result<(), Violation> {
        let everything = self.everything()?;
        let next_wakeup = self.engine.next_wakeup();
        self.observer.saw((self.clock, next_wakeup), commands, applied, &everything)
    }

    /// All messages of all queues.
    fn everything(&self) -> Result<Vec<(QueueId, Vec<Message>)>, Violation> {
        self.queues.iter().map(|queue| Ok((*queue, all_of(&self.engine, *queue)?))).collect()
    }

    fn learn_receipts(
        &mut self,
        commands: &[Command],
        replies: &[Reply],
        fate: Fate,
    ) -> Result<(), Violation> {
        for (queue, delivery) in
            commands.iter().zip(replies).flat_map(|(command, reply)| deliveries(command, reply))
        {
            let (receipt, seq, epoch) = (&delivery.receipt, delivery.message.id.seq(), delivery.epoch);
            let lease = Lease { queue, seq, epoch };
            let earlier = self.receipts.insert(receipt.clone(), lease).unwrap_or(lease);
            same("receipt", &lease, &earlier, &"two deliveries with one receipt")?;
            if fate == Fate::Answered && self.known.iter().all(|(known, _)| known != receipt) {
                self.known.push((receipt.clone(), lease));
            }
        }
        Ok(())
    }

    fn learn_ids(&mut self, commands: &[Command], replies: &[Reply]) {
        for (command, reply) in commands.iter().zip(replies) {
            let new =
                crate::observer::stored(command, reply).into_iter().map(|(queue, _, sent)| (queue, sent.id));
            self.ids.extend(new);
        }
    }

    fn learn_queues(&mut self, commands: &[Command], replies: &[Reply]) {
        for (command, reply) in commands.iter().zip(replies) {
            match (command, reply) {
                (_, Reply::Configured(queue, _)) if !self.queues.contains(queue) => self.queues.push(*queue),
                (Command::Delete(delete), Reply::Deleted(deleted)) if deleted.done => {
                    self.queues.retain(|queue| *queue != delete.queue);
                }
                _ => {}
            }
        }
    }
}

/// The whole log again, on a fresh engine.
fn replay(log: &[Entry], twin: Twin) -> Result<(), Violation> {
    let store = match twin {
        Twin::Volatile => Store::volatile(ENTROPY),
        Twin::Disk => Store::on_disk(Arc::new(SimDisk::new(1)), ENTROPY, SMALL)
            .map_err(|error| Violation::new("store", error.to_string()))?,
    };
    let mut engine = open(store, START)?;
    for entry in log {
        match entry {
            Entry::Batch(now, commands, applied) => {
                let again = apply(&mut engine, *now, commands.clone())?;
                same("replay: replies", &again.replies, &applied.replies, commands)?;
                same("replay: expired", &again.expired, &applied.expired, commands)?;
            }
            Entry::Restart(now) => engine = open(engine.into_store(), *now)?,
            Entry::Digest(digest) => same("replay: digest", &engine.digest(), digest, &twin)?,
        }
    }
    Ok(())
}

fn open(store: Store, now: Timestamp) -> Result<Engine, Violation> {
    Engine::open(store, now).map_err(|error| Violation::new("store", error.to_string()))
}

fn apply(engine: &mut Engine, now: Timestamp, commands: Vec<Command>) -> Result<Applied, Violation> {
    engine.apply(now, commands).map_err(|error| Violation::new("store", error.to_string()))
}

/// All messages of a queue, page by page.
fn all_of(engine: &Engine, queue: QueueId) -> Result<Vec<Message>, Violation> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = engine.peek(queue, &Filter::default(), after, 1000);
        let (messages, next) = page.map_err(|error| Violation::new("store", error.to_string()))?;
        all.extend(messages);
        match next {
            Some(_) => after = next,
            None => return Ok(all),
        }
    }
}

fn deliveries<'a>(command: &'a Command, reply: &'a Reply) -> impl Iterator<Item = (QueueId, &'a Delivery)> {
    let pair = match (command, reply) {
        (Command::Receive(receive), Reply::Received(deliveries)) => Some((receive.queue, deliveries)),
        _ => None,
    };
    pair.into_iter().flat_map(|(queue, deliveries)| deliveries.iter().map(move |delivery| (queue, delivery)))
}

/// The model cannot make receipts.
fn without_receipts(reply: &Reply) -> Reply {
    let Reply::Received(deliveries) = reply else { return reply.clone() };
    let bare = deliveries.iter().cloned().map(|delivery| Delivery { receipt: Bytes::new(), ..delivery });
    Reply::Received(bare.collect())
}

fn same<T: PartialEq + Debug>(
    property: &'static str,
    engine: &T,
    expected: &T,
    about: &dyn Debug,
) -> Result<(), Violation> {
    ensure(engine == expected, property, || {
        format!("{about:?}\n  engine:   {engine:?}\n  expected: {expected:?}")
    })
}
