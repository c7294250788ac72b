//! A status as a tree that a person can read.

use super::{Condition, Event, QueueStatus, Shard, Traffic, Volume};
use crate::duration;
use crate::output::tame;

/// A line and what is below it.
struct Node(String, Vec<Node>);

pub(super) fn text(status: &QueueStatus) -> String {
    let mut text = format!("{}\n", headline(status));
    let some = |name: &str, below: Vec<Node>| (!below.is_empty()).then(|| Node(name.to_owned(), below));
    let branches = [
        some("conditions", status.conditions.iter().map(condition).collect()),
        Some(Node(shards(status), status.shards.iter().map(shard).collect())),
        Some(Node(traffic(status.traffic.as_ref()), Vec::new())),
        some("last events", status.events.iter().map(event).collect()),
    ];
    let branches: Vec<Node> = branches.into_iter().flatten().collect();
    draw(&branches, "", &mut text);
    text
}

fn draw(nodes: &[Node], indent: &str, text: &mut String) {
    for (index, Node(line, below)) in nodes.iter().enumerate() {
        let (branch, further) =
            if index + 1 == nodes.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        text.extend([indent, branch, &tame(line), "\n"]);
        draw(below, &format!("{indent}{further}"), text);
    }
}

fn headline(status: &QueueStatus) -> String {
    let name = format!("{}/{}", status.namespace, status.name);
    let Some(messages) = &status.messages else {
        return format!("{name}  no broker has counted its messages yet");
    };
    let oldest = status.oldest_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let oldest = oldest.map(std::time::Duration::from_secs).map(duration::show);
    let oldest = oldest.map_or(String::new(), |oldest| format!(" (oldest {oldest})"));
    format!(
        "{name}  {} ready{oldest}, {} in flight, {} delayed, {} dead",
        messages.ready, messages.in_flight, messages.delayed, messages.dead
    )
}

fn condition(condition: &Condition) -> Node {
    let Condition { kind, status, reason, message, since } = condition;
    let line = format!("{kind:<15} {status:<8} {reason:<18} since {since}  {message}");
    Node(line.trim_end().to_owned(), Vec::new())
}

fn shards(status: &QueueStatus) -> String {
    let ready = status.shards.iter().filter(|shard| shard.ready).count();
    format!("shards {ready} of {} ready", status.shards_wanted)
}

fn shard(shard: &Shard) -> Node {
    let Shard { pod, phase, ready, restarts, node, volume } = shard;
    let ready = if *ready { "ready" } else { "not ready" };
    let node = if node.is_empty() { "no node" } else { node };
    let volume = volume.as_ref().map_or_else(|| format!("data-{pod}  missing"), volume_line);
    Node(format!("{pod}  {phase}, {ready}  {node}  restarts {restarts}"), vec![Node(volume, Vec::new())])
}

fn volume_line(volume: &Volume) -> String {
    let Volume { claim, phase, size, wanted } = volume;
    let wanted = wanted.as_ref().map_or(String::new(), |wanted| format!(", shall have {wanted}"));
    format!("{claim}  {phase}  {size}{wanted}")
}

fn traffic(traffic: Option<&Traffic>) -> String {
    let Some(traffic) = traffic else {
        return "traffic  unknown: the brokers could not be asked, or no queue was named".to_owned();
    };
    let Traffic { consumers, sent_per_second, acked_per_second, failed_per_second } = traffic;
    format!(
        "traffic  {consumers:.0} consumers, {sent_per_second:.1} sent/s, {acked_per_second:.1} acked/s, \
         {failed_per_second:.1} failed/s"
    )
}

fn event(event: &Event) -> Node {
    let Event { last, kind, reason, about, message } = event;
    Node(format!("{last}  {kind:<7} {reason}  {about}: {message}"), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::super::Messages;
    use super::*;

    /// Promise: one look tells how a queue is.
    #[test]
    fn tree_shows_everything() {
        let status = QueueStatus {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            conditions: vec![Condition {
                kind: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: "PodFailing".to_owned(),
                message: "no node fits".to_owned(),
                since: "2026-01-02T03:04:05Z".to_owned(),
            }],
            messages: Some(Messages { ready: 12, in_flight: 3, delayed: 0, dead: 1 }),
            oldest_ready_seconds: Some(90),
            shards_wanted: 2,
            shards: vec![Shard {
                pod: "ackwell-orders-0".to_owned(),
                phase: "Running".to_owned(),
                ready: true,
                restarts: 1,
                node: "node-a".to_owned(),
                volume: Some(Volume {
                    claim: "data-ackwell-orders-0".to_owned(),
                    phase: "Bound".to_owned(),
                    size: "10Gi".to_owned(),
                    wanted: Some("20Gi".to_owned()),
                }),
            }],
            traffic: Some(Traffic {
                sent_per_second: 120.04,
                acked_per_second: 118.0,
                failed_per_second: 0.25,
                consumers: 4.0,
            }),
            events: vec![Event {
                last: "2026-01-02T03:04:06Z".to_owned(),
                kind: "Warning".to_owned(),
                reason: "PodFailing".to_owned(),
                about: "Queue orders".to_owned(),
                message: "no \u{1b}node".to_owned(),
            }],
        };
        let expected = "\
shop/orders  12 ready (oldest 1m30s), 3 in flight, 0 delayed, 1 dead
├─ conditions
│  └─ Ready           False    PodFailing         since 2026-01-02T03:04:05Z  no node fits
├─ shards 1 of 2 ready
│  └─ ackwell-orders-0  Running, ready  node-a  restarts 1
│     └─ data-ackwell-orders-0  Bound  10Gi, shall have 20Gi
├─ traffic  4 consumers, 120.0 sent/s, 118.0 acked/s, 0.2 failed/s
└─ last events
   └─ 2026-01-02T03:04:06Z  Warning PodFailing  Queue orders: no \\u{1b}node
";
        assert_eq!(text(&status), expected);
    }

    /// A queue that was just made has nothing yet, and says so.
    #[test]
    fn new_queue_is_shown_too() {
        let status = QueueStatus {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            shards_wanted: 1,
            ..QueueStatus::default()
        };
        let expected = "a/b  no broker has counted its messages yet\n\
             ├─ shards 0 of 1 ready\n\
             └─ traffic  unknown: the brokers could not be asked, or no queue was named\n";
        assert_eq!(text(&status), expected);
    }
}
