//! What Prometheus sees of a broker.

use ackwell_engine::message::QueueId;
use ackwell_engine::store::disk::Space;
use ackwell_engine::{Settings, Stats, Totals, Usage};

use super::service::Service;
use super::shard::{COMMIT_SECONDS, View};
use crate::calls;
use crate::clock;
use crate::exposition::Kind::{Counter, Gauge, Histogram};
use crate::exposition::{Family, Page};
use crate::traces;

/// A queue, as it stands.
struct Queue {
    namespace: String,
    name: String,
    stats: Stats,
    oldest_ready_seconds: f64,
    consumers: usize,
    is_paused: bool,
    limits: Option<Settings>,
}

/// The store, as it stands.
struct Store {
    usage: Usage,
    space: Option<Space>,
    damaged: usize,
}

/// One number of each queue.
type OfQueue = (Family, fn(&Queue) -> u64);

const OF_QUEUE: [OfQueue; 9] = [
    (Family("ackwell_bytes", Gauge, "Bytes of all stored bodies."), |queue| queue.stats.counts.bytes),
    (Family("ackwell_consumers", Gauge, "Open Consume streams and waiting Receive calls."), |queue| {
        queue.consumers as u64
    }),
    (Family("ackwell_paused", Gauge, "1 while somebody paused the queue."), |queue| queue.is_paused.into()),
    (
        Family(
            "ackwell_limit_messages",
            Gauge,
            "Most messages that this shard stores, limits.maxMessages; 0: no limit.",
        ),
        |queue| queue.limits.as_ref().map_or(0, |limits| limits.max_messages),
    ),
    (
        Family(
            "ackwell_limit_bytes",
            Gauge,
            "Most bytes of bodies that this shard stores, limits.maxBytes; 0: no limit.",
        ),
        |queue| queue.limits.as_ref().map_or(0, |limits| limits.max_bytes),
    ),
    (
        Family("ackwell_limit_in_flight", Gauge, "Most messages in flight at once, limits.maxInFlight."),
        |queue| queue.limits.as_ref().map_or(0, |limits| limits.max_in_flight),
    ),
    (Family("ackwell_sent_total", Counter, "Messages stored."), |queue| queue.stats.totals.sent),
    (
        Family("ackwell_deliveries_total", Counter, "Messages handed to applications, every time they were."),
        |queue| queue.stats.totals.delivered,
    ),
    (
        Family(
            "ackwell_dropped_total",
            Counter,
            "Messages gone since their ttl passed (retention.expired: Drop).",
        ),
        |queue| queue.stats.totals.dropped,
    ),
];

/// One number of each queue for each value of one more label.
type ByLabel = (Family, &'static str, &'static [(&'static str, fn(&Queue) -> u64)]);

const BY_LABEL: [ByLabel; 3] = [
    (
        Family("ackwell_messages", Gauge, "Stored messages, by state."),
        "state",
        &[
            ("ready", |queue| queue.stats.counts.ready),
            ("delayed", |queue| queue.stats.counts.delayed),
            ("in_flight", |queue| queue.stats.counts.in_flight),
            ("dead", |queue| queue.stats.counts.dead),
        ],
    ),
    (
        Family(
            "ackwell_outcomes_total",
            Counter,
            "Deliveries that ended, by how; release is no failure, ack no more delivery.",
        ),
        "outcome",
        &[
            ("ack", |queue| queue.totals().acked),
            ("nack", |queue| queue.totals().nacked),
            ("release", |queue| queue.totals().released),
            ("reject", |queue| queue.totals().rejected),
            ("ack_timeout", |queue| queue.totals().timed_out),
            ("lost", |queue| queue.totals().lost),
        ],
    ),
    (
        Family("ackwell_died_total", Counter, "Messages that became Dead, by reason."),
        "reason",
        &[
            ("max_attempts", |queue| queue.totals().exhausted),
            ("rejected", |queue| queue.totals().rejected),
            ("expired", |queue| queue.totals().expired),
            ("corrupt", |queue| queue.totals().corrupt),
        ],
    ),
];

const OLDEST_READY: Family =
    Family("ackwell_oldest_ready_seconds", Gauge, "Age of the oldest Ready message; 0 while none is Ready.");

/// Of the process, not of a queue.
type OfProcess = (Family, fn(&Service) -> u64);

const OF_PROCESS: [OfProcess; 7] = [
    (
        Family(
            "ackwell_receiving_bytes",
            Gauge,
            "Parts of requests that are not complete yet; at most 64 MiB.",
        ),
        |service| service.receiving.bytes(),
    ),
    (
        Family(
            "ackwell_waiting_bytes",
            Gauge,
            "Messages that were sent and wait to be on disk; at most 64 MiB.",
        ),
        |service| service.shard.load().bytes,
    ),
    (
        Family(
            "ackwell_waiting_jobs",
            Gauge,
            "Calls and frames that wait for the next commit; at most 4096.",
        ),
        |service| service.shard.load().jobs as u64,
    ),
    (Family("ackwell_streams", Gauge, "Open Produce and Consume streams."), |service| {
        service.sessions.len() as u64
    }),
    (
        Family(
            "ackwell_store_open",
            Gauge,
            "1 while the store is open; 0 after a failure, until it is open again.",
        ),
        |service| service.shard.is_ready().into(),
    ),
    (
        Family("ackwell_store_failures_total", Counter, "Times the store failed and was opened again."),
        |service| service.shard.measures().store_failures(),
    ),
    (Family("ackwell_disk_full", Gauge, "1 while Sends are refused with DISK_FULL."), |service| {
        service.shard.measures().is_disk_full().into()
    }),
];

const CALLS: Family = Family(
    "ackwell_calls_total",
    Counter,
    "Calls by method and result: OK, a reason of errors.md, or OTHER; a stream that began is OK.",
);
const REFUSED_ITEMS: Family = Family(
    "ackwell_refused_items_total",
    Counter,
    "Refused items of batches and of frames, and streams that the broker ended, by reason of errors.md.",
);
const COMMITS: Family = Family(
    "ackwell_commit_seconds",
    Histogram,
    "From handing a commit to the log until it is on disk and applied; everything stored or settled waits for one.",
);
const BUILD: Family = Family("ackwell_build_info", Gauge, "Always 1; the label is the broker's version.");

type OfStore = (Family, fn(&Usage) -> u64);

const OF_STORE: [OfStore; 5] = [
    (Family("ackwell_store_log_bytes", Gauge, "Length of the log's files."), |usage| usage.log_bytes),
    (Family("ackwell_store_state_bytes", Gauge, "Length of the file of the state."), |usage| {
        usage.state_bytes
    }),
    (
        Family(
            "ackwell_store_replay_bytes",
            Gauge,
            "Log since the last checkpoint began: what a restart reads again.",
        ),
        |usage| usage.replay_bytes,
    ),
    (
        Family(
            "ackwell_checkpoints_total",
            Counter,
            "Checkpoints that were written since the store was opened.",
        ),
        |usage| usage.checkpoints,
    ),
    (
        Family(
            "ackwell_store_older_key_files",
            Gauge,
            "Files that are sealed with another key than the newest of spec.encryption: while it is not 0, the older keys are needed.",
        ),
        |usage| usage.older_key_files,
    ),
];
const CHECKPOINT_SECONDS: Family =
    Family("ackwell_checkpoint_seconds_total", Counter, "How long these checkpoints took, in all.");
const DAMAGED: Family = Family(
    "ackwell_store_damaged_total",
    Counter,
    "Damaged parts of the store: of the state since ever, of the log those found when it was opened; the broker's log names each.",
);
const VOLUME: Family = Family("ackwell_volume_bytes", Gauge, "Size of the volume.");
const VOLUME_FREE: Family = Family(
    "ackwell_volume_free_bytes",
    Gauge,
    "Free on the volume, with what the broker keeps back for acks.",
);

const SPANS: Family =
    Family("ackwell_spans_exported_total", Counter, "Spans that the collector of traces took.");
const DROPPED_SPANS: Family = Family(
    "ackwell_spans_dropped_total",
    Counter,
    "Spans that no collector took, by reason: queue_full, export_failed or rejected.",
);

/// All metrics. What the store would have to say is left out while it is not open.
pub(super) async fn text(service: &Service) -> String {
    let mut page = Page::default();
    page.add(BUILD, [([("version", env!("CARGO_PKG_VERSION"))], 1)]);
    for (family, value) in OF_PROCESS {
        page.add_one(family, value(service));
    }
    page.add(
        CALLS,
        calls::calls().map(|(method, result, count)| ([("method", method), ("result", result)], count)),
    );
    page.add_one(SPANS, traces::exported());
    page.add(DROPPED_SPANS, traces::dropped().map(|(reason, count)| ([("reason", reason)], count)));
    page.add(REFUSED_ITEMS, calls::refused().map(|(reason, count)| ([("reason", reason)], count)));
    let (counts, sum) = service.shard.measures().commits();
    page.add_histogram(COMMITS, &COMMIT_SECONDS, &counts, sum);
    if let Some((queues, store)) = look(service).await {
        add_queues(&mut page, &queues);
        add_store(&mut page, &store);
    }
    page.into_text()
}

fn add_queues(page: &mut Page, queues: &[Queue]) {
    for (family, value) in OF_QUEUE {
        page.add(family, queues.iter().map(|queue| (queue.labels(), value(queue))));
    }
    page.add(OLDEST_READY, queues.iter().map(|queue| (queue.labels(), queue.oldest_ready_seconds)));
    for (family, label, values) in BY_LABEL {
        let samples = queues.iter().flat_map(|queue| {
            let [namespace, name] = queue.labels();
            values.iter().map(move |(word, value)| ([namespace, name, (label, *word)], value(queue)))
        });
        page.add(family, samples);
    }
}

fn add_store(page: &mut Page, Store { usage, space, damaged }: &Store) {
    for (family, value) in OF_STORE {
        page.add_one(family, value(usage));
    }
    page.add_one(CHECKPOINT_SECONDS, usage.checkpoint_time.as_secs_f64());
    page.add_one(DAMAGED, damaged);
    if let Some(space) = space {
        page.add_one(VOLUME, space.total_bytes);
        page.add_one(VOLUME_FREE, space.free_bytes);
    }
}

/// One look between two commits, for which a scrape can wait: it matters most when there is much to do.
async fn look(service: &Service) -> Option<(Vec<Queue>, Store)> {
    let names: Vec<_> = service.queues.all().into_iter().collect();
    let look = move |view: View<'_>| {
        let queues = names.iter().map(|(name, id)| Queue::see(&view, (name.namespace(), name.name()), *id));
        let damaged = view.engine.damage().map_or(0, |damage| damage.len());
        (queues.collect(), Store { usage: view.engine.usage(), space: view.engine.space().ok(), damaged })
    };
    service.shard.look_in_turn(look).await
}

impl Queue {
    fn see(view: &View<'_>, (namespace, name): (&str, &str), id: QueueId) -> Self {
        let stats = view.engine.stats(id);
        let oldest_ms = stats.oldest_ready.map_or(0, |stored_at| clock::now().ms_since(stored_at));
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            stats,
            oldest_ready_seconds: std::time::Duration::from_millis(oldest_ms).as_secs_f64(),
            consumers: view.consumers(id),
            is_paused: view.engine.is_paused(id),
            limits: view.engine.rules(id).cloned(),
        }
    }

    fn labels(&self) -> [(&str, &str); 2] {
        [("namespace", &self.namespace), ("queue", &self.name)]
    }

    fn totals(&self) -> &Totals {
        &self.stats.totals
    }
}
