//! What a case measured: a row for people, and a line for programs.

use std::fmt;
use std::time::Duration;

use anyhow::Context;

use crate::latencies::Latencies;

/// How a line for programs begins.
const WORD: &str = "bench";

/// Named numbers, in the order in which they were added.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Of the case.
    pub name: String,
    values: Vec<(String, f64)>,
}

impl Figures {
    /// Nothing measured yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: Vec::new() }
    }

    /// One more number.
    #[must_use]
    pub fn with(mut self, key: &str, value: f64) -> Self {
        self.values.push((key.to_owned(), value));
        self
    }

    /// So many messages in that time.
    #[must_use]
    pub fn with_rate(self, messages: u64, took: Duration) -> Self {
        self.with("messages_per_second", rate(messages, took))
    }

    /// Percentiles under `p50_us` and so on, with a word before where there are several kinds.
    #[must_use]
    pub fn with_latencies(self, prefix: &str, latencies: &Latencies) -> Self {
        self.with(&format!("{prefix}p50_us"), latencies.quantile_us(500))
            .with(&format!("{prefix}p99_us"), latencies.quantile_us(990))
            .with(&format!("{prefix}p999_us"), latencies.quantile_us(999))
            .with(&format!("{prefix}max_us"), latencies.max_us())
    }

    /// `None`: was not measured.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// Reads a line; `None` for one that is something else.
    pub fn parse(line: &str) -> Option<anyhow::Result<Self>> {
        let mut words = line.split(' ');
        let name = (words.next() == Some(WORD)).then(|| words.next()?.strip_prefix("name="))??;
        let value = |word: &str| {
            let (key, value) = word.split_once('=').context("a figure has a name")?;
            Ok((key.to_owned(), value.parse().with_context(|| format!("read the figure {word}"))?))
        };
        let values: anyhow::Result<Vec<_>> = words.map(value).collect();
        Some(values.map(|values| Self { name: name.to_owned(), values }))
    }

    /// The columns of a table, each with the key of its figure.
    pub fn head(columns: &[(&str, &str)]) -> String {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        format!("| case | {} |\n|---|{}", names.join(" | "), "---|".repeat(columns.len()))
    }

    /// A row of that table.
    pub fn row(&self, columns: &[(&str, &str)]) -> String {
        let cell = |(_, key): &(&str, &str)| self.value(key).map_or_else(|| "-".to_owned(), short);
        let cells: Vec<String> = columns.iter().map(cell).collect();
        format!("| {} | {} |", self.name, cells.join(" | "))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WORD} name={}", self.name)?;
        self.values.iter().try_for_each(|(key, value)| write!(f, " {key}={}", short(*value)))
    }
}

/// A second's share of what was done.
#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 messages")]
pub fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Three digits at least.
fn short(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{value:.2}")
    } else if value.abs() < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what is printed for programs can be read again.
    #[test]
    fn line_is_read_as_it_was_written() {
        let figures =
            Figures::new("batch-100").with("messages_per_second", 123_456.0).with("ratio_append", 1.25);
        assert_eq!(Figures::parse(&figures.to_string()).unwrap().unwrap(), figures);
        assert!(Figures::parse("ready").is_none());
        assert!(Figures::parse("bench name=x y").unwrap().is_err());
    }
}
