//! Asks for everything, and puts it together.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::{Condition, Event, Messages, QueueStatus, Shard, Traffic, Volume};
use crate::clock::Stopwatch;
use crate::cluster::Place;

/// Between the two looks that make a rate.
const INTERVAL: Duration = Duration::from_secs(1);
/// The newest; more is `kubectl describe`.
const MAX_EVENTS: usize = 8;
/// Failures of every kind.
const FAILURES: [&str; 4] = ["nack", "reject", "ack_timeout", "lost"];

/// Objects of the cluster, as it has them.
pub(super) struct Objects {
    pub(super) queue: Value,
    pub(super) pods: Vec<Value>,
    pub(super) claims: Vec<Value>,
    pub(super) events: Vec<Value>,
}

/// Of one queue, or of all in the namespace.
pub(super) async fn statuses(place: &Place, name: Option<&str>) -> anyhow::Result<Vec<QueueStatus>> {
    let queues = match name {
        Some(name) => vec![place.get(&["queues.ackwell.dev", name]).await?],
        None => place.list(&["queues.ackwell.dev"]).await?,
    };
    let mut statuses = Vec::new();
    for queue in queues {
        let name = text(&queue["metadata"]["name"]);
        let selector = format!("--selector=ackwell.dev/queue={name},app.kubernetes.io/component=broker");
        let (pods, claims, events) = tokio::try_join!(
            place.list(&["pods", &selector]),
            place.list(&["persistentvolumeclaims", &selector]),
            place.list(&["events", "--sort-by=.lastTimestamp"]),
        )?;
        let mut status = status(&Objects { queue, pods, claims, events });
        status.traffic = traffic(place, &status).await.ok();
        statuses.push(status);
    }
    Ok(statuses)
}

/// What the objects say.
pub(super) fn status(objects: &Objects) -> QueueStatus {
    let Objects { queue, pods, claims, events } = objects;
    let (metadata, status) = (&queue["metadata"], &queue["status"]);
    let mut shards: Vec<Shard> = pods.iter().map(|pod| shard(pod, claims)).collect();
    shards.sort_by_key(|shard| ordinal(&shard.pod));
    let mut status = QueueStatus {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        conditions: items(&status["conditions"]).iter().map(condition).collect(),
        messages: status["messages"].is_object().then(|| messages(&status["messages"])),
        oldest_ready_seconds: status["oldestReadySeconds"].as_i64(),
        shards_wanted: queue["spec"]["shards"].as_i64().unwrap_or(1),
        shards,
        traffic: None,
        events: Vec::new(),
    };
    status.events = last_events(&status, events);
    status
}

fn messages(counts: &Value) -> Messages {
    let count = |name: &str| counts[name].as_i64().unwrap_or(0);
    Messages {
        ready: count("ready"),
        in_flight: count("inFlight"),
        delayed: count("delayed"),
        dead: count("dead"),
    }
}

fn condition(condition: &Value) -> Condition {
    Condition {
        kind: text(&condition["type"]),
        status: text(&condition["status"]),
        reason: text(&condition["reason"]),
        message: text(&condition["message"]),
        since: text(&condition["lastTransitionTime"]),
    }
}

fn shard(pod: &Value, claims: &[Value]) -> Shard {
    let name = text(&pod["metadata"]["name"]);
    let container = &items(&pod["status"]["containerStatuses"]).first().cloned().unwrap_or_default();
    let waits_for = &container["state"]["waiting"]["reason"];
    let claim = claims.iter().find(|claim| text(&claim["metadata"]["name"]) == format!("data-{name}"));
    Shard {
        phase: text(if waits_for.is_string() { waits_for } else { &pod["status"]["phase"] }),
        ready: container["ready"].as_bool().unwrap_or(false),
        restarts: container["restartCount"].as_i64().unwrap_or(0),
        node: text(&pod["spec"]["nodeName"]),
        volume: claim.map(volume),
        pod: name,
    }
}

fn volume(claim: &Value) -> Volume {
    let (wanted, there) =
        (&claim["spec"]["resources"]["requests"]["storage"], &claim["status"]["capacity"]["storage"]);
    Volume {
        claim: text(&claim["metadata"]["name"]),
        phase: text(&claim["status"]["phase"]),
        size: text(if there.is_string() { there } else { wanted }),
    }
}

/// `ackwell-orders-10` comes after `ackwell-orders-9`.
fn ordinal(pod: &str) -> u32 {
    pod.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// Of the queue and all that is made for it, the newest first.
fn last_events(status: &QueueStatus, events: &[Value]) -> Vec<Event> {
    let child = format!("ackwell-{}", status.name);
    let parts = status.shards.iter().flat_map(|shard| [shard.pod.clone(), format!("data-{}", shard.pod)]);
    let names: Vec<String> = parts.chain([status.name.clone(), child]).collect();
    let is_ours = |event: &&Value| names.contains(&text(&event["involvedObject"]["name"]));
    events.iter().rev().filter(is_ours).take(MAX_EVENTS).map(event).collect()
}

fn event(event: &Value) -> Event {
    let about = &event["involvedObject"];
    let times = [&event["lastTimestamp"], &event["series"]["lastObservedTime"], &event["eventTime"]];
    Event {
        last: text(times.into_iter().find(|time| time.is_string()).unwrap_or(&Value::Null)),
        kind: text(&event["type"]),
        reason: text(&event["reason"]),
        about: format!("{} {}", text(&about["kind"]), text(&about["name"])),
        message: text(&event["message"]).lines().collect::<Vec<_>>().join(" "),
    }
}

/// What the brokers counted within a moment.
async fn traffic(place: &Place, status: &QueueStatus) -> anyhow::Result<Traffic> {
    let watch = Stopwatch::start();
    let before = numbers(place, status).await?;
    tokio::time::sleep(INTERVAL).await;
    let after = numbers(place, status).await?;
    let seconds = watch.elapsed().as_secs_f64();
    let rate = |names: &[String]| {
        let sum =
            |numbers: &HashMap<String, f64>| names.iter().filter_map(|name| numbers.get(name)).sum::<f64>();
        ((sum(&after) - sum(&before)) / seconds).max(0.0)
    };
    let outcome = |word: &str| format!("ackwell_outcomes_total {word}");
    Ok(Traffic {
        sent_per_second: rate(&["ackwell_sent_total ".to_owned()]),
        acked_per_second: rate(&[outcome("ack")]),
        failed_per_second: rate(&FAILURES.map(outcome)),
        consumers: after.get("ackwell_consumers ").copied().unwrap_or(0.0),
    })
}

/// Metrics of the queue, summed over its shards: by name and outcome.
async fn numbers(place: &Place, status: &QueueStatus) -> anyhow::Result<HashMap<String, f64>> {
    let mut sums = HashMap::new();
    for shard in status.shards.iter().filter(|shard| shard.ready) {
        let text = place.metrics(&status.namespace, &shard.pod).await.context("ask a broker")?;
        add(&text, &status.name, &mut sums);
    }
    Ok(sums)
}

fn add(metrics: &str, queue: &str, sums: &mut HashMap<String, f64>) {
    let of_queue = format!("queue=\"{queue}\"");
    for line in metrics.lines().filter(|line| line.contains(&of_queue)) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        let outcome = series.split("outcome=\"").nth(1).and_then(|rest| rest.split('"').next());
        *sums.entry(format!("{name} {}", outcome.unwrap_or_default())).or_default() +=
            value.parse().unwrap_or(0.0);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Promise: what several shards say is added up, and of nobody else.
    #[test]
    #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
    fn metrics_of_shards_are_summed() {
        let mut sums = HashMap::new();
        let text = "# TYPE ackwell_sent_total counter\n\
             ackwell_sent_total{namespace=\"shop\",queue=\"orders\"} 3\n\
             ackwell_sent_total{namespace=\"shop\",queue=\"logs\"} 9\n\
             ackwell_outcomes_total{namespace=\"shop\",queue=\"orders\",outcome=\"ack\"} 2\n";
        add(text, "orders", &mut sums);
        add(text, "orders", &mut sums);
        assert_eq!(sums["ackwell_sent_total "], 6.0);
        assert_eq!(sums["ackwell_outcomes_total ack"], 4.0);
    }

    /// Events of other queues, and of pods whose names only begin alike, are not shown.
    #[test]
    fn events_are_those_of_the_queue_and_its_parts() {
        let event = |name: &str| json!({"involvedObject": {"kind": "Pod", "name": name}, "reason": name});
        let objects = Objects {
            queue: json!({"metadata": {"namespace": "shop", "name": "orders"}, "spec": {"shards": 2}}),
            pods: vec![
                json!({"metadata": {"name": "ackwell-orders-10"}}),
                json!({"metadata": {"name": "ackwell-orders-9"}}),
            ],
            claims: Vec::new(),
            events: ["orders", "orders-x", "ackwell-orders-9", "data-ackwell-orders-10", "ackwell-orders"]
                .map(event)
                .into(),
        };
        let status = status(&objects);
        let pods: Vec<_> = status.shards.iter().map(|shard| shard.pod.as_str()).collect();
        assert_eq!(pods, ["ackwell-orders-9", "ackwell-orders-10"]);
        let told: Vec<_> = status.events.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(told, ["ackwell-orders", "data-ackwell-orders-10", "ackwell-orders-9", "orders"]);
    }
}
