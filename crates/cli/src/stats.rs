//! `ackwell stats`: counts of a queue.

use std::time::Duration;

use ackwell_client::StatsResponse;
use ackwell_proto::duration_millis;
use clap::Args;
use serde::Serialize;

use crate::args::{Output, Target};
use crate::{Outcome, duration, output};

/// Show how many messages a queue holds, by state.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell stats orders
  ackwell stats orders --output json | jq .ready")]
pub(crate) struct Stats {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    queue: String,
    ready: u64,
    delayed: u64,
    in_flight: u64,
    dead: u64,
    bytes: u64,
    disk_used: u64,
    oldest_ready_seconds: Option<u64>,
    sent: u64,
    acked: u64,
    nacked: u64,
    consumers: u32,
    paused: bool,
}

impl Stats {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let counts = Counts::new(self.target.queue.clone(), &client.stats(&self.target.queue).await?);
        match output {
            Output::Json | Output::Yaml => output::data(output, &counts)?,
            Output::Text => output::print(counts.table().as_bytes())?,
        }
        Ok(Outcome::Done)
    }
}

impl Counts {
    fn new(queue: String, stats: &StatsResponse) -> Self {
        Self {
            queue,
            ready: stats.ready,
            delayed: stats.delayed,
            in_flight: stats.in_flight,
            dead: stats.dead,
            bytes: stats.bytes,
            disk_used: stats.disk_used,
            oldest_ready_seconds: stats
                .oldest_ready
                .as_ref()
                .and_then(duration_millis)
                .map(|millis| millis / 1000),
            sent: stats.sent,
            acked: stats.acked,
            nacked: stats.nacked,
            consumers: stats.consumers,
            paused: stats.paused,
        }
    }

    fn table(&self) -> String {
        let oldest =
            self.oldest_ready_seconds.map(Duration::from_secs).map_or("-".to_owned(), duration::show);
        let rows = [
            ("ready", self.ready.to_string()),
            ("delayed", self.delayed.to_string()),
            ("in flight", self.in_flight.to_string()),
            ("dead", self.dead.to_string()),
            ("oldest ready", oldest),
            ("bytes of bodies", self.bytes.to_string()),
            ("bytes on disk", self.disk_used.to_string()),
            ("consumers", self.consumers.to_string()),
            ("paused", if self.paused { "yes" } else { "no" }.to_owned()),
            ("sent since start", self.sent.to_string()),
            ("acked since start", self.acked.to_string()),
            ("nacked since start", self.nacked.to_string()),
        ];
        rows.map(|(name, value)| format!("{name:<18}  {value:>12}\n")).concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts and the end-to-end tests read these names.
    #[test]
    fn json_has_the_documented_keys() {
        let stats = StatsResponse {
            ready: 1,
            oldest_ready: Some(ackwell_proto::duration(2500)),
            ..Default::default()
        };
        let json = serde_json::to_value(Counts::new("orders".into(), &stats)).unwrap();
        let expected = serde_json::json!({
            "queue": "orders", "ready": 1, "delayed": 0, "inFlight": 0, "dead": 0, "bytes": 0, "diskUsed": 0,
            "oldestReadySeconds": 2, "sent": 0, "acked": 0, "nacked": 0, "consumers": 0,
            "paused": false,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn table_has_a_row_for_each_count() {
        let table =
            Counts::new("orders".into(), &StatsResponse { in_flight: 7, ..Default::default() }).table();
        assert_eq!(table.lines().count(), 12);
        assert!(table.contains("in flight                      7\n"), "{table}");
    }
}
