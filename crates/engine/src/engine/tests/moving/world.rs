//! Three shards, an operator, sidecars and a consumer in one thread, and a ledger of what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{
    Batch, Command, Configure, Delivery, Filter, Handover, Mode, NewMessage, Outcome, Oversized, Receive,
    Refusal, Reply, Selection, Send, Sent, Settle,
};
use crate::message::{MessageId, Payload, Priority, QueueId, State};
use crate::moving::{
    Arrive, Arrived, Depart, Departing, Forget, Import, Leaving, Place, Placement, Traveller,
};
use crate::settings::{IDEMPOTENCY_WINDOW_MS, Settings};
use crate::slots::shard_of;
use crate::store::Entropy;
use crate::store::tests::{MemoryDisk, SMALL};
use crate::{Engine, Store, Timestamp};

const SHARDS: u32 = 3;
const KEYS: u64 = 12;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Volatile,
    OnDisk,
}

struct Shard {
    engine: Option<Engine>,
    disk: Option<Arc<MemoryDisk>>,
    entropy: Entropy,
    queue: QueueId,
    /// What its mover remembers: the targets that accepted, for a generation.
    accepted: (u64, Vec<u32>),
    /// And those that know that nothing is left for them here.
    told: (u64, Vec<u32>),
}

impl Shard {
    fn new(kind: Kind, ordinal: u32, now: Timestamp) -> Self {
        let byte = u8::try_from(ordinal).unwrap() + 1;
        let entropy = Entropy { receipt_key: [byte; 16], salt: 100 + ordinal };
        let disk = matches!(kind, Kind::OnDisk).then(Arc::<MemoryDisk>::default);
        let store = match &disk {
            Some(disk) => Store::on_disk(Arc::<MemoryDisk>::clone(disk), entropy, SMALL).unwrap(),
            None => Store::volatile(entropy),
        };
        let mut engine = Engine::open(store, now).unwrap();
        let configure =
            Configure { name: "shop/orders".into(), generation: 1, settings: Settings::default() };
        let reply = engine.apply(now, vec![Command::Configure(configure)]).unwrap().replies.remove(0);
        let Reply::Configured(queue, _) = reply else { panic!("{reply:?}") };
        Self { engine: Some(engine), disk, entropy, queue, accepted: (0, Vec::new()), told: (0, Vec::new()) }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn apply(&mut self, now: Timestamp, command: Command) -> Reply {
        let engine = self.engine.as_mut().unwrap();
        let before = engine.survivor();
        let replies = engine.apply(now, vec![command]).unwrap().replies;
        // Without a log to replay, dying before the checkpoint is dying before the command.
        drop(before);
        replies.into_iter().next().unwrap()
    }

    fn crash(&mut self, now: Timestamp) {
        let engine = self.engine.take().unwrap();
        let store = match &self.disk {
            Some(disk) => {
                drop(engine);
                Store::on_disk(Arc::<MemoryDisk>::clone(disk), self.entropy, SMALL).unwrap()
            }
            None => engine.survivor().unwrap(),
        };
        self.engine = Some(Engine::open(store, now).unwrap());
        self.accepted = (0, Vec::new());
        self.told = (0, Vec::new());
    }
}

/// A message that was answered OK.
struct Known {
    id: MessageId,
    key: Option<String>,
    dedup: (String, Timestamp),
    request: (String, Timestamp),
    attempts: u32,
    stored_at: Timestamp,
    fate: Fate,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Held(usize, Bytes),
    Dead,
    Acked,
}

pub(super) struct World {
    dice: u64,
    now: Timestamp,
    shards: Vec<Shard>,
    /// The operator's newest, without an ordinal.
    placement: Placement,
    /// By body, which counts: the order of storing.
    ledger: BTreeMap<u64, Known>,
    next_body: u64,
}

impl World {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let now = Timestamp(1_000_000);
        let shards = (0..SHARDS).map(|ordinal| Shard::new(kind, ordinal, now)).collect();
        let placement = Placement { generation: 1, ordinal: 0, from: SHARDS, to: SHARDS };
        let mut world =
            Self { dice: seed | 1, now, shards, placement, ledger: BTreeMap::new(), next_body: 0 };
        (0..3).for_each(|ordinal| world.tell_placement(ordinal));
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 20) % bound
    }

    fn any_shard(&mut self) -> usize {
        usize::try_from(self.below(u64::from(SHARDS))).unwrap()
    }

    pub(super) fn step(&mut self) {
        self.now = self.now.plus_ms(1 + self.below(40));
        let shard = self.any_shard();
        match self.below(20) {
            0..=4 => self.send_new(),
            5 => self.send_known(),
            6..=9 => self.receive(shard),
            10..=13 => self.settle_any(),
            14..=16 => self.move_some(shard),
            17 => self.crash(shard),
            18 => self.tell_placement(shard),
            _ => self.operate(),
        }
    }

    fn crash(&mut self, shard: usize) {
        self.shards[shard].crash(self.now);
    }

    fn send_new(&mut self) {
        let body = self.next_body;
        self.next_body += 1;
        let has_key = !body.is_multiple_of(5) && self.below(4) > 0;
        let key = has_key.then(|| format!("key-{}", self.below(KEYS)));
        let request = format!("request-{body}");
        let Some(sent) = self.send(body, key.as_deref(), &request) else { return };
        assert!(!sent.duplicate, "message {body} is new");
        let known = Known {
            id: sent.id,
            key,
            dedup: (dedup_of(body), self.now),
            request: (request, self.now),
            attempts: 0,
            stored_at: self.now,
            fate: Fate::Waits,
        };
        self.ledger.insert(body, known);
    }

    /// Sends again what was stored, as one who did not hear the answer, or with its dedup id alone.
    fn send_known(&mut self) {
        let count = self.ledger.len() as u64;
        if count == 0 {
            return;
        }
        let at = usize::try_from(self.below(count)).unwrap();
        let (body, known) = self.ledger.iter().nth(at).map(|(body, known)| (*body, known)).unwrap();
        let (key, id) = (known.key.clone(), known.id);
        let is_fresh = self.now.ms_since(known.request.1) < IDEMPOTENCY_WINDOW_MS;
        let has_id = !known.dedup.0.is_empty();
        let is_known = has_id && self.now.ms_since(known.dedup.1) < Settings::default().dedup_window_ms;
        let repeats = self.below(2) == 0 && is_fresh;
        let request = if repeats { self.ledger[&body].request.0.clone() } else { String::new() };
        if !repeats && !is_known {
            return;
        }
        if let Some(sent) = self.send(body, key.as_deref(), &request) {
            assert_eq!((sent.id, sent.duplicate), (id, !repeats), "message {body}, request {request:?}");
        }
    }

    /// As a sidecar does: where it was at home before, then where it will be. `None`: neither takes it now.
    fn send(&mut self, body: u64, key: Option<&str>, request_id: &str) -> Option<Sent> {
        let dedup_id = dedup_of(body);
        let home =
            key.or(Some(&dedup_id).filter(|id| !id.is_empty()).map(String::as_str)).unwrap_or(request_id);
        for shards in [self.placement.from, self.placement.to] {
            let payload = Payload {
                body: body.to_string().into(),
                ordering_key: key.unwrap_or_default().into(),
                dedup_id: dedup_id.clone(),
                fairness_key: format!("tenant-{}", body % 3),
                headers: vec![("number".into(), body.to_string())],
                ..Payload::default()
            };
            let priority = Priority::new(3).unwrap();
            let message = NewMessage {
                payload,
                priority,
                max_attempts: Some(40),
                position: Some(7),
                ..NewMessage::default()
            };
            let shard = &mut self.shards[shard_of(home, shards) as usize];
            let send = Send {
                queue: shard.queue,
                messages: vec![message],
                batch: Batch::Each,
                request_id: request_id.into(),
            };
            match shard.apply(self.now, Command::Send(send)) {
                Reply::Sent(results) => match results.into_iter().next().unwrap() {
                    Ok(stored) => return Some(stored),
                    Err(refusal) => assert_eq!(refusal, Refusal::Moved),
                },
                other => panic!("{other:?}"),
            }
        }
        None
    }

    fn receive(&mut self, shard: usize) {
        let Some(delivery) = self.receive_from(shard) else { return };
        let body = body_of(&delivery);
        let known = &self.ledger[&body];
        assert_eq!(known.fate, Fate::Waits, "message {body} comes although it is {:?}", known.fate);
        assert_eq!(delivery.message.id, known.id, "message {body} has its id");
        assert_eq!(delivery.message.attempts, known.attempts, "message {body} has its attempts");
        assert_eq!(delivery.message.stored_at, known.stored_at);
        assert_eq!(delivery.message.history.len(), known.attempts.min(16) as usize);
        assert_eq!((delivery.message.priority.level(), delivery.message.max_attempts), (3, Some(40)));
        assert_eq!(delivery.message.payload.headers, [("number".to_owned(), body.to_string())]);
        if let Some(key) = known.key.clone() {
            self.check_order(body, &key);
        }
        let held = Fate::Held(shard, delivery.receipt);
        self.ledger.get_mut(&body).unwrap().fate = held;
    }

    /// Of a key one is out at a time, and it is the first.
    fn check_order(&self, body: u64, key: &str) {
        let line = self.ledger.iter().filter(|(_, known)| known.key.as_deref() == Some(key));
        let mut open = line.filter(|(_, known)| matches!(known.fate, Fate::Waits | Fate::Held(..)));
        let (first, known) = open.next().unwrap();
        assert_eq!((*first, &known.fate), (body, &Fate::Waits), "{key}: {body} comes before {first}");
        assert!(open.all(|(_, known)| known.fate == Fate::Waits), "{key}: another one is held");
    }

    fn receive_from(&mut self, shard: usize) -> Option<Delivery> {
        let shard = &mut self.shards[shard];
        let receive = Receive {
            queue: shard.queue,
            max_messages: 1,
            max_bytes: 1 << 20,
            oversized: Oversized::Comes,
            ack_timeout_ms: Some(12 * 3_600_000),
            consumer: "worker".into(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        };
        match shard.apply(self.now, Command::Receive(receive)) {
            Reply::Received(mut deliveries) => deliveries.pop(),
            other => panic!("{other:?}"),
        }
    }

    fn settle_any(&mut self) {
        let held: Vec<u64> = self.held().collect();
        if held.is_empty() {
            return;
        }
        let at = usize::try_from(self.below(held.len() as u64)).unwrap();
        let choice = self.below(6);
        self.settle(held[at], choice);
    }

    fn held(&self) -> impl Iterator<Item = u64> {
        self.ledger.iter().filter(|(_, known)| matches!(known.fate, Fate::Held(..))).map(|(body, _)| *body)
    }

    fn settle(&mut self, body: u64, choice: u64) {
        let known = self.ledger.get_mut(&body).unwrap();
        let Fate::Held(shard, receipt) = std::mem::replace(&mut known.fate, Fate::Waits) else { panic!() };
        let outcome = match choice {
            0 => Outcome::Release,
            1 => Outcome::Nack { delay_ms: None, reason: "no".into() },
            2 => Outcome::Nack { delay_ms: Some(0), reason: "no".into() },
            3 => Outcome::Reject { reason: "never".into() },
            _ => Outcome::Ack,
        };
        known.attempts += u32::from((1..=3).contains(&choice));
        known.fate = match choice {
            0..=2 => Fate::Waits,
            3 => Fate::Dead,
            _ => Fate::Acked,
        };
        let shard = &mut self.shards[shard];
        let settle = Settle { queue: shard.queue, settlements: vec![(receipt, outcome)] };
        let reply = shard.apply(self.now, Command::Settle(settle));
        let Reply::Settled(results) = reply else { panic!("{reply:?}") };
        results[0].as_ref().unwrap_or_else(|refusal| panic!("message {body}: {refusal}"));
    }

    fn tell_placement(&mut self, shard: usize) {
        let placement = Placement { ordinal: u32::try_from(shard).unwrap(), ..self.placement };
        let queue = self.shards[shard].queue;
        self.shards[shard].apply(self.now, Command::Place(Place { queue, placement }));
    }

    /// The next placement, once everybody knows the last one and has nothing left to do for it.
    fn operate(&mut self) {
        let Placement { generation, from, to, .. } = self.placement;
        let is_told = |shard: &Shard| shard.engine().placement(shard.queue).generation == generation;
        if !self.shards.iter().all(is_told) || !(0..SHARDS as usize).all(|shard| self.is_done(shard)) {
            return;
        }
        let to_come = if from == to { 1 + u32::try_from(self.below(u64::from(SHARDS))).unwrap() } else { to };
        // Down it goes one by one.
        let next = if to_come < to { to - 1 } else { to_come };
        self.placement = Placement { generation: generation + 1, from: to, to: next, ordinal: 0 };
    }

    fn is_done(&self, shard: usize) -> bool {
        let Shard { queue, accepted, told, .. } = &self.shards[shard];
        let engine = self.shards[shard].engine();
        let Some(Leaving { placement, is_left, targets, remembers_until, .. }) = engine.leaving(*queue)
        else {
            return true;
        };
        let is_known = |to: &(u64, Vec<u32>)| {
            to.0 == placement.generation && targets.iter().all(|one| to.1.contains(one))
        };
        is_left && is_known(accepted) && is_known(told) && remembers_until <= self.now
    }

    /// One round of a shard's mover, in which every call may die on its way, there or back.
    fn move_some(&mut self, shard: usize) {
        let Shard { queue, .. } = self.shards[shard];
        let Some(leaving) = self.shards[shard].engine().leaving(queue) else { return };
        let placement = leaving.placement;
        if self.shards[shard].accepted.0 != placement.generation {
            self.shards[shard].accepted = (placement.generation, Vec::new());
            self.shards[shard].told = (placement.generation, Vec::new());
        }
        for target in leaving.targets.clone() {
            if !self.shards[shard].accepted.1.contains(&target) && !self.open(shard, &leaving, target) {
                return;
            }
        }
        let max_messages = 1 + usize::try_from(self.below(4)).unwrap();
        let depart = Command::Depart(Depart { queue, max_messages, max_bytes: 1 << 20 });
        let reply = self.shards[shard].apply(self.now, depart);
        let Reply::Departing(page) = reply else { panic!("{reply:?}") };
        match page {
            Some(page) => self.carry(shard, placement, &page),
            None => {
                for target in leaving.targets {
                    self.tell_waiting(shard, placement, target);
                }
            }
        }
    }

    /// A step that is lost: before it is done, or its answer.
    fn is_lost(&mut self) -> bool {
        let is_lost = self.below(6) == 0;
        if is_lost && self.below(2) == 0 {
            let shard = self.any_shard();
            self.crash(shard);
        }
        is_lost
    }

    fn open(&mut self, shard: usize, leaving: &Leaving, target: u32) -> bool {
        let placement = Placement { ordinal: target, ..leaving.placement };
        let queue = self.shards[target as usize].queue;
        let arrive = Arrive { queue, placement, source: leaving.source.clone() };
        let reply = self.shards[target as usize].apply(self.now, Command::Arrive(arrive));
        let Reply::Arrived(Arrived { accepts, .. }) = reply else { return false };
        if self.is_lost() {
            return false;
        }
        let (mut after, mut is_known) = (String::new(), accepts);
        while !is_known {
            let page = self.shards[shard].engine().dedup_ids(self.shards[shard].queue, &after, 5);
            is_known = page.len() < 5;
            after = page.last().map(|known| known.dedup_id.clone()).unwrap_or_default();
            let import = Import {
                dedup_ids: page,
                accepts: is_known,
                ..self.nothing(shard, leaving.placement, target)
            };
            self.shards[target as usize].apply(self.now, Command::Import(import));
            if self.is_lost() {
                return false;
            }
        }
        self.shards[shard].accepted.1.push(target);
        true
    }

    fn nothing(&self, shard: usize, placement: Placement, target: u32) -> Import {
        Import {
            queue: self.shards[target as usize].queue,
            generation: placement.generation,
            source: u32::try_from(shard).unwrap(),
            transfer: 0,
            messages: Vec::new(),
            dedup_ids: Vec::new(),
            waiting: None,
            accepts: false,
        }
    }

    fn tell_waiting(&mut self, shard: usize, placement: Placement, target: u32) {
        let waiting = self.shards[shard].engine().waiting(self.shards[shard].queue, target);
        let is_last = waiting.is_empty();
        let import = Import { waiting: Some(waiting), ..self.nothing(shard, placement, target) };
        let reply = self.shards[target as usize].apply(self.now, Command::Import(import));
        if is_last && matches!(reply, Reply::Imported(_)) {
            self.shards[shard].told.1.push(target);
        }
    }

    fn carry(&mut self, shard: usize, placement: Placement, page: &Departing) {
        let &Departing { target, transfer, .. } = page;
        let queue = self.shards[shard].queue;
        let travellers = self.shards[shard].engine().travellers(queue).unwrap();
        let messages = Traveller::decode(&Traveller::encode(&travellers)).unwrap();
        assert_eq!(messages, travellers);
        let waiting = Some(self.shards[shard].engine().waiting(queue, target));
        let import = Import { transfer, messages, waiting, ..self.nothing(shard, placement, target) };
        if self.is_lost() {
            return;
        }
        let reply = self.shards[target as usize].apply(self.now, Command::Import(import));
        // The target's mover may not have begun anew after a placement that came meanwhile.
        if !matches!(reply, Reply::Imported(_)) || self.is_lost() {
            return;
        }
        self.shards[shard].apply(self.now, Command::Forget(Forget { queue, target, transfer }));
        _ = self.is_lost();
    }

    /// Everything that was stored and not acked is there once, and comes in order.
    pub(super) fn finish(&mut self) {
        let held: Vec<u64> = self.held().collect();
        held.into_iter().for_each(|body| self.settle(body, 0));
        self.settle_down();
        self.redrive();
        // Backoffs end.
        self.now = self.now.plus_ms(3_600_000);
        while self.receive_and_ack() {}
        let left: Vec<_> = self.ledger.iter().filter(|(_, known)| known.fate != Fate::Acked).collect();
        let left: Vec<_> = left.into_iter().map(|(body, known)| (body, &known.key, &known.fate)).collect();
        assert!(left.is_empty(), "lost: {left:?}");
        for shard in &self.shards {
            assert_eq!(shard.engine().stats(shard.queue).counts.messages(), 0);
        }
    }

    fn settle_down(&mut self) {
        for _ in 0..500 {
            self.now = self.now.plus_ms(10_000);
            (0..SHARDS as usize).for_each(|shard| self.tell_placement(shard));
            (0..SHARDS as usize).for_each(|shard| (0..4).for_each(|_| self.move_some(shard)));
            if (0..SHARDS as usize).all(|shard| self.is_done(shard)) {
                let Placement { generation, from, to, .. } = self.placement;
                if from == to {
                    return;
                }
                self.placement = Placement { generation: generation + 1, from: to, to, ordinal: 0 };
            }
        }
        panic!("a move does not end: {:?}", self.placement);
    }

    fn redrive(&mut self) {
        for shard in &mut self.shards {
            let filter = Filter { states: vec![State::Dead], ..Filter::default() };
            let selection = Selection {
                queue: shard.queue,
                filter,
                after: None,
                max_messages: 1 << 20,
                mode: Mode::Apply,
            };
            shard.apply(self.now, Command::Redrive(selection));
        }
        let dead = self.ledger.values_mut().filter(|known| known.fate == Fate::Dead);
        dead.for_each(|known| known.fate = Fate::Waits);
        // Redriven messages start anew, and their histories stay.
        self.ledger.values_mut().for_each(|known| known.attempts = u32::MAX);
    }

    fn receive_and_ack(&mut self) -> bool {
        let mut is_any = false;
        for shard in 0..SHARDS as usize {
            while let Some(delivery) = self.receive_from(shard) {
                is_any = true;
                let body = body_of(&delivery);
                let known = &self.ledger[&body];
                assert_eq!((&known.fate, delivery.message.id), (&Fate::Waits, known.id), "message {body}");
                if let Some(key) = known.key.clone() {
                    self.check_order(body, &key);
                }
                self.ledger.get_mut(&body).unwrap().fate = Fate::Held(shard, delivery.receipt);
                self.settle(body, 4);
            }
        }
        is_any
    }
}

/// Every fifth has neither key nor dedup id: it belongs where its request is remembered.
fn dedup_of(body: u64) -> String {
    if body.is_multiple_of(5) { String::new() } else { format!("dedup-{body}") }
}

fn body_of(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.message.payload.body).unwrap().parse().unwrap()
}
