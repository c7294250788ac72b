//! Random histories: the engine against the [`model`](super::model), and against itself.
//!
//! `PROPTEST_CASES=100000 cargo test -p ackwell-engine histories` looks longer.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::model::{Answer, End, Handed, Item, Model, Shown};
use crate::command::{
    Available, Batch, Command, Configure, Extend, Filter, Mode, NewMessage, Outcome, Receive, Reply,
    Selection, Send, Settle,
};
use crate::message::{Payload, QueueId, State};
use crate::messages::Counts;
use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};
use crate::store::tests::ENTROPY;
use crate::{Engine, Store, Timestamp};

const START: Timestamp = Timestamp(1_000_000);
const QUEUES: [QueueId; 2] = [QueueId(1), QueueId(2)];

#[derive(Clone, Debug)]
enum Step {
    Batch {
        after_ms: u64,
        back_ms: u64,
        asks: Vec<Ask>,
    },
    /// Exactly to the next wakeup, or one millisecond before.
    Wake {
        early_ms: u64,
    },
    Restart {
        after_ms: u64,
    },
}

#[derive(Clone, Debug)]
enum Ask {
    Configure(QueueId, Settings),
    Send(QueueId, Vec<Item>, bool, String),
    Receive(QueueId, (u64, u64), Option<u64>, String),
    Settle(QueueId, Vec<(Index, End)>),
    Extend(QueueId, Vec<Index>, Option<u64>),
    Redrive(QueueId, u64, bool),
}

proptest! {
    #![proptest_config(config())]

    /// Promise: replies, counts, stored messages and the next wakeup are what the rules say, whatever happens in
    /// whatever order, restarts included; and the same history leads to the same bytes on disk.
    #[test]
    fn any_history_is_as_the_model_says(steps in vec(step(), 1..50)) {
        let mut play = Play::new();
        steps.into_iter().for_each(|step| play.step(step));
        prop_assert_eq!(play.engine.store.dump(), play.twin.store.dump());
    }
}

/// Ten seconds' worth, unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if asked.cases == 256 { 64 } else { asked.cases };
    ProptestConfig { cases, ..asked }
}

fn step() -> impl Strategy<Value = Step> {
    let after_ms = prop_oneof![3 => Just(0), 3 => 0u64..20_000, 1 => 0u64..400_000];
    let back_ms = prop_oneof![9 => Just(0), 1 => 0u64..100_000];
    prop_oneof![
        12 => (after_ms, back_ms, vec(ask(), 0..4))
            .prop_map(|(after_ms, back_ms, asks)| Step::Batch { after_ms, back_ms, asks }),
        3 => (0u64..2).prop_map(|early_ms| Step::Wake { early_ms }),
        2 => prop_oneof![Just(0), 0u64..100_000].prop_map(|after_ms| Step::Restart { after_ms }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let queue = || prop_oneof![4 => Just(QUEUES[0]), 1 => Just(QUEUES[1])];
    let id = || select(vec!["", "", "", "r", "s"]).prop_map(str::to_owned);
    let ack_ms = || option::weighted(0.3, select(vec![1000, 20_000, 600_000]));
    let max_bytes = select(vec![1, 30, 1000]);
    prop_oneof![
        1 => (queue(), settings()).prop_map(|(queue, settings)| Ask::Configure(queue, settings)),
        6 => (queue(), vec(item(), 1..5), any::<bool>(), id()).prop_map(|(q, items, atomic, id)| Ask::Send(q, items, atomic, id)),
        6 => (queue(), (1u64..5, max_bytes), ack_ms(), id()).prop_map(|(q, max, ack_ms, id)| Ask::Receive(q, max, ack_ms, id)),
        8 => (queue(), vec((any::<Index>(), end()), 1..4)).prop_map(|(queue, ends)| Ask::Settle(queue, ends)),
        3 => (queue(), vec(any::<Index>(), 1..4), ack_ms()).prop_map(|(queue, held, ms)| Ask::Extend(queue, held, ms)),
        1 => (queue(), select(vec![0, 1, 2, u64::MAX]), any::<bool>()).prop_map(|(queue, max, dry)| Ask::Redrive(queue, max, dry)),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let delay_ms = prop_oneof![4 => Just(0), 1 => 1u64..30_000];
    let ttl_ms = option::weighted(0.3, 1u64..40_000);
    let dedup_id = select(vec!["", "", "", "x", "y"]);
    (0u64..24, delay_ms, ttl_ms, option::weighted(0.3, 1u32..4), dedup_id).prop_map(
        |(bytes, delay_ms, ttl_ms, max_attempts, dedup_id)| Item {
            bytes,
            delay_ms,
            ttl_ms,
            max_attempts,
            dedup_id: dedup_id.to_owned(),
        },
    )
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Ack),
        3 => option::of(0u64..20_000).prop_map(End::Nack),
        2 => Just(End::Release),
        1 => Just(End::Reject),
        2 => Just(End::Lost),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let policy = select(vec![BackoffPolicy::Constant, BackoffPolicy::Linear, BackoffPolicy::Exponential]);
    let times = (select(vec![5000, 30_000]), select(vec![0, 20_000, 60_000]), select(vec![0, 1, 50_000]));
    let limits = (select(vec![0, 3, 20]), select(vec![0, 60]), 16u64..32, select(vec![1, 3, 100]));
    let expired = select(vec![Expired::DeadLetter, Expired::Drop]);
    (policy, times, limits, 1u32..5, expired, select(vec![0, 20_000])).prop_map(
        |(
            policy,
            (ack, processing, dead),
            (messages, bytes, body, in_flight),
            max_attempts,
            expired,
            dedup,
        )| {
            Settings {
                ack_timeout_ms: ack,
                max_processing_ms: processing,
                max_attempts,
                backoff: Backoff { policy, min_ms: 1000, max_ms: 5000 },
                max_messages: messages,
                max_bytes: bytes,
                max_message_bytes: body,
                max_in_flight: in_flight,
                dead_ms: dead,
                dedup_window_ms: dedup,
                expired,
                ..Settings::default()
            }
        },
    )
}

/// The engine, the same again, and the model.
struct Play {
    now: Timestamp,
    engine: Engine,
    twin: Engine,
    model: Model,
    generation: u64,
    receipts: Vec<(QueueId, u64, u64, Bytes)>,
}

impl Play {
    fn new() -> Self {
        let open = || Engine::open(Store::in_memory(ENTROPY).unwrap(), START).unwrap();
        let settings = vec![Settings { ack_timeout_ms: 10_000, ..Settings::default() }; 2];
        let model = Model::new(START, settings.clone());
        let mut play =
            Self { now: START, engine: open(), twin: open(), model, generation: 0, receipts: Vec::new() };
        play.batch(
            QUEUES.into_iter().zip(settings).map(|(queue, rules)| Ask::Configure(queue, rules)).collect(),
        );
        play
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Batch { after_ms, back_ms, asks } => {
                self.now = Timestamp(self.now.plus_ms(after_ms).0.saturating_sub(back_ms));
                self.batch(asks);
            }
            Step::Wake { early_ms } => {
                let at = self.engine.next_wakeup().unwrap_or(self.now);
                self.now = Timestamp(at.0 - early_ms).max(self.now);
                self.batch(Vec::new());
            }
            Step::Restart { after_ms } => self.restart(after_ms),
        }
        self.compare_states();
    }

    fn restart(&mut self, after_ms: u64) {
        // A clock that stepped back over a restart is a story of its own.
        self.now = self.now.max(self.model.now).plus_ms(after_ms);
        let fresh = || Engine::open(Store::in_memory(ENTROPY).unwrap(), START).unwrap();
        for engine in [&mut self.engine, &mut self.twin] {
            *engine = std::mem::replace(engine, fresh()).reopen(self.now);
        }
        self.model.restart(self.now);
    }

    fn batch(&mut self, asks: Vec<Ask>) {
        let commands: Vec<Command> = asks.iter().map(|ask| self.command(ask)).collect();
        let applied = self.engine.apply(self.now, commands.clone()).unwrap();
        let again = self.twin.apply(self.now, commands).unwrap();
        assert_eq!(format!("{applied:?}"), format!("{again:?}"), "the same commands, another answer");

        let expected = self.expected(asks);
        self.learn_receipts(&applied.replies);
        let answers: Vec<Answer> = applied.replies.into_iter().map(answer).collect();
        assert_eq!(answers, expected);
        let expired: Vec<u64> =
            applied.expired.iter().map(|receipt| self.engine.sealer.open(receipt).unwrap().epoch.0).collect();
        assert_eq!(expired, self.model.expired);
    }

    fn compare_states(&self) {
        assert_eq!(self.engine.next_wakeup(), self.model.next_wakeup());
        for queue in QUEUES {
            let (messages, next) = self.engine.peek(queue, &Filter::default(), None, usize::MAX).unwrap();
            assert_eq!(next, None);
            let shown: Vec<Shown> = messages.iter().map(shown).collect();
            assert_eq!(shown, self.model.shown(queue));
            let stats = self.engine.stats(queue);
            assert_eq!(stats.counts, count(&shown, self.model.bytes(queue)));
            assert_eq!(stats.oldest_ready, self.model.oldest_ready(queue));
        }
    }

    fn expected(&mut self, asks: Vec<Ask>) -> Vec<Answer> {
        enum Open {
            Answer(Answer),
            Handed(Vec<(u64, u64)>),
        }
        self.model.begin(self.now);
        let answers: Vec<Open> = asks
            .into_iter()
            .map(|ask| match ask {
                Ask::Receive(queue, max, ack_ms, request) => {
                    match self.model.receive(queue, max, ack_ms, &request) {
                        Ok(held) => Open::Handed(held),
                        Err(refusal) => Open::Answer(Answer::Refused(refusal)),
                    }
                }
                ask => Open::Answer(self.expect_one(ask)),
            })
            .collect();
        let close = |open| match open {
            Open::Answer(answer) => answer,
            Open::Handed(held) => self.model.shown_deliveries(&held),
        };
        answers.into_iter().map(close).collect()
    }

    fn expect_one(&mut self, ask: Ask) -> Answer {
        let receipts = self.receipts.clone();
        let model = &mut self.model;
        match ask {
            Ask::Configure(queue, settings) => model.configure(queue, settings),
            Ask::Send(queue, items, atomic, request) => model.send(queue, &items, atomic, &request),
            Ask::Settle(queue, ends) => Answer::Settled(
                ends.into_iter()
                    .map(|(index, end)| match pick(&receipts, queue, index) {
                        Some((seq, epoch)) => model.settle(seq, epoch, end),
                        None => Err(crate::Refusal::InvalidReceipt),
                    })
                    .collect(),
            ),
            Ask::Extend(queue, held, ms) => Answer::Extended(
                held.iter()
                    .map(|index| match pick(&receipts, queue, *index) {
                        Some((seq, epoch)) => model.extend(seq, epoch, ms),
                        None => Err(crate::Refusal::InvalidReceipt),
                    })
                    .collect(),
            ),
            Ask::Redrive(queue, max, is_dry) => model.redrive(queue, max, is_dry),
            Ask::Receive(..) => unreachable!("answered by the caller"),
        }
    }

    fn command(&mut self, ask: &Ask) -> Command {
        match ask.clone() {
            Ask::Configure(queue, settings) => {
                self.generation += 1;
                let name = format!("shop/{}", queue.0);
                Command::Configure(Configure { name, generation: self.generation, settings })
            }
            Ask::Send(queue, items, atomic, request_id) => {
                let batch = if atomic { Batch::Atomic } else { Batch::Each };
                let messages = items.into_iter().map(new_message).collect();
                Command::Send(Send { queue, messages, batch, request_id })
            }
            Ask::Receive(queue, (max, max_bytes), ack_timeout_ms, request_id) => {
                let max_messages = u32::try_from(max).unwrap();
                let consumer = String::new();
                Command::Receive(Receive {
                    queue,
                    max_messages,
                    max_bytes,
                    oversized: crate::command::Oversized::Comes,
                    ack_timeout_ms,
                    consumer,
                    request_id,
                    handover: crate::command::Handover::AtOnce,
                })
            }
            Ask::Settle(queue, ends) => {
                let settlements =
                    ends.iter().map(|(index, end)| (self.receipt(*index), outcome(*end))).collect();
                Command::Settle(Settle { queue, settlements })
            }
            Ask::Extend(queue, held, ack_timeout_ms) => {
                let receipts = held.iter().map(|index| self.receipt(*index)).collect();
                Command::Extend(Extend { queue, receipts, ack_timeout_ms })
            }
            Ask::Redrive(queue, max_messages, is_dry) => {
                let mode = if is_dry { Mode::DryRun } else { Mode::Apply };
                Command::Redrive(Selection {
                    queue,
                    filter: Filter::default(),
                    after: None,
                    max_messages,
                    mode,
                })
            }
        }
    }

    fn receipt(&self, index: Index) -> Bytes {
        match newest(&self.receipts, index) {
            Some((_, _, _, receipt)) => receipt.clone(),
            None => Bytes::from_static(b"made up"),
        }
    }

    fn learn_receipts(&mut self, replies: &[Reply]) {
        for reply in replies {
            let Reply::Received(deliveries) = reply else { continue };
            for delivery in deliveries {
                let opened = self.engine.sealer.open(&delivery.receipt).unwrap();
                let receipt = delivery.receipt.clone();
                self.receipts.push((opened.queue, opened.seq.0, opened.epoch.0, receipt));
            }
        }
    }
}

type Known = (QueueId, u64, u64, Bytes);

/// One of the newest receipts: older ones are all used up.
fn newest(receipts: &[Known], index: Index) -> Option<&Known> {
    let recent = &receipts[receipts.len().saturating_sub(8)..];
    (!recent.is_empty()).then(|| index.get(recent))
}

fn pick(receipts: &[Known], queue: QueueId, index: Index) -> Option<(u64, u64)> {
    newest(receipts, index).filter(|(of, ..)| *of == queue).map(|(_, seq, epoch, _)| (*seq, *epoch))
}

fn new_message(item: Item) -> NewMessage {
    let body = Bytes::from(vec![b'x'; usize::try_from(item.bytes).unwrap()]);
    NewMessage {
        payload: Payload { body, dedup_id: item.dedup_id, ..Payload::default() },
        available: Available::After(item.delay_ms),
        ttl_ms: item.ttl_ms,
        max_attempts: item.max_attempts,
        priority: crate::message::Priority::default(),
    }
}

fn outcome(end: End) -> Outcome {
    let reason = String::new();
    match end {
        End::Ack => Outcome::Ack,
        End::Nack(delay_ms) => Outcome::Nack { delay_ms, reason },
        End::Release => Outcome::Release,
        End::Reject => Outcome::Reject { reason },
        End::Lost => Outcome::Lost { reason },
    }
}

fn answer(reply: Reply) -> Answer {
    match reply {
        Reply::Configured(..) => Answer::Configured,
        Reply::Sent(results) => Answer::Sent(
            results.into_iter().map(|result| result.map(|sent| (sent.id.seq().0, sent.duplicate))).collect(),
        ),
        Reply::Received(deliveries) => {
            let handed = deliveries.into_iter().map(|delivery| Handed {
                seq: delivery.message.id.seq().0,
                epoch: delivery.epoch.0,
                deadline: delivery.deadline,
                attempts: delivery.message.attempts,
                deliveries: delivery.message.deliveries,
            });
            Answer::Received(handed.collect())
        }
        Reply::Settled(results) => Answer::Settled(results),
        Reply::Extended(results) => Answer::Extended(results),
        Reply::Redriven(done) => Answer::Redriven(done.matched, done.changed),
        Reply::Refused(refusal) => Answer::Refused(refusal),
        other => unreachable!("{other:?}"),
    }
}

fn shown(message: &crate::Message) -> Shown {
    Shown {
        seq: message.id.seq().0,
        state: message.state,
        attempts: message.attempts,
        deliveries: message.deliveries,
        failures: message.history.len(),
        dead_reason: message.dead_reason,
        delayed_until: message.delayed_until,
        expires_at: message.expires_at,
    }
}

fn count(shown: &[Shown], bytes: u64) -> Counts {
    let of = |state| shown.iter().filter(|message| message.state == state).count() as u64;
    Counts {
        ready: of(State::Ready),
        delayed: of(State::Delayed),
        in_flight: of(State::InFlight),
        dead: of(State::Dead),
        bytes,
    }
}
