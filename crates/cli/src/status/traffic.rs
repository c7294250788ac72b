//! What the brokers of a queue do just now: two looks at their metrics, a moment apart.

use std::collections::HashMap;
use std::time::Duration;

use ackwell_api::names;
use anyhow::ensure;

use super::{QueueStatus, Traffic};
use crate::clock::Stopwatch;
use crate::cluster::Cluster;

/// Between the two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Outcomes of deliveries that count as failed, whoever is to blame.
const FAILURES: [&str; 4] = ["nack", "reject", "ack_timeout", "lost"];

/// Metrics of a queue, summed over its shards: by name and outcome.
type Sums = HashMap<(String, String), f64>;

pub(super) async fn traffic(cluster: &Cluster, status: &QueueStatus) -> anyhow::Result<Traffic> {
    let watch = Stopwatch::start();
    let before = look(cluster, status).await?;
    tokio::time::sleep(INTERVAL).await;
    let after = look(cluster, status).await?;
    Ok(rates(&before, &after, watch.elapsed().as_secs_f64()))
}

/// Counters of a broker that was started again meanwhile begin at 0; a rate below that means nothing.
fn rates(before: &Sums, after: &Sums, seconds: f64) -> Traffic {
    let rate = |name: &str, outcome: &str| {
        let key = (name.to_owned(), outcome.to_owned());
        let count = |sums: &Sums| sums.get(&key).copied().unwrap_or_default();
        ((count(after) - count(before)) / seconds).max(0.0)
    };
    let outcome = |outcome: &str| rate("ackwell_outcomes_total", outcome);
    let consumers = after.get(&("ackwell_consumers".to_owned(), String::new()));
    Traffic {
        consumers: consumers.copied().unwrap_or_default(),
        sent_per_second: rate("ackwell_sent_total", ""),
        acked_per_second: outcome("ack"),
        failed_per_second: FAILURES.map(outcome).iter().sum(),
    }
}

/// All shards have to answer: a part of a rate would be taken for the whole.
async fn look(cluster: &Cluster, status: &QueueStatus) -> anyhow::Result<Sums> {
    ensure!(status.shards.iter().any(|shard| shard.ready), "no broker serves");
    let mut sums = Sums::new();
    for shard in status.shards.iter().filter(|shard| shard.ready) {
        let pod = format!("{}:{}", shard.pod, names::HTTP_PORT);
        add(&cluster.of_pod(&pod, "proxy/metrics").await?, &status.name, &mut sums);
    }
    Ok(sums)
}

fn add(metrics: &str, queue: &str, sums: &mut Sums) {
    let of_queue = format!("queue=\"{queue}\"");
    for line in metrics.lines().filter(|line| line.contains(&of_queue)) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        let outcome = series.split("outcome=\"").nth(1).and_then(|rest| rest.split('"').next());
        let key = (name.to_owned(), outcome.unwrap_or_default().to_owned());
        *sums.entry(key).or_default() += value.parse().unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(sent: u32, acked: u32, lost: u32) -> Sums {
        let text = format!(
            "# TYPE ackwell_sent_total counter\n\
             ackwell_sent_total{{namespace=\"shop\",queue=\"orders\"}} {sent}\n\
             ackwell_sent_total{{namespace=\"shop\",queue=\"logs\"}} 9000\n\
             ackwell_outcomes_total{{namespace=\"shop\",queue=\"orders\",outcome=\"ack\"}} {acked}\n\
             ackwell_outcomes_total{{namespace=\"shop\",queue=\"orders\",outcome=\"lost\"}} {lost}\n\
             ackwell_outcomes_total{{namespace=\"shop\",queue=\"orders\",outcome=\"release\"}} {sent}\n\
             ackwell_consumers{{namespace=\"shop\",queue=\"orders\"}} 2\n"
        );
        let mut sums = Sums::new();
        // Two shards.
        add(&text, "orders", &mut sums);
        add(&text, "orders", &mut sums);
        sums
    }

    /// Promise: what several shards say is added up, other queues are left out, and a release is no failure.
    #[test]
    fn rates_are_of_all_shards_and_of_nobody_else() {
        let expected =
            Traffic { consumers: 4.0, sent_per_second: 10.0, acked_per_second: 5.0, failed_per_second: 1.0 };
        assert_eq!(rates(&sums(0, 0, 0), &sums(10, 5, 1), 2.0), expected);
    }

    /// A broker that was started again counts from 0.
    #[test]
    fn rates_are_never_negative() {
        let again = rates(&sums(10, 5, 1), &sums(0, 0, 0), 2.0);
        assert_eq!(again, Traffic { consumers: 4.0, ..Traffic::default() });
    }
}
