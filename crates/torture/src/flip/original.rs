//! The stores whose bits are flipped: a mix of all that can be in one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ackwell_engine::command::{
    Available, Batch, Configure, Filter, Handover, NewMessage, Outcome, Oversized, Receive, Send, Settle,
};
use ackwell_engine::message::{MessageId, Payload, Priority, QueueId, State};
use ackwell_engine::store::seal::Keys;
use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Command, Engine, Message, Reply, Settings, Store, StoreError, Timestamp};
use anyhow::{Context, bail, ensure};

use super::files::Files;
use crate::body::sized;
use crate::dice::Dice;

pub(super) const LOG: &str = "log";
pub(super) const STATE: &str = "state.redb";
const SECTOR: usize = 512;
/// When it was filled.
const THEN: Timestamp = Timestamp(1_000_000_000);
/// What is delayed is delayed for so long.
const DELAY_MS: u64 = 3_600_000;
/// When it is drained.
pub(super) const NOW: Timestamp = Timestamp(THEN.0 + 2 * DELAY_MS);
const QUEUES: [&str; 2] = ["shop/orders", "shop/logs"];
/// Small segments and checkpoints, so that each store has many, some of which lie in the tables.
const OPTIONS: Options = Options {
    segment_bytes: 64 << 10,
    checkpoint_bytes: 96 << 10,
    max_rows: 500,
    reserve_bytes: 0,
    threads: Threads::One,
};

/// A store, and what it has to have.
pub(super) struct Original {
    pub(super) files: Files,
    /// By queue and id, as an engine shows them that is opened on untouched files.
    pub(super) messages: BTreeMap<(QueueId, MessageId), Message>,
    /// Ids of messages that are gone.
    pub(super) gone: BTreeSet<MessageId>,
    /// Sent by the last batch before the process was killed.
    pub(super) last: BTreeSet<MessageId>,
    log_sectors: Vec<(String, usize)>,
    state_sectors: Vec<(String, usize)>,
}

/// Which bit, as a seed chooses it.
pub(super) struct Flip {
    pub(super) original: usize,
    pub(super) kind: &'static str,
    dice: Dice,
}

pub(super) fn kind(word: &str) -> anyhow::Result<&'static str> {
    [LOG, STATE].into_iter().find(|kind| *kind == word).with_context(|| format!("no kind of file {word}"))
}

pub(super) fn open(files: &Files, now: Timestamp) -> Result<Engine, StoreError> {
    let entropy = Entropy { receipt_key: [7; 16], salt: 0x00ab_cdef };
    let keys = files.is_sealed.then(|| Keys::new([("k1".to_owned(), [7; 32])])).flatten();
    Engine::open(Store::on_sealed_disk(Arc::new(files.clone()), entropy, OPTIONS, keys)?, now)
}

/// A message of a queue.
pub(super) type Place = (QueueId, MessageId);

/// All queues that there are, with their messages.
pub(super) fn everything(engine: &Engine) -> Result<Vec<(Place, Message)>, StoreError> {
    let mut all = Vec::new();
    for queue in QUEUES.iter().filter_map(|name| engine.queue(name)) {
        let mut after = None;
        loop {
            let (messages, next) = engine.peek(queue, &Filter::default(), after, 1000)?;
            all.extend(messages.into_iter().map(|message| ((queue, message.id), message)));
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
    }
    Ok(all)
}

impl Original {
    /// One whose process was stopped: all of it is in its last checkpoint.
    pub(super) fn closed(is_sealed: bool) -> anyhow::Result<Self> {
        let (files, engine, filling) = Filling::of_a_store(is_sealed)?;
        engine.close()?;
        Self::of(files, filling)
    }

    /// One whose process was killed: the end of the log is in no checkpoint.
    pub(super) fn killed(is_sealed: bool) -> anyhow::Result<Self> {
        let (files, engine, filling) = Filling::of_a_store(is_sealed)?;
        let files = files.copy();
        drop(engine);
        Self::of(files, filling)
    }

    fn of(files: Files, filling: Filling) -> anyhow::Result<Self> {
        let engine = open(&files.copy(), NOW)?;
        let messages: BTreeMap<_, _> = everything(&engine)?.into_iter().collect();
        let states: BTreeSet<_> = messages.values().map(|message| format!("{:?}", message.state)).collect();
        ensure!(states.len() == 4, "a store has messages in all states, not only {states:?}");
        let is_gone = |id: &MessageId| messages.values().all(|message| message.id != *id);
        let gone = filling.ids.iter().copied().filter(is_gone).collect();
        let (log_sectors, state_sectors) = (files.sectors(".log", SECTOR), files.sectors(STATE, SECTOR));
        Ok(Self { files, messages, gone, last: filling.last, log_sectors, state_sectors })
    }

    /// What the seed chooses, as far as the files do not matter.
    pub(super) fn flip(seed: u64) -> Flip {
        let mut dice = Dice::new(seed);
        let original = usize::from(dice.one_in(2)) + 2 * usize::from(dice.one_in(2));
        Flip { original, kind: if dice.one_in(2) { LOG } else { STATE }, dice }
    }

    /// A copy with the bit turned over, and where that is.
    pub(super) fn flipped(&self, flip: &Flip) -> (Files, String) {
        let mut dice = flip.dice.clone();
        let sectors = if flip.kind == LOG { &self.log_sectors } else { &self.state_sectors };
        let index = dice.below(sectors.len() as u64);
        let (name, start) = &sectors[usize::try_from(index).expect("it is below a length")];
        let at = start + usize::try_from(dice.below(SECTOR as u64)).expect("it is below a sector");
        let bit = u8::try_from(dice.below(8)).expect("it is below 8");
        let files = self.files.copy();
        files.flip(name, at, bit);
        (files, format!("{name} byte {at} bit {bit}"))
    }
}

/// How a store is filled.
struct Filling {
    dice: Dice,
    sent: u64,
    ids: Vec<MessageId>,
    last: BTreeSet<MessageId>,
}

impl Filling {
    fn of_a_store(is_sealed: bool) -> anyhow::Result<(Files, Engine, Self)> {
        let files = Files::new(is_sealed);
        let mut engine = open(&files, THEN)?;
        let mut filling = Self { dice: Dice::new(1), sent: 0, ids: Vec::new(), last: BTreeSet::new() };
        for name in QUEUES {
            let settings = Settings { dead_ms: 0, ..Settings::default() };
            let configure = Configure { name: name.to_owned(), generation: 1, settings };
            engine.apply(THEN, vec![Command::Configure(configure)])?;
        }
        for round in 0..60 {
            for name in QUEUES {
                let queue = engine.queue(name).context("it was configured")?;
                filling.send(&mut engine, queue)?;
                filling.consume(&mut engine, queue, round)?;
            }
        }
        let queue = engine.queue(QUEUES[0]).context("it was configured")?;
        let before = filling.ids.len();
        filling.send(&mut engine, queue)?;
        filling.last = filling.ids[before..].iter().copied().collect();
        Ok((files, engine, filling))
    }

    fn send(&mut self, engine: &mut Engine, queue: QueueId) -> anyhow::Result<()> {
        let messages: Vec<NewMessage> = (0..12).map(|_| self.message()).collect();
        let request_id = format!("request-{}", self.sent);
        let send = Send { queue, messages, batch: Batch::Each, request_id };
        let Some(Reply::Sent(results)) = engine.apply(THEN, vec![Command::Send(send)])?.replies.pop() else {
            bail!("a send is answered");
        };
        for sent in results {
            self.ids.push(sent.map_err(|refusal| anyhow::anyhow!("{refusal}"))?.id);
        }
        Ok(())
    }

    fn message(&mut self) -> NewMessage {
        self.sent += 1;
        let len = usize::try_from(8 + self.dice.below(1500)).expect("bodies fit into memory");
        let dedup_id = if self.dice.one_in(3) { format!("dedup-{}", self.sent) } else { String::new() };
        NewMessage {
            payload: Payload {
                body: sized(self.sent, len),
                headers: vec![("number".to_owned(), self.sent.to_string())],
                content_type: "application/octet-stream".to_owned(),
                dedup_id,
                ordering_key: if self.dice.one_in(4) {
                    format!("o{}", self.dice.below(20))
                } else {
                    String::new()
                },
                fairness_key: if self.dice.one_in(4) {
                    format!("f{}", self.dice.below(5))
                } else {
                    String::new()
                },
            },
            available: if self.dice.one_in(10) { Available::After(DELAY_MS) } else { Available::Now },
            priority: Priority::new(4).expect("it is below ten"),
            ..NewMessage::default()
        }
    }

    /// Most are acked, so that segments become sparse; some fail, some die, some stay in flight.
    fn consume(&mut self, engine: &mut Engine, queue: QueueId, round: u64) -> anyhow::Result<()> {
        let receive = receive(queue, if round < 40 { 10 } else { 4 });
        let Some(Reply::Received(deliveries)) = engine.apply(THEN, vec![receive])?.replies.pop() else {
            bail!("a receive is answered");
        };
        let mut settlements = Vec::new();
        for delivery in deliveries {
            let reason = "bad".to_owned();
            match self.dice.below(20) {
                0 => settlements.push((delivery.receipt, Outcome::Reject { reason })),
                1 => settlements.push((delivery.receipt, Outcome::Nack { delay_ms: Some(DELAY_MS), reason })),
                2 if round > 30 => {}
                _ => settlements.push((delivery.receipt, Outcome::Ack)),
            }
        }
        engine.apply(THEN, vec![Command::Settle(Settle { queue, settlements })])?;
        Ok(())
    }
}

pub(super) fn receive(queue: QueueId, max_messages: u32) -> Command {
    Command::Receive(Receive {
        queue,
        max_messages,
        max_bytes: 16 << 20,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "worker".to_owned(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    })
}

/// Only for the sake of those that are not asked for in particular.
pub(super) fn dead() -> Filter {
    Filter { states: vec![State::Dead], ..Filter::default() }
}
