//! What applications saw, against what was promised to them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use ackwell_tests::ledger::Event;

/// A delivery, as its application wrote it down. Times are microseconds.
#[derive(Debug)]
struct Delivery {
    got_at: u64,
    number: u64,
    attempts: u32,
    /// How often its message was handed out, this one included: their order, whenever their applications read them.
    deliveries: u32,
    /// When it was settled first, and how.
    settling: Option<(u64, String)>,
    /// When that was answered, and what.
    settled: Option<(u64, String)>,
}

/// How much was seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    stored: usize,
    deliveries: usize,
    pub(crate) acked: usize,
    /// Messages with an attempt at their last delivery.
    blamed: usize,
    /// Of deliveries: how they were settled, and the answer.
    answers: BTreeMap<String, usize>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, deliveries, acked, blamed, answers } = self;
        write!(
            f,
            "{stored} stored, {deliveries} deliveries, {acked} acked, {blamed} with attempts; {answers:?}"
        )
    }
}

/// All ledgers of a run.
#[derive(Default)]
pub(crate) struct Verdict {
    stored: HashMap<u64, String>,
    /// By message.
    deliveries: HashMap<String, Vec<Delivery>>,
    /// What was broken, in words.
    pub(crate) broken: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(ledgers: Vec<Vec<(u64, Event)>>) -> Self {
        let mut verdict = Self::default();
        for ledger in ledgers {
            verdict.add(ledger);
        }
        verdict.deliveries.values_mut().for_each(|all| all.sort_by_key(|delivery| delivery.deliveries));
        verdict
    }

    fn add(&mut self, ledger: Vec<(u64, Event)>) {
        let mut by_receipt: HashMap<String, (String, Delivery)> = HashMap::new();
        for (at, event) in ledger {
            match event {
                Event::Stored { number, id } => _ = self.stored.insert(number, id),
                Event::Broken { what } => self.broken.push(what),
                Event::Got { receipt, number, id, attempts, deliveries } => {
                    let delivery =
                        Delivery { got_at: at, number, attempts, deliveries, settling: None, settled: None };
                    if by_receipt.insert(receipt.clone(), (id, delivery)).is_some() {
                        self.broken.push(format!("receipt {receipt} was delivered twice"));
                    }
                }
                Event::Settling { receipt, outcome } => {
                    by_receipt.get_mut(&receipt).expect("it was delivered").1.settling = Some((at, outcome));
                }
                Event::Settled { receipt, answer } => {
                    by_receipt.get_mut(&receipt).expect("it was delivered").1.settled = Some((at, answer));
                }
            }
        }
        for (id, delivery) in by_receipt.into_values() {
            self.deliveries.entry(id).or_default().push(delivery);
        }
    }

    /// Judges every message, once the queue is drained: `drained` are the ids that were left.
    pub(crate) fn judge(&mut self, drained: &HashSet<String>, is_peaceful: bool) -> Counts {
        let mut broken = std::mem::take(&mut self.broken);
        let mut counts = Counts { stored: self.stored.len(), ..Counts::default() };
        for (number, id) in &self.stored {
            if !self.deliveries.contains_key(id) && !drained.contains(id) {
                broken.push(format!("message {number} ({id}) was confirmed and is lost"));
            }
        }
        let mut ids: HashMap<u64, &String> = HashMap::new();
        for (id, deliveries) in &self.deliveries {
            let number = deliveries[0].number;
            if let Some(other) = ids.insert(number, id) {
                broken.push(format!("message {number} is stored twice, as {other} and {id}"));
            }
            if self.stored.get(&number).is_some_and(|stored| stored != id) {
                broken.push(format!("message {number} is {id}, and was confirmed otherwise"));
            }
            judge_message(id, deliveries, is_peaceful, &mut broken);
            if drained.contains(id) && deliveries.iter().any(|delivery| delivery.is_done("ack")) {
                broken.push(format!("message {id} was acked and is still there"));
            }
            counts.add(deliveries);
        }
        self.broken = broken;
        counts
    }
}

impl Counts {
    fn add(&mut self, deliveries: &[Delivery]) {
        self.deliveries += deliveries.len();
        self.acked += usize::from(deliveries.iter().any(|delivery| delivery.is_done("ack")));
        self.blamed += usize::from(deliveries.last().is_some_and(|delivery| delivery.attempts > 0));
        for delivery in deliveries {
            let answer = match (&delivery.settling, &delivery.settled) {
                (Some((_, outcome)), Some((_, answer))) => format!("{outcome} {answer}"),
                (Some((_, outcome)), None) => format!("{outcome} unanswered"),
                (None, _) => "not settled".to_owned(),
            };
            *self.answers.entry(answer).or_default() += 1;
        }
    }
}

impl Delivery {
    /// Whether it may count an attempt: in peace by a nack alone, otherwise by whatever keeps it from being given back.
    fn may_have_failed(&self, is_peaceful: bool) -> bool {
        let is_nacked = self.settling.as_ref().is_some_and(|(_, outcome)| outcome == "nack");
        is_nacked || !is_peaceful && !self.is_done("release")
    }

    /// Settled so, and answered that it is.
    fn is_done(&self, outcome: &str) -> bool {
        let is =
            |said: &Option<(u64, String)>, word: &str| said.as_ref().is_some_and(|(_, said)| said == word);
        is(&self.settling, outcome) && is(&self.settled, "OK")
    }
}

/// One message, its deliveries in the order in which they were handed out.
fn judge_message(id: &str, deliveries: &[Delivery], is_peaceful: bool, broken: &mut Vec<String>) {
    let mut is_broken = |what: String| broken.push(format!("message {id} {what}: {deliveries:?}"));
    let (mut failed, mut may_have_failed) = (0, 0);
    for (index, delivery) in deliveries.iter().enumerate() {
        let [attempts, handed] =
            [delivery.attempts, delivery.deliveries].map(|count| usize::try_from(count).expect("small"));
        // Whoever was killed may have got what it had no time to write down.
        let unwritten = if is_peaceful { 0 } else { handed - 1 - index };
        if attempts < failed || attempts > may_have_failed + unwritten {
            is_broken(format!("counts {attempts} attempts, of {failed} to {may_have_failed}"));
        }
        for earlier in &deliveries[..index] {
            if earlier.is_done("ack") {
                is_broken("was acked and came again".to_owned());
            }
            let is_late = earlier.settling.as_ref().is_some_and(|(at, _)| *at > delivery.got_at);
            if is_late && earlier.settled.as_ref().is_some_and(|(_, answer)| answer == "OK") {
                is_broken("had two valid receipts".to_owned());
            }
        }
        failed += usize::from(delivery.is_done("nack"));
        may_have_failed += usize::from(delivery.may_have_failed(is_peaceful));
    }
}
