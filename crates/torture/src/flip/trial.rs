//! One flip: what is served of the store afterwards.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ackwell_engine::command::{Delivery, Mode, Outcome as Settlement, Selection, Settle};
use ackwell_engine::message::{DeadReason, MessageId, QueueId};
use ackwell_engine::{Command, Engine, Message, Reply, StoreError};

use super::files::Files;
use super::original::{Flip, NOW, Original, dead, everything, open, receive};
use super::outcome::Outcome;

/// A page that makes no sense ends the store each time that one is met, and is set aside when it is opened again.
const MOST_OPENINGS: usize = 8;

struct Trial<'a> {
    original: &'a Original,
    /// What came of it, so far.
    seen: Vec<(Outcome, String)>,
    acked: BTreeSet<(QueueId, MessageId)>,
    /// Something was named, so that messages may be missing, or there twice.
    is_reported: bool,
    /// The store was opened anew, so that states of messages have changed.
    has_failed: bool,
}

/// What came of it, and where that was.
pub(super) fn run(original: &Original, flip: &Flip) -> (Outcome, String) {
    let (files, place) = original.flipped(flip);
    let mut trial =
        Trial { original, seen: Vec::new(), acked: BTreeSet::new(), is_reported: false, has_failed: false };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| trial.torture(&files))) {
        trial.seen.push((Outcome::Panicked, words(&*panic)));
    }
    let worst = trial.seen.into_iter().max_by_key(|(outcome, _)| *outcome);
    let (outcome, detail) = worst.unwrap_or((Outcome::Harmless, String::new()));
    (outcome, format!("{place}: {detail}"))
}

impl Trial<'_> {
    /// As a broker does: an error is named, and the store opened anew.
    fn torture(&mut self, files: &Files) {
        for _ in 0..MOST_OPENINGS {
            let engine = match open(files, NOW) {
                Ok(engine) => engine,
                Err(error) => return self.seen.push((Outcome::Refused, told(&error))),
            };
            match self.drain(engine) {
                Ok(()) => return self.look_again(files),
                Err(error) => self.seen.push((Outcome::RefusedLater, told(&error))),
            }
            self.has_failed = true;
        }
    }

    /// Looks at all, receives all, and writes a checkpoint.
    fn drain(&mut self, mut engine: Engine) -> Result<(), StoreError> {
        for damage in engine.damage()? {
            self.is_reported = true;
            self.seen.push((Outcome::Reported, damage.to_string()));
        }
        for damage in engine.log_damage().iter().filter(|damage| !damage.is_certain()) {
            self.seen.push((Outcome::Torn, damage.told().to_string()));
        }
        let shown = everything(&engine)?;
        self.compare(&shown);
        self.receive_all(&mut engine)?;
        engine.close()
    }

    /// What was acked is gone.
    fn look_again(&mut self, files: &Files) {
        let shown = open(files, NOW).and_then(|engine| everything(&engine));
        match shown {
            Ok(shown) => {
                let left =
                    shown.iter().filter(|(_, message)| message.dead_reason != Some(DeadReason::Corrupt));
                let left: Vec<_> = left
                    .map(|(key, _)| {
                        (Outcome::Returned, format!("{:?} is there, and everything was acked", key.1))
                    })
                    .collect();
                self.seen.extend(left);
            }
            Err(error) => self.seen.push((Outcome::RefusedLater, told(&error))),
        }
    }

    /// What is shown against what has to be.
    fn compare(&mut self, shown: &[((QueueId, MessageId), Message)]) {
        let mut missing: BTreeSet<_> =
            self.original.messages.keys().filter(|key| !self.acked.contains(*key)).collect();
        for (key, message) in shown {
            missing.remove(key);
            self.judge(*key, message);
        }
        for (_, id) in missing {
            // Nobody can tell the last record from one that was being written when the process was killed.
            let outcome = match () {
                () if self.is_reported => Outcome::Reported,
                () if self.original.last.contains(id) => Outcome::Torn,
                () => Outcome::Lost,
            };
            self.seen.push((outcome, format!("{id:?} is not there")));
        }
    }

    fn judge(&mut self, key: (QueueId, MessageId), message: &Message) {
        let seen = match self.original.messages.get(&key) {
            _ if self.acked.contains(&key) => {
                (Outcome::Returned, format!("{:?} was acked, and is there", key.1))
            }
            None if self.is_reported => (Outcome::Reported, format!("{:?} is there again", key.1)),
            None if self.original.gone.contains(&key.1) => {
                (Outcome::Returned, format!("{:?} was acked", key.1))
            }
            None => (Outcome::Returned, format!("{:?} was never stored", key.1)),
            Some(_) if message.dead_reason == Some(DeadReason::Corrupt) => (Outcome::Corrupt, String::new()),
            Some(expected) if expected.payload != message.payload => {
                (Outcome::WrongBody, format!("{:?} has another payload", key.1))
            }
            Some(expected) if expected != message && self.is_reported => {
                (Outcome::Reported, format!("{:?} is {:?}, not {:?}", key.1, message.state, expected.state))
            }
            // It may have been received, and not acked, before the store had to be opened anew.
            Some(_) if self.has_failed => return,
            Some(expected) if expected != message => {
                (Outcome::Changed, format!("{message:?} instead of {expected:?}"))
            }
            Some(_) => return,
        };
        self.seen.push(seen);
    }

    /// Everything that is not corrupt comes, once and whole, and can be acked.
    fn receive_all(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        for name in ["shop/orders", "shop/logs"] {
            let Some(queue) = engine.queue(name) else {
                let outcome = if self.is_reported { Outcome::Reported } else { Outcome::Lost };
                self.seen.push((outcome, format!("the queue {name} is not there")));
                continue;
            };
            let redrive =
                Selection { queue, filter: dead(), after: None, max_messages: 10_000, mode: Mode::Apply };
            engine.apply(NOW, vec![Command::Redrive(redrive)])?;
            self.receive_queue(engine, queue)?;
        }
        for (key, expected) in &self.original.messages {
            let is_known = self.seen.iter().any(|(outcome, _)| *outcome >= Outcome::Corrupt);
            if !self.acked.contains(key) && !is_known {
                self.seen.push((Outcome::Lost, format!("{:?} ({:?}) never came", key.1, expected.state)));
            }
        }
        Ok(())
    }

    fn receive_queue(&mut self, engine: &mut Engine, queue: QueueId) -> Result<(), StoreError> {
        // Deliveries of before end only a while later, and come then.
        let mut now = NOW;
        for _ in 0..3 {
            loop {
                let replies = engine.apply(now, vec![receive(queue, 200)])?.replies;
                let Some(Reply::Received(deliveries)) = replies.into_iter().next() else { break };
                // Nothing may have come because all that was next was corrupt.
                if deliveries.is_empty() && engine.grantable(queue) == 0 {
                    break;
                }
                self.judge_deliveries(queue, &deliveries);
                let keys: Vec<_> = deliveries.iter().map(|delivery| (queue, delivery.message.id)).collect();
                let ack = |delivery: Delivery| (delivery.receipt, Settlement::Ack);
                let settlements = deliveries.into_iter().map(ack).collect();
                engine.apply(now, vec![Command::Settle(Settle { queue, settlements })])?;
                self.acked.extend(keys);
            }
            now = now.plus_ms(DAY_MS);
        }
        Ok(())
    }
}

impl Trial<'_> {
    fn judge_deliveries(&mut self, queue: QueueId, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let id = delivery.message.id;
            let expected = self.original.messages.get(&(queue, id));
            if expected.is_some_and(|expected| expected.payload != delivery.message.payload) {
                self.seen.push((Outcome::WrongBody, format!("{id:?} came with another payload")));
            }
            if self.acked.contains(&(queue, id)) {
                self.seen.push((Outcome::Returned, format!("{id:?} came again")));
            }
        }
    }
}

const DAY_MS: u64 = 86_400_000;

/// With everything that it comes from.
fn told(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words").to_owned()
}
