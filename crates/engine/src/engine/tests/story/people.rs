//! What people ask and do in a story.

use super::words::{Words, each, in_words, list};
use super::{START, World};
use crate::command::{Blocked, Cancel, Command, Delete, Filter, Mode, Pause, Reply, Selection};
use crate::message::{DeadReason, Message, State};
use crate::task::{Order, Progress, Task, TaskId, Work};
use crate::time::Timestamp;

impl World {
    pub(super) fn pause(&mut self, words: &Words<'_>) -> String {
        let pause = Pause { queue: self.queue, paused: words.verb == "pause" };
        self.one(Command::Pause(pause)).map_or_else(|refused| refused, |_| String::new())
    }

    pub(super) fn delete(&mut self, words: &Words<'_>) -> String {
        let max_messages = words.plain.first().map_or(u64::MAX, |n| n.parse().unwrap());
        match self.one(Command::Delete(Delete { queue: self.queue, max_messages })) {
            Ok(Reply::Deleted(done)) => {
                format!("{} {}", done.messages, if done.done { "gone" } else { "more" })
            }
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    pub(super) fn stats(&mut self) -> String {
        let queue = self.queue;
        let counts = self.engine().stats(queue).counts;
        assert_eq!(counts, self.engine().recount(queue), "kept up, and counted anew");
        let named = [
            ("ready", counts.ready),
            ("delayed", counts.delayed),
            ("in_flight", counts.in_flight),
            ("dead", counts.dead),
            ("bytes", counts.bytes),
        ];
        list(named.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")))
    }

    pub(super) fn totals(&mut self) -> String {
        let queue = self.queue;
        let totals = self.engine().stats(queue).totals;
        format!("sent={} acked={} failed={}", totals.sent, totals.acked, totals.failed())
    }

    pub(super) fn peek(&mut self, words: &Words<'_>) -> String {
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
        let state = lower(message.state);
        let dead = message.dead_reason.map(|reason| format!("({})", reason.as_str())).unwrap_or_default();
        let body = &message.payload.body;
        let is_whole = body.starts_with(name.as_bytes()) || body.iter().all(|byte| *byte == b'x');
        assert!(is_whole || message.dead_reason == Some(DeadReason::Corrupt), "the body of {name} changed");
        let attempts = if message.attempts > 0 { format!("*{}", message.attempts) } else { String::new() };
        format!("{name}:{state}{dead}{attempts}")
    }

    pub(super) fn history(&mut self, name: &str) -> String {
        let (queue, start) = (self.queue, START);
        let filter = Filter { ids: vec![self.id(name)], ..Filter::default() };
        let (messages, _) = self.engine().peek(queue, &filter, None, 1).unwrap();
        list(messages[0].history.iter().map(|attempt| {
            let [from, to] = [attempt.started, attempt.ended].map(|at| in_words(at.ms_since(start)));
            format!("{from}..{to} {} {} {};", attempt.outcome.as_str(), attempt.reason, attempt.consumer)
        }))
    }

    fn filter(&self, words: &Words<'_>) -> Filter {
        let states = words.options.get("state").map(|states| states.split(',').map(parse_state).collect());
        let ids = words.options.get("id").map(|names| names.split(',').map(|name| self.id(name)).collect());
        Filter {
            states: states.unwrap_or_default(),
            ordering_key: words.text("key"),
            fairness_key: words.text("tenant"),
            headers: words.headers(),
            reason_contains: words.text("why"),
            min_attempts: words.small("tried").unwrap_or(0),
            stored_after: words.ms("from").map(|ms| START.plus_ms(ms)),
            stored_before: words.ms("to").map(|ms| START.plus_ms(ms)),
            ids: ids.unwrap_or_default(),
        }
    }

    pub(super) fn select(&mut self, words: &Words<'_>) -> String {
        let selection = Selection {
            queue: self.queue,
            filter: self.filter(words),
            after: words.options.get("after").map(|name| self.id(name).seq().0),
            max_messages: words.number("max").unwrap_or(u64::MAX),
            mode: if words.has("dry") { Mode::DryRun } else { Mode::Apply },
        };
        let is_purge = words.verb == "purge";
        let command = if is_purge { Command::Purge(selection) } else { Command::Redrive(selection) };
        let done = match self.one(command) {
            Ok(Reply::Redriven(done) | Reply::Purged(done)) => done,
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => return refused,
        };
        assert_eq!(done.next, None, "a short story has one page");
        format!("{} of {}", done.changed, done.matched)
    }

    pub(super) fn task(&mut self, words: &Words<'_>) -> String {
        let states = words.options.get("state").map(|states| states.split(',').map(parse_state).collect());
        let order = Order {
            work: if words.has("purge") { Work::Purge(states.unwrap_or_default()) } else { Work::Redrive },
            stored_before: words.ms("to").map(|ms| START.plus_ms(ms)),
            max_messages: words.number("max").unwrap_or(0),
            max_per_second: words.number("rate").unwrap_or(0),
        };
        let uid = words.plain[0].to_owned();
        let created = uid.trim_start_matches(char::is_alphabetic).parse().unwrap();
        let id = TaskId { created: Timestamp(created), uid };
        let (has_begun, cancel) = (!words.has("begins"), words.has("end"));
        let task = Task { queue: self.queue, id, order, has_begun, cancel };
        match self.one(Command::Task(task)) {
            Ok(Reply::Task(Progress { state, total, processed, failed })) => {
                let failed = if failed > 0 { format!(" failed={failed}") } else { String::new() };
                format!("{processed} of {total}{failed} {}", format!("{state:?}").to_lowercase())
            }
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    pub(super) fn cancel(&mut self, words: &Words<'_>) -> String {
        let ids = words.plain.iter().map(|name| self.id(name)).collect();
        match self.one(Command::Cancel(Cancel { queue: self.queue, ids })) {
            Ok(Reply::Cancelled(results)) => each(&results, |()| "cancelled".to_owned()),
            Ok(reply) => panic!("{reply:?}"),
            Err(refused) => refused,
        }
    }

    pub(super) fn explain(&mut self, name: &str) -> String {
        let (queue, id) = (self.queue, self.id(name));
        let Some(explanation) = self.engine().explain(queue, id).unwrap() else { return "unknown".into() };
        let reasons = explanation.reasons.iter().map(|blocked| self.reason(blocked));
        format!("{}: {}", lower(explanation.state), list(reasons))
    }

    fn reason(&self, blocked: &Blocked) -> String {
        let left = |until: &Timestamp| match *until {
            Timestamp::NEVER => "ever".to_owned(),
            until => in_words(until.ms_since(self.now)),
        };
        match blocked {
            Blocked::Paused => "paused".into(),
            Blocked::Deleting => "deleting".into(),
            Blocked::Moving => "moving".into(),
            Blocked::Held { consumer, since, until } => {
                format!(
                    "held-by-{consumer}-since-{}-for-{}",
                    in_words(self.now.ms_since(*since)),
                    left(until)
                )
            }
            Blocked::Delayed { until, attempts } => format!("waits-{}-after-{attempts}", left(until)),
            Blocked::Dead { reason, until } => format!("{}-for-{}", reason.as_str(), left(until)),
            Blocked::BehindKey { head, head_state } => {
                format!("behind-{}:{}", self.names[head], lower(*head_state))
            }
            Blocked::InFlightLimit { in_flight, max } => format!("in-flight-{in_flight}/{max}"),
            Blocked::InLine { ahead, keys } => format!("in-line-{ahead}-keys-{keys}"),
        }
    }
}

fn parse_state(state: &str) -> State {
    match state {
        "ready" => State::Ready,
        "delayed" => State::Delayed,
        "in_flight" => State::InFlight,
        "dead" => State::Dead,
        other => panic!("no state {other}"),
    }
}

fn lower(state: State) -> String {
    format!("{state:?}").to_lowercase()
}
