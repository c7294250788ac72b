//! `ackwell top`: queues as they change.

use std::io::{self, IsTerminal};
use std::time::Duration;

use ackwell_client::{Client, StatsResponse};
use ackwell_proto::duration_millis;
use clap::Args;
use serde::Serialize;

use crate::args::{Output, Target, queue_name};
use crate::clock::Stopwatch;
use crate::{Outcome, duration, output};

/// Clears the terminal, and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Show queues as they change: counts, and rates since the line before. Ctrl-C ends it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell top orders
  ackwell top orders logs --interval 5s
  ackwell top orders --count 10 --output json")]
pub(crate) struct Top {
    #[command(flatten)]
    target: Target,

    /// More queues.
    #[arg(value_parser = queue_name, value_name = "QUEUE")]
    others: Vec<String>,

    /// Between two looks; at least 100ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,

    /// End after so many looks; 0: never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    count: u64,
}

/// A queue at one look.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    queue: String,
    ready: u64,
    in_flight: u64,
    delayed: u64,
    dead: u64,
    oldest_ready_seconds: Option<u64>,
    consumers: u32,
    paused: bool,
    /// Absent at the first look, and after a broker was started again.
    sent_per_second: Option<f64>,
    acked_per_second: Option<f64>,
    failed_per_second: Option<f64>,
}

/// What rates are made from.
struct Look {
    watch: Stopwatch,
    stats: StatsResponse,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) { Err("use at least 100ms".to_owned()) } else { Ok(interval) }
}

impl Top {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let queues: Vec<String> = std::iter::once(self.target.queue).chain(self.others).collect();
        let mut before: Vec<Option<Look>> = queues.iter().map(|_| None).collect();
        let mut ticks = tokio::time::interval(self.interval);
        for number in 1.. {
            ticks.tick().await;
            show(&look(&client, &queues, &mut before).await?, output)?;
            if number == self.count {
                break;
            }
        }
        Ok(Outcome::Done)
    }
}

async fn look(client: &Client, queues: &[String], before: &mut [Option<Look>]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (queue, before) in queues.iter().zip(before) {
        let now = Look { watch: Stopwatch::start(), stats: client.stats(queue).await? };
        rows.push(Row::new(queue, &now.stats, before.as_ref()));
        *before = Some(now);
    }
    Ok(rows)
}

fn show(rows: &[Row], output: Output) -> anyhow::Result<()> {
    if output != Output::Text {
        return rows.iter().try_for_each(|row| output::data(output, row));
    }
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    output::print(format!("{clear}{}", table(rows)).as_bytes())
}

impl Row {
    fn new(queue: &str, stats: &StatsResponse, before: Option<&Look>) -> Self {
        let rate = |count: fn(&StatsResponse) -> u64| {
            let Look { watch, stats: before } = before?;
            let grown = count(stats).checked_sub(count(before))?;
            Some(f64::from(u32::try_from(grown).unwrap_or(u32::MAX)) / watch.elapsed().as_secs_f64())
        };
        let oldest = stats.oldest_ready.as_ref().and_then(duration_millis);
        Self {
            queue: queue.to_owned(),
            ready: stats.ready,
            in_flight: stats.in_flight,
            delayed: stats.delayed,
            dead: stats.dead,
            oldest_ready_seconds: oldest.map(|millis| millis / 1000),
            consumers: stats.consumers,
            paused: stats.paused,
            sent_per_second: rate(|stats| stats.sent),
            acked_per_second: rate(|stats| stats.acked),
            failed_per_second: rate(|stats| stats.nacked),
        }
    }

    fn cells(&self) -> [String; 10] {
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        let oldest = self.oldest_ready_seconds.map(Duration::from_secs);
        [
            format!("{}{}", self.queue, if self.paused { " (paused)" } else { "" }),
            self.ready.to_string(),
            self.in_flight.to_string(),
            self.delayed.to_string(),
            self.dead.to_string(),
            oldest.map_or("-".to_owned(), duration::show),
            self.consumers.to_string(),
            rate(self.sent_per_second),
            rate(self.acked_per_second),
            rate(self.failed_per_second),
        ]
    }
}

/// Columns as wide as what is in them; numbers end at the same place.
fn table(rows: &[Row]) -> String {
    let head = [
        "QUEUE",
        "READY",
        "IN FLIGHT",
        "DELAYED",
        "DEAD",
        "OLDEST",
        "CONSUMERS",
        "SENT/S",
        "ACKED/S",
        "FAILED/S",
    ];
    let cells: Vec<[String; 10]> =
        std::iter::once(head.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("{:<1$}{2}\n", row[0], widths[0], cells.collect::<Vec<_>>().concat())
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_aligned_and_rates_need_two_looks() {
        let stats = StatsResponse { ready: 12_345, dead: 1, paused: true, ..StatsResponse::default() };
        let rows = [Row::new("orders", &stats, None), Row::new("logs", &StatsResponse::default(), None)];
        let expected = "\
QUEUE            READY  IN FLIGHT  DELAYED  DEAD  OLDEST  CONSUMERS  SENT/S  ACKED/S  FAILED/S
orders (paused)  12345          0        0     1       -          0       -        -         -
logs                 0          0        0     0       -          0       -        -         -
";
        assert_eq!(table(&rows), expected);
    }

    /// A broker that was started again counts from 0: that is no rate.
    #[test]
    fn rates_are_never_negative() {
        let sent = |sent| StatsResponse { sent, ..StatsResponse::default() };
        let before = |stats| Look { watch: Stopwatch::start(), stats };
        assert!(
            Row::new("a", &sent(3), Some(&before(sent(1)))).sent_per_second.is_some_and(|rate| rate > 0.0)
        );
        assert_eq!(Row::new("a", &sent(3), Some(&before(sent(9)))).sent_per_second, None);
    }
}
