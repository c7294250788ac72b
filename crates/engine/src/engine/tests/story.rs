//! Stories: one command a line, and behind `->` what it must answer.
//!
//! ```text
//! set ack=30s attempts=2         changes settings (first line: before anything is stored)
//! send a b ttl=5s                stores messages; the word is both name and body
//! receive 2 as=w -> a#1 b#1      name#deliveries, which also names the receipt
//! nack a#1 why=bad -> delayed ~1s
//! +1s -> expired b#1             time passes; `-1s` sets the clock back
//! restart                        all but the disk is forgotten
//! ```
//!
//! `~` allows the 20 % of jitter. A line without `->` must not be refused, unless `try` begins it. `z+1h` passes time
//! without waking the engine.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::Engine;
use crate::command::{
    Applied, Available, Batch, Command, Configure, Extend, Filter, Handover, Mode, NewMessage, Outcome,
    Receive, Refusal, Reply, Selection, Send, Sent, Settle, Settled,
};
use crate::message::{DeadReason, Message, MessageId, Payload, Priority, QueueId, State};
use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};
use crate::store::Store;
use crate::store::tests::ENTROPY;
use crate::time::Timestamp;

const START: Timestamp = Timestamp(1_764_000_000_000);

/// Plays a story and compares every answer.
pub(super) fn check(story: &str) {
    let mut world = World::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = match line.split_once("->") {
            Some((command, expected)) => (command.trim(), Some(expected.trim())),
            None => (line, None),
        };
        let (command, may_fail) = match command.strip_prefix("try ") {
            Some(command) => (command, true),
            None => (command, false),
        };
        let answer = world.play(&Words::of(command));
        match expected {
            None if may_fail => {}
            Some(expected) => assert!(is_like(&answer, expected), "{line}\n  answered: {answer}"),
            None => assert!(!answer.contains('!'), "{line}\n  answered: {answer}"),
        }
    }
}

impl Engine {
    /// What is left when the process dies: the store.
    pub(super) fn reopen(self, now: Timestamp) -> Self {
        Self::open(self.into_store(), now).unwrap()
    }
}

struct World {
    engine: Option<Engine>,
    now: Timestamp,
    queue: QueueId,
    generation: u64,
    settings: Settings,
    names: BTreeMap<MessageId, String>,
    receipts: BTreeMap<String, Bytes>,
}

/// A line: its verb, its plain words, its `key=value` options.
struct Words<'a> {
    verb: &'a str,
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let (options, plain): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
        let options = options.into_iter().filter_map(|word| word.split_once('=')).collect();
        Self { verb, plain, options }
    }

    fn text(&self, key: &str) -> String {
        (*self.options.get(key).unwrap_or(&"")).to_owned()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| value.parse().expect(key))
    }

    fn ms(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| parse_ms(value))
    }

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }
}

impl World {
    fn new() -> Self {
        let engine = Engine::open(Store::in_memory(ENTROPY).unwrap(), START).unwrap();
        let mut world = Self {
            engine: Some(engine),
            now: START,
            queue: QueueId(0),
            generation: 0,
            settings: Settings::default(),
            names: BTreeMap::new(),
            receipts: BTreeMap::new(),
        };
        world.use_queue("shop/orders");
        world
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    fn apply(&mut self, commands: Vec<Command>) -> Applied {
        let now = self.now;
        self.engine().apply(now, commands).unwrap()
    }

    fn one(&mut self, command: Command) -> Reply {
        self.apply(vec![command]).replies.remove(0)
    }

    fn play(&mut self, words: &Words<'_>) -> String {
        match words.verb {
            "set" => self.set(words),
            "queue" => self.use_queue(words.plain[0]),
            "send" => self.send(words),
            "receive" => self.receive(words),
            "ack" | "nack" | "release" | "reject" | "lost" => self.settle(words),
            "extend" => self.extend(words),
            "stats" => self.stats(),
            "peek" => self.peek(words),
            "history" => self.history(words.plain[0]),
            "redrive" => self.redrive(words),
            "wakeup" => self.wakeup(),
            "restart" => self.restart(),
            "damage" => self.with_seq(words.plain[0], Store::damage_payload),
            "lose" => self.with_seq(words.plain[0], Store::lose_payload),
            verb => self.pass(verb),
        }
    }

    fn set(&mut self, words: &Words<'_>) -> String {
        for (key, value) in &words.options {
            change(&mut self.settings, key, value);
        }
        self.use_queue("shop/orders")
    }

    fn use_queue(&mut self, name: &str) -> String {
        self.generation += 1;
        let (generation, settings) = (self.generation, self.settings.clone());
        let configure = Configure { name: name.into(), generation, settings };
        let Reply::Configured(queue, _) = self.one(Command::Configure(configure)) else { unreachable!() };
        self.queue = queue;
        String::new()
    }

    fn send(&mut self, words: &Words<'_>) -> String {
        let named: Vec<&str> = words.plain.iter().copied().filter(|word| *word != "atomic").collect();
        let messages = named.iter().map(|name| self.message(name, words)).collect();
        let batch = if words.has("atomic") { Batch::Atomic } else { Batch::Each };
        let send = Send { queue: self.queue, messages, batch, request_id: words.text("request") };
        let results = match self.one(Command::Send(send)) {
            Reply::Sent(results) => results,
            Reply::Refused(refusal) => return word(&refusal),
            reply => panic!("{reply:?}"),
        };
        let answers = results.into_iter().zip(named).map(|(result, name)| match result {
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
        let header = words.options.get("header").and_then(|header| header.split_once(':'));
        let headers = header.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let after = words.ms("delay").map(Available::After);
        let at = words.ms("at").map(|ms| Available::At(self.now.plus_ms(ms)));
        NewMessage {
            payload: Payload {
                body,
                headers: headers.into_iter().collect(),
                dedup_id: words.text("dedup"),
                ..Payload::default()
            },
            available: after.or(at).unwrap_or_default(),
            ttl_ms: words.ms("ttl"),
            max_attempts: words.number("attempts").map(|n| u32::try_from(n).unwrap()),
            priority: Priority::default(),
        }
    }

    fn receive(&mut self, words: &Words<'_>) -> String {
        let receive = Receive {
            queue: self.queue,
            max_messages: words.plain[0].parse().unwrap(),
            max_bytes: words.number("bytes").unwrap_or(1 << 20),
            oversized: crate::command::Oversized::Comes,
            ack_timeout_ms: words.ms("ack"),
            consumer: words.text("as"),
            request_id: words.text("request"),
            handover: Handover::AtOnce,
        };
        let deliveries = match self.one(Command::Receive(receive)) {
            Reply::Received(deliveries) => deliveries,
            Reply::Refused(refusal) => return word(&refusal),
            reply => panic!("{reply:?}"),
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

    fn settle(&mut self, words: &Words<'_>) -> String {
        let reason = words.text("why");
        let outcome = match words.verb {
            "ack" => Outcome::Ack,
            "nack" => Outcome::Nack { delay_ms: words.ms("delay"), reason },
            "release" => Outcome::Release,
            "reject" => Outcome::Reject { reason },
            _ => Outcome::Lost { reason },
        };
        let settlements = words.plain.iter().map(|name| (self.receipt(name), outcome.clone())).collect();
        let results = match self.one(Command::Settle(Settle { queue: self.queue, settlements })) {
            Reply::Settled(results) => results,
            Reply::Refused(refusal) => return word(&refusal),
            reply => panic!("{reply:?}"),
        };
        list(results.iter().map(|result| match result {
            Ok(settled) => self.place(*settled),
            Err(refusal) => word(refusal),
        }))
    }

    fn place(&self, settled: Settled) -> String {
        match (settled.state, settled.delayed_until) {
            (None, _) => "gone".into(),
            (Some(State::Delayed), Some(until)) => format!("delayed {}", in_words(until.ms_since(self.now))),
            (Some(state), _) => format!("{state:?}").to_lowercase(),
        }
    }

    fn extend(&mut self, words: &Words<'_>) -> String {
        let receipts = words.plain.iter().map(|name| self.receipt(name)).collect();
        let extend = Extend { queue: self.queue, receipts, ack_timeout_ms: words.ms("ack") };
        let Reply::Extended(results) = self.one(Command::Extend(extend)) else { panic!("refused") };
        list(results.iter().map(|result| match result {
            Ok(deadline) => in_words(deadline.ms_since(self.now)),
            Err(refusal) => word(refusal),
        }))
    }

    fn stats(&mut self) -> String {
        let queue = self.queue;
        let counts = self.engine().stats(queue).counts;
        let named = [
            ("ready", counts.ready),
            ("delayed", counts.delayed),
            ("in_flight", counts.in_flight),
            ("dead", counts.dead),
            ("bytes", counts.bytes),
        ];
        list(named.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")))
    }

    fn peek(&mut self, words: &Words<'_>) -> String {
        let (queue, filter) = (self.queue, self.filter(words));
        let after = words.options.get("after").map(|name| self.id(name).seq().0);
        let limit = words.number("limit").map_or(100, |n| usize::try_from(n).unwrap());
        let (messages, next) = self.engine().peek(queue, &filter, after, limit).unwrap();
        let more = next.map(|_| "more".to_owned());
        let show = |message| {
            let shown = self.show(message);
            if words.has("bare") {
                shown.split(['(', '*']).next().unwrap_or_default().to_owned()
            } else {
                shown
            }
        };
        list(messages.iter().map(show).chain(more))
    }

    fn show(&self, message: &Message) -> String {
        let name = &self.names[&message.id];
        let state = format!("{:?}", message.state).to_lowercase();
        let dead = message.dead_reason.map(|reason| format!("({})", reason.as_str())).unwrap_or_default();
        let is_whole = message.payload.body.starts_with(name.as_bytes());
        assert!(is_whole || message.dead_reason == Some(DeadReason::Corrupt), "the body of {name} changed");
        let attempts = if message.attempts > 0 { format!("*{}", message.attempts) } else { String::new() };
        format!("{name}:{state}{dead}{attempts}")
    }

    fn history(&mut self, name: &str) -> String {
        let (queue, start) = (self.queue, START);
        let filter = Filter { ids: vec![self.id(name)], ..Filter::default() };
        let (messages, _) = self.engine().peek(queue, &filter, None, 1).unwrap();
        list(messages[0].history.iter().map(|attempt| {
            let [from, to] = [attempt.started, attempt.ended].map(|at| in_words(at.ms_since(start)));
            format!("{from}..{to} {} {} {};", attempt.outcome.as_str(), attempt.reason, attempt.consumer)
        }))
    }

    fn filter(&self, words: &Words<'_>) -> Filter {
        let states = words.options.get("state").map(|state| match *state {
            "ready" => State::Ready,
            "delayed" => State::Delayed,
            "in_flight" => State::InFlight,
            "dead" => State::Dead,
            other => panic!("no state {other}"),
        });
        let header = words.options.get("header").and_then(|header| header.split_once(':'));
        Filter {
            states: states.into_iter().collect(),
            headers: header.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect(),
            reason_contains: words.text("why"),
            min_attempts: words.number("tried").map_or(0, |n| u32::try_from(n).unwrap()),
            stored_after: words.ms("from").map(|ms| START.plus_ms(ms)),
            stored_before: words.ms("to").map(|ms| START.plus_ms(ms)),
            ids: words.options.get("id").map(|name| self.id(name)).into_iter().collect(),
            ..Filter::default()
        }
    }

    fn redrive(&mut self, words: &Words<'_>) -> String {
        let redrive = Selection {
            queue: self.queue,
            filter: self.filter(words),
            after: words.options.get("after").map(|name| self.id(name).seq().0),
            max_messages: words.number("max").unwrap_or(u64::MAX),
            mode: if words.has("dry") { Mode::DryRun } else { Mode::Apply },
        };
        let Reply::Redriven(done) = self.one(Command::Redrive(redrive)) else { panic!("refused") };
        assert_eq!(done.next, None, "a short story has one page");
        format!("{} of {}", done.changed, done.matched)
    }

    fn wakeup(&mut self) -> String {
        let now = self.now;
        self.engine().next_wakeup().map_or("never".into(), |at| in_words(at.ms_since(now)))
    }

    fn restart(&mut self) -> String {
        let now = self.now;
        self.engine = self.engine.take().map(|engine| engine.reopen(now));
        String::new()
    }

    fn with_seq(&mut self, name: &str, change: impl FnOnce(&Store, crate::message::Seq)) -> String {
        let seq = self.id(name).seq();
        change(&self.engine().store, seq);
        String::new()
    }

    /// Time passes, and the engine is woken; after `z+` it sleeps on.
    fn pass(&mut self, step: &str) -> String {
        if let Some(back) = step.strip_prefix('-') {
            self.now = Timestamp(self.now.0 - parse_ms(back));
        } else if let Some(asleep) = step.strip_prefix("z+") {
            self.now = self.now.plus_ms(parse_ms(asleep));
            return String::new();
        } else {
            let forth = step.strip_prefix('+').unwrap_or_else(|| panic!("unknown command {step}"));
            self.now = self.now.plus_ms(parse_ms(forth));
        }
        let expired = self.apply(Vec::new()).expired;
        let names = expired.iter().map(|receipt| {
            let known = self.receipts.iter().find(|(_, known)| *known == receipt);
            known.map_or("?".to_owned(), |(name, _)| name.clone())
        });
        if expired.is_empty() { String::new() } else { format!("expired {}", list(names)) }
    }

    fn id(&self, name: &str) -> MessageId {
        let (id, _) = self.names.iter().find(|(_, known)| *known == name).expect("the story named it");
        *id
    }
}

fn change(settings: &mut Settings, key: &str, value: &str) {
    let number = || value.parse::<u64>().unwrap();
    match key {
        "ack" => settings.ack_timeout_ms = parse_ms(value),
        "processing" => settings.max_processing_ms = parse_ms(value),
        "attempts" => settings.max_attempts = value.parse().unwrap(),
        "backoff" => settings.backoff = parse_backoff(value),
        "messages" => settings.max_messages = number(),
        "bytes" => settings.max_bytes = number(),
        "body" => settings.max_message_bytes = number(),
        "in_flight" => settings.max_in_flight = number(),
        "dead" => settings.dead_ms = parse_ms(value),
        "dedup" => settings.dedup_window_ms = parse_ms(value),
        "expired" => settings.expired = if value == "drop" { Expired::Drop } else { Expired::DeadLetter },
        other => panic!("no setting {other}"),
    }
}

/// `linear,1s,10s`
fn parse_backoff(text: &str) -> Backoff {
    let parts: Vec<&str> = text.split(',').collect();
    let policy = match parts[0] {
        "constant" => BackoffPolicy::Constant,
        "linear" => BackoffPolicy::Linear,
        _ => BackoffPolicy::Exponential,
    };
    Backoff { policy, min_ms: parse_ms(parts[1]), max_ms: parse_ms(parts[2]) }
}

fn parse_ms(text: &str) -> u64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" | "" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("no unit {other}"),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("no number in {text}")) * unit
}

fn in_words(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Refusals shout, so that a line without an expectation can tell them.
fn word(refusal: &Refusal) -> String {
    let debug = format!("{refusal:?}");
    let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    format!("{name}!")
}

fn list(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    if words.is_empty() { "nothing".into() } else { words.join(" ") }
}

fn is_like(answer: &str, expected: &str) -> bool {
    let (answer, expected): (Vec<_>, Vec<_>) =
        (answer.split_whitespace().collect(), expected.split_whitespace().collect());
    answer.len() == expected.len() && answer.iter().zip(expected).all(|(a, e)| is_like_word(a, e))
}

fn is_like_word(answer: &str, expected: &str) -> bool {
    match expected.strip_prefix('~') {
        Some(about) => {
            let (answer, about) = (parse_ms(answer), parse_ms(about));
            answer >= about - about / 5 && answer <= about + about / 5
        }
        None => answer == expected,
    }
}
