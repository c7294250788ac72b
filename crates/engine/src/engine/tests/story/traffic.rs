//! What producers and consumers say in a story.

use bytes::Bytes;

use super::World;
use super::words::{Words, each, in_words, list, word};
use crate::command::{
    Available, Batch, Command, Commit, Committed, Extend, HandOver, Handover, NewMessage, Outcome, Outgoing,
    Oversized, Receive, Refusal, Reply, Send, Sent, Settle, Settled,
};
use crate::message::{Payload, Priority, State};

impl World {
    pub(super) fn send(&mut self, words: &Words<'_>) -> String {
        let Outgoing { queue, messages } = self.outgoing(words);
        let batch = if words.has("atomic") { Batch::Atomic } else { Batch::Each };
        match self.one(Command::Send(Send { queue, messages, batch, request_id: words.text("request") })) {
            Ok(Reply::Sent(results)) => self.stored(words, results),
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    fn outgoing(&self, words: &Words<'_>) -> Outgoing {
        let messages = named(words).map(|name| self.message(name, words)).collect();
        Outgoing { queue: self.queue_of(words), messages }
    }

    /// Gives what was stored its name.
    fn stored(&mut self, words: &Words<'_>, results: Vec<Result<Sent, Refusal>>) -> String {
        let answers = results.into_iter().zip(named(words)).map(|(result, name)| match result {
            Ok(Sent { id, duplicate: true }) => format!("duplicate-of-{}", self.names[&id]),
            Ok(Sent { id, .. }) => self.names.entry(id).or_insert_with(|| name.to_owned()).clone(),
            Err(refusal) => word(&refusal),
        });
        answers.collect::<Vec<_>>().join(" ")
    }

    fn message(&self, name: &str, words: &Words<'_>) -> NewMessage {
        let body = match words.number("body") {
            Some(bytes) => Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()]),
            None => Bytes::copy_from_slice(name.as_bytes()),
        };
        let after = words.ms("delay").map(Available::After);
        let at = words.ms("at").map(|ms| Available::At(self.now.plus_ms(ms)));
        NewMessage {
            payload: Payload {
                body,
                headers: words.headers(),
                dedup_id: words.text("dedup"),
                ordering_key: words.text("key"),
                fairness_key: words.text("tenant"),
                ..Payload::default()
            },
            available: after.or(at).unwrap_or_default(),
            ttl_ms: words.ms("ttl"),
            max_attempts: words.small("attempts"),
            priority: words.small("prio").map_or(Priority::default(), |level| Priority::new(level).unwrap()),
            position: words.small("position"),
        }
    }

    pub(super) fn receive(&mut self, words: &Words<'_>) -> String {
        let receive = Receive {
            queue: self.queue,
            max_messages: words.plain[0].parse().unwrap(),
            max_bytes: words.number("bytes").unwrap_or(64 << 20),
            oversized: if words.has("waits") { Oversized::Waits } else { Oversized::Comes },
            ack_timeout_ms: words.ms("ack"),
            consumer: words.text("as"),
            request_id: words.text("request"),
            handover: if words.has("unhanded") { Handover::Reported } else { Handover::AtOnce },
        };
        let deliveries = match self.one(Command::Receive(receive)) {
            Ok(Reply::Received(deliveries)) => deliveries,
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => return refused,
        };
        let named = deliveries.into_iter().map(|delivery| {
            let name = format!("{}#{}", self.names[&delivery.message.id], delivery.message.deliveries);
            self.receipts.insert(name.clone(), delivery.receipt);
            name
        });
        list(named)
    }

    fn receipt(&self, name: &str) -> Bytes {
        self.receipts.get(name).cloned().unwrap_or_else(|| Bytes::copy_from_slice(name.as_bytes()))
    }

    fn receipts(&self, words: &Words<'_>) -> Vec<Bytes> {
        words.plain.iter().map(|name| self.receipt(name)).collect()
    }

    pub(super) fn hand_over(&mut self, words: &Words<'_>) -> String {
        let handover = HandOver { queue: self.queue, receipts: self.receipts(words) };
        match self.one(Command::HandOver(handover)) {
            Ok(Reply::HandedOver(results)) => each(&results, |()| "handed".to_owned()),
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    pub(super) fn settle(&mut self, words: &Words<'_>) -> String {
        match self.one(Command::Settle(self.ends(words))) {
            Ok(Reply::Settled(results)) => each(&results, |settled| self.place(*settled)),
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    fn ends(&self, words: &Words<'_>) -> Settle {
        let reason = words.text("why");
        let outcome = match words.verb {
            "ack" => Outcome::Ack,
            "nack" => Outcome::Nack { delay_ms: words.ms("delay"), reason },
            "release" => Outcome::Release,
            "reject" => Outcome::Reject { reason },
            _ => Outcome::Lost { reason },
        };
        let settlements =
            self.receipts(words).into_iter().map(|receipt| (receipt, outcome.clone())).collect();
        Settle { queue: self.queue_of(words), settlements }
    }

    fn place(&self, settled: Settled) -> String {
        match (settled.state, settled.delayed_until) {
            (None, _) => "gone".into(),
            (Some(State::Delayed), Some(until)) => format!("delayed {}", in_words(until.ms_since(self.now))),
            (Some(state), _) => format!("{state:?}").to_lowercase(),
        }
    }

    pub(super) fn extend(&mut self, words: &Words<'_>) -> String {
        let extend =
            Extend { queue: self.queue, receipts: self.receipts(words), ack_timeout_ms: words.ms("ack") };
        match self.one(Command::Extend(extend)) {
            Ok(Reply::Extended(results)) => each(&results, |until| in_words(until.ms_since(self.now))),
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    /// Answers settlements first, then messages, each in the order of the parts.
    pub(super) fn commit(&mut self, line: &str) -> String {
        let parts: Vec<Words<'_>> = line.split('|').map(Words::of).collect();
        let (sends, ends): (Vec<_>, Vec<_>) = parts[1..].iter().partition(|part| part.verb == "send");
        let commit = Commit {
            settle: ends.into_iter().map(|part| self.ends(part)).collect(),
            send: sends.iter().map(|part| self.outgoing(part)).collect(),
            request_id: parts[0].text("request"),
        };
        let Committed { settled, sent } = match self.one(Command::Commit(commit)) {
            Ok(Reply::Committed(committed)) => committed,
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => return refused,
        };
        let mut answers: Vec<String> =
            settled.iter().map(|results| each(results, |settled| self.place(*settled))).collect();
        answers.extend(sends.into_iter().zip(sent).map(|(part, results)| self.stored(part, results)));
        list(answers)
    }
}

/// The names of the messages to send.
fn named<'a>(words: &'a Words<'_>) -> impl Iterator<Item = &'a str> {
    words.plain.iter().copied().filter(|word| *word != "atomic")
}
