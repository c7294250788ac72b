//! Stories: one command a line, and behind `->` what it must answer.
//!
//! ```text
//! == A nacked message waits           a rule in one line begins its story; `#` is a remark, `---` starts over
//! set ack=30s attempts=2              changes settings (first line: before anything is stored)
//! send a b ttl=5s key=k tenant=t      stores messages; the word is both name and body
//! receive 2 as=w -> a#1 b#1           name#deliveries, which also names the receipt
//! nack a#1 why=bad -> delayed ~1s
//! +1s -> expired b#1                  time passes; `-1s` sets the clock back
//! restart                             all but the disk is forgotten
//! ```
//!
//! | line | what it is |
//! |---|---|
//! | `queue shop/other` | makes the queue, or makes it the one that the next lines are about; `pause`, `resume`, `delete 2` |
//! | `receive 2 waits unhanded` | not alone when too large; to a sidecar, which reports with `hand a#0` |
//! | `ack`, `nack`, `reject`, `release`, `lost`, `extend` | receipts |
//! | `commit request=r \| ack a#1 \| send b in=shop/other` | its parts are lines of a story |
//! | `peek`, `redrive`, `purge`, `cancel`, `explain`, `history` | by a filter of options: `state= key= tenant= why= ...` |
//! | `task t1 redrive max=2 rate=1`, `task t2 purge state=ready to=1s`, `task t1 end` | a part of a task; the number in its name is its age |
//! | `stats`, `totals`, `grantable`, `wakeup` | what the engine says of itself |
//! | `damage a`, `lose a` | the disk loses a body |
//!
//! `~` allows the 20 % of jitter. A line without `->` must not be refused, unless `try` begins it. `z+1h` passes time
//! without waking the engine.

mod people;
mod traffic;
mod words;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::Engine;
use crate::command::{Applied, Command, Configure, Reply};
use crate::message::{Location, MessageId, QueueId};
use crate::settings::Settings;
use crate::store::Store;
use crate::time::Timestamp;
use words::{Words, change, in_words, is_like, list, parse_ms, word};

const START: Timestamp = Timestamp(1_764_000_000_000);

/// Plays the stories of a file, all of them, and then names every line that was answered otherwise.
pub(super) fn play(file: &str) {
    let mut failures = Vec::new();
    let mut title = "";
    let mut world = World::new();
    for (number, line) in file.lines().map(str::trim).enumerate() {
        match line.strip_prefix("== ") {
            Some(next) => {
                title = next;
                // Captured, and shown when a line panics.
                println!("{}: {title}", number + 1);
            }
            None if line == "---" => {}
            None => {
                let answered = world.hear(line);
                failures.extend(answered.err().map(|answer| format!("{}: {title}: {answer}", number + 1)));
                continue;
            }
        }
        world = World::new();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Plays one story.
pub(super) fn check(story: &str) {
    play(story);
}

impl Engine {
    /// What is left when the process dies: the store.
    pub(super) fn reopen(self, now: Timestamp) -> Self {
        Self::open(self.store, now).unwrap()
    }
}

struct World {
    engine: Option<Engine>,
    now: Timestamp,
    queue: QueueId,
    queues: BTreeMap<String, QueueId>,
    generation: u64,
    settings: Settings,
    names: BTreeMap<MessageId, String>,
    receipts: BTreeMap<String, Bytes>,
}

impl World {
    fn new() -> Self {
        let engine = Engine::open(Store::in_memory(), START).unwrap();
        let mut world = Self {
            engine: Some(engine),
            now: START,
            queue: QueueId(0),
            queues: BTreeMap::new(),
            generation: 0,
            settings: Settings::default(),
            names: BTreeMap::new(),
            receipts: BTreeMap::new(),
        };
        world.use_queue("shop/orders");
        world
    }

    /// Plays a line; the error is what it answered instead.
    fn hear(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (command, expected) = match line.split_once("->") {
            Some((command, expected)) => (command.trim(), Some(expected.trim())),
            None => (line, None),
        };
        let (command, may_fail) = match command.strip_prefix("try ") {
            Some(command) => (command, true),
            None => (command, false),
        };
        let answer = self.play(command);
        let is_right = match expected {
            Some(expected) => is_like(&answer, expected),
            None => may_fail || !answer.contains('!'),
        };
        if is_right { Ok(()) } else { Err(format!("{line}\n  answered: {answer}")) }
    }

    fn play(&mut self, line: &str) -> String {
        let words = &Words::of(line);
        match words.verb {
            "set" => self.set(words),
            "queue" => self.use_queue(words.plain[0]),
            "pause" | "resume" => self.pause(words),
            "delete" => self.delete(words),
            "send" => self.send(words),
            "receive" => self.receive(words),
            "hand" => self.hand_over(words),
            "ack" | "nack" | "release" | "reject" | "lost" => self.settle(words),
            "extend" => self.extend(words),
            "commit" => self.commit(line),
            "peek" => self.peek(words),
            "history" => self.history(words.plain[0]),
            "explain" => self.explain(words.plain[0]),
            "redrive" | "purge" => self.select(words),
            "task" => self.task(words),
            "cancel" => self.cancel(words),
            "stats" => self.stats(),
            "totals" => self.totals(),
            "grantable" => self.engine.as_ref().unwrap().grantable(self.queue).to_string(),
            "wakeup" => self.wakeup(),
            "restart" => self.restart(),
            "damage" => self.with_payload(words.plain[0], Store::damage_payload),
            "lose" => self.with_payload(words.plain[0], Store::lose_payload),
            verb => self.pass(verb),
        }
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    fn apply(&mut self, commands: Vec<Command>) -> Applied {
        let now = self.now;
        self.engine().apply(now, commands).unwrap()
    }

    /// The reply, or the word for a refusal of the whole.
    fn one(&mut self, command: Command) -> Result<Reply, String> {
        match self.apply(vec![command]).replies.remove(0) {
            Reply::Refused(refusal) => Err(word(&refusal)),
            reply => Ok(reply),
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
        match self.one(Command::Configure(Configure { name: name.into(), generation, settings })) {
            Ok(Reply::Configured(queue, _)) => self.queue = queue,
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => return refused,
        }
        self.queues.insert(name.to_owned(), self.queue);
        String::new()
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

    fn with_payload(&mut self, name: &str, change: impl FnOnce(&mut Store, Location)) -> String {
        let seq = self.id(name).seq();
        let location = self.engine().row(seq).location;
        change(&mut self.engine().store, location);
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

    /// The queue of a part of a Commit.
    fn queue_of(&self, words: &Words<'_>) -> QueueId {
        words.options.get("in").map_or(self.queue, |name| self.queues[*name])
    }
}
