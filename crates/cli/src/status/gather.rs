//! Asks for everything, and puts it together.

use ackwell_api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::traffic::traffic;
use super::{Condition, Event, Messages, QueueStatus, Shard, Volume};
use crate::cluster::{CLAIMS, Cluster, EVENTS, Kind, PODS, QUEUES, is_ready};

/// The newest; `kubectl describe` has more.
const MAX_EVENTS: usize = 8;
/// What brokers and their volumes are known by.
const BROKERS: &str = "app.kubernetes.io/name=ackwell,app.kubernetes.io/component=broker";

/// Objects of a namespace, as the cluster has them.
#[derive(Default)]
struct Objects {
    pods: Vec<Value>,
    claims: Vec<Value>,
    events: Vec<Value>,
}

/// Of one queue, or of all in the namespace; and what could not be had.
pub(super) async fn statuses(
    cluster: &Cluster,
    name: Option<&str>,
) -> anyhow::Result<(Vec<QueueStatus>, Vec<String>)> {
    let queues = match name {
        Some(name) => cluster.find(QUEUES, name).await?.into_iter().collect(),
        None => cluster.list(QUEUES, "").await?,
    };
    if queues.is_empty() {
        return Ok(Default::default());
    }
    let (objects, missing) = objects(cluster).await;
    let mut statuses: Vec<_> = queues.iter().map(|queue| status(queue, &objects)).collect();
    if let (Some(_), [status]) = (name, &mut statuses[..]) {
        status.traffic = traffic(cluster, status).await.ok();
    }
    Ok((statuses, missing))
}

async fn objects(cluster: &Cluster) -> (Objects, Vec<String>) {
    let mut missing = Vec::new();
    let mut kept = |kind: Kind, listed: anyhow::Result<Vec<Value>>| {
        listed.unwrap_or_else(|error| {
            missing.push(format!("{kind} could not be had: {error:#}"));
            Vec::new()
        })
    };
    let (pods, claims, events) =
        tokio::join!(cluster.list(PODS, BROKERS), cluster.list(CLAIMS, BROKERS), cluster.list(EVENTS, ""));
    let objects =
        Objects { pods: kept(PODS, pods), claims: kept(CLAIMS, claims), events: kept(EVENTS, events) };
    (objects, missing)
}

/// What the objects say.
fn status(queue: &Value, objects: &Objects) -> QueueStatus {
    let (metadata, status) = (&queue["metadata"], &queue["status"]);
    let name = text(&metadata["name"]);
    let of_queue = |pod: &&Value| ordinal(&name, pod).is_some();
    let mut pods: Vec<&Value> = objects.pods.iter().filter(of_queue).collect();
    pods.sort_by_key(|pod| ordinal(&name, pod));
    let shards: Vec<Shard> = pods.into_iter().map(|pod| shard(pod, &objects.claims)).collect();
    QueueStatus {
        namespace: text(&metadata["namespace"]),
        conditions: items(&status["conditions"]).iter().map(condition).collect(),
        messages: status["messages"].is_object().then(|| messages(&status["messages"])),
        oldest_ready_seconds: status["oldestReadySeconds"].as_i64(),
        shards_wanted: queue["spec"]["shards"].as_i64().unwrap_or(1),
        events: last_events(&name, &objects.events),
        traffic: None,
        shards,
        name,
    }
}

fn ordinal(queue: &str, pod: &Value) -> Option<u32> {
    names::ordinal(queue, pod["metadata"]["name"].as_str()?)
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
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| items(&pod["status"][list]));
    let mut containers = lists.into_iter().flatten();
    let broker = containers.find(|container| container["name"] == names::BROKER_CONTAINER);
    let container = broker.unwrap_or(&Value::Null);
    let waits_for = &container["state"]["waiting"]["reason"];
    let claim = claims.iter().find(|claim| text(&claim["metadata"]["name"]) == claim_name(&name));
    Shard {
        phase: text(if waits_for.is_string() { waits_for } else { &pod["status"]["phase"] }),
        ready: is_ready(pod),
        restarts: container["restartCount"].as_i64().unwrap_or(0),
        node: text(&pod["spec"]["nodeName"]),
        volume: claim.map(volume),
        pod: name,
    }
}

fn volume(claim: &Value) -> Volume {
    let wanted = claim["spec"]["resources"]["requests"]["storage"].as_str();
    let has = claim["status"]["capacity"]["storage"].as_str();
    Volume {
        claim: text(&claim["metadata"]["name"]),
        phase: text(&claim["status"]["phase"]),
        size: has.or(wanted).unwrap_or_default().to_owned(),
        wanted: wanted.filter(|wanted| has.is_some_and(|has| has != *wanted)).map(str::to_owned),
    }
}

fn claim_name(pod: &str) -> String {
    format!("{}-{pod}", names::DATA_VOLUME)
}

/// Of the queue and all that is made for it, the newest first.
fn last_events(queue: &str, events: &[Value]) -> Vec<Event> {
    let mut ours: Vec<&Value> =
        events.iter().filter(|event| is_about(queue, &event["involvedObject"])).collect();
    ours.sort_by_key(|event| std::cmp::Reverse(last(event).parse::<Timestamp>().ok()));
    ours.into_iter().take(MAX_EVENTS).map(event).collect()
}

/// Events of other queues whose names begin alike, and of what applications call so, are not ours.
fn is_about(queue: &str, object: &Value) -> bool {
    let (kind, name) = (text(&object["kind"]), text(&object["name"]));
    let claim_of = || names::ordinal(queue, name.strip_prefix(&claim_name(""))?);
    match kind.as_str() {
        "Queue" => name == queue,
        "Pod" => names::ordinal(queue, &name).is_some(),
        "PersistentVolumeClaim" => claim_of().is_some(),
        _ => name == names::child(queue),
    }
}

fn event(event: &Value) -> Event {
    let about = &event["involvedObject"];
    Event {
        last: last(event).to_owned(),
        kind: text(&event["type"]),
        reason: text(&event["reason"]),
        about: format!("{} {}", text(&about["kind"]), text(&about["name"])),
        message: text(&event["message"]).lines().collect::<Vec<_>>().join(" "),
    }
}

/// When it was told last; there are two generations of events, and each says it elsewhere.
fn last(event: &Value) -> &str {
    let times = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    times.into_iter().find_map(Value::as_str).unwrap_or_default()
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

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    /// Promise: what belongs to other queues is not shown, however alike the names are; the newest event is first.
    #[test]
    fn shards_and_events_are_those_of_the_queue() {
        let event = |(second, kind, name): (u32, &str, &str)| {
            json!({"involvedObject": {"kind": kind, "name": name}, "reason": format!("{kind} {name}"),
                "eventTime": format!("2026-01-02T03:04:0{second}.000000Z")})
        };
        let told = [
            (1, "Queue", "orders"),
            (2, "Queue", "orders-x"),
            (3, "Pod", "ackwell-orders-9"),
            (4, "Pod", "ackwell-orders-x-9"),
            (6, "PersistentVolumeClaim", "data-ackwell-orders-10"),
            (5, "StatefulSet", "ackwell-orders"),
        ];
        let objects = Objects {
            pods: ["ackwell-orders-10", "ackwell-orders-x-1", "ackwell-orders-9"].map(pod).into(),
            events: told.map(event).into(),
            ..Objects::default()
        };
        let status = status(&json!({"metadata": {"name": "orders"}}), &objects);
        let pods: Vec<_> = status.shards.iter().map(|shard| shard.pod.as_str()).collect();
        assert_eq!(pods, ["ackwell-orders-9", "ackwell-orders-10"]);
        let told: Vec<_> = status.events.iter().map(|event| event.reason.as_str()).collect();
        let claim = "PersistentVolumeClaim data-ackwell-orders-10";
        assert_eq!(told, [claim, "StatefulSet ackwell-orders", "Pod ackwell-orders-9", "Queue orders"]);
    }

    #[test]
    fn volume_that_grows_tells_where_to() {
        let claim = |has: Value| {
            let status = json!({"capacity": {"storage": has}});
            volume(&json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}, "status": status}))
        };
        let shown = |has: Value| (claim(has.clone()).size, claim(has).wanted);
        assert_eq!(shown(json!("1Gi")), ("1Gi".to_owned(), Some("2Gi".to_owned())));
        assert_eq!(shown(json!("2Gi")), ("2Gi".to_owned(), None));
        assert_eq!(shown(Value::Null), ("2Gi".to_owned(), None));
    }
}
