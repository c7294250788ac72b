//! What Prometheus sees of a broker.

use std::fmt::Write;

use ackwell_proto::v1::StatsResponse;

use super::service::{Service, admin};

/// One metric family: its name, kind and help, and how it reads from the counts.
type Family = (&'static str, &'static str, &'static str, fn(&StatsResponse) -> u64);

const FAMILIES: [Family; 6] = [
    ("ackwell_bytes", "gauge", "Bytes of all stored bodies.", |stats| stats.bytes),
    ("ackwell_consumers", "gauge", "Open Consume streams and waiting Receive calls.", |stats| {
        stats.consumers.into()
    }),
    ("ackwell_paused", "gauge", "1 while somebody paused the queue.", |stats| stats.paused.into()),
    ("ackwell_sent_total", "counter", "Messages stored since the broker started.", |stats| stats.sent),
    ("ackwell_acked_total", "counter", "Messages acked since the broker started.", |stats| stats.acked),
    ("ackwell_failed_attempts_total", "counter", "Attempts that failed since the broker started.", |stats| {
        stats.nacked
    }),
];

type State = (&'static str, fn(&StatsResponse) -> u64);

const STATES: [State; 4] = [
    ("ready", |stats| stats.ready),
    ("delayed", |stats| stats.delayed),
    ("in_flight", |stats| stats.in_flight),
    ("dead", |stats| stats.dead),
];

/// Of the process, not of a queue.
type Gauge = (&'static str, &'static str, fn(&Service) -> u64);

const GAUGES: [Gauge; 4] = [
    ("ackwell_receiving_bytes", "Parts of requests that are not complete yet.", |service| {
        service.receiving.bytes()
    }),
    ("ackwell_waiting_bytes", "Messages that are sent and wait to be on disk.", |service| {
        service.shard.load().bytes
    }),
    ("ackwell_waiting_jobs", "Calls and frames that wait for the next commit.", |service| {
        service.shard.load().jobs as u64
    }),
    ("ackwell_streams", "Open Produce and Consume streams.", |service| service.sessions.len() as u64),
];

/// All metrics in the Prometheus text format. Queues that cannot be asked at the moment are left out.
pub(super) async fn text(service: &Service) -> String {
    let mut queues = Vec::new();
    for (name, id) in service.queues.all() {
        if let Ok(stats) = admin::stats(&service.shard, id).await {
            queues.push((format!("namespace=\"{}\",queue=\"{}\"", name.namespace(), name.name()), stats));
        }
    }
    let mut out = String::new();
    header(&mut out, "ackwell_messages", "gauge", "Stored messages by state.");
    for (labels, stats) in &queues {
        for (state, value) in STATES {
            line(&mut out, "ackwell_messages", &format!("{labels},state=\"{state}\""), value(stats));
        }
    }
    for (name, kind, help, value) in FAMILIES {
        header(&mut out, name, kind, help);
        queues.iter().for_each(|(labels, stats)| line(&mut out, name, labels, value(stats)));
    }
    for (name, help, value) in GAUGES {
        header(&mut out, name, "gauge", help);
        _ = writeln!(out, "{name} {}", value(service));
    }
    store(&mut out, service).await;
    out
}

/// What there is of the store itself, while it is open.
async fn store(out: &mut String, service: &Service) {
    let look = service.shard.look(|view| view.engine.damage().map(|damage| damage.len()));
    if let Ok(Ok(damaged)) = look.await {
        let help = "Damaged parts of the store; the broker's log names them.";
        header(out, "ackwell_store_damaged_total", "counter", help);
        _ = writeln!(out, "ackwell_store_damaged_total {damaged}");
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    _ = writeln!(out, "{name}{{{labels}}} {value}");
}
