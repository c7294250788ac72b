//! The words of a story: commands and settings read, answers written.

use std::collections::BTreeMap;

use crate::command::Refusal;
use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};

/// A line: its verb, its plain words, its `key=value` options.
pub(super) struct Words<'a> {
    pub(super) verb: &'a str,
    pub(super) plain: Vec<&'a str>,
    pub(super) options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let (options, plain): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
        let options = options.into_iter().filter_map(|word| word.split_once('=')).collect();
        Self { verb, plain, options }
    }

    pub(super) fn text(&self, key: &str) -> String {
        (*self.options.get(key).unwrap_or(&"")).to_owned()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| value.parse().expect(key))
    }

    pub(super) fn small(&self, key: &str) -> Option<u32> {
        self.number(key).map(|number| u32::try_from(number).expect(key))
    }

    pub(super) fn ms(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| parse_ms(value))
    }

    /// `header=kind:x`
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let header = self.options.get("header").and_then(|header| header.split_once(':'));
        header.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect()
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }
}

pub(super) fn change(settings: &mut Settings, key: &str, value: &str) {
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
        "step" => settings.priority_step_ms = parse_ms(value),
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

pub(super) fn parse_ms(text: &str) -> u64 {
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

pub(super) fn in_words(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Refusals shout, so that a line without an expectation can tell them.
pub(super) fn word(refusal: &Refusal) -> String {
    let debug = format!("{refusal:?}");
    let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    format!("{name}!")
}

pub(super) fn list(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    if words.is_empty() { "nothing".into() } else { words.join(" ") }
}

/// An answer per item.
pub(super) fn each<T>(results: &[Result<T, Refusal>], show: impl Fn(&T) -> String) -> String {
    list(results.iter().map(|result| result.as_ref().map_or_else(word, &show)))
}

pub(super) fn is_like(answer: &str, expected: &str) -> bool {
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
