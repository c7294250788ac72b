//! What Prometheus sees of a sidecar.

use super::service::Sidecar;
use crate::calls;
use crate::exposition::Kind::{Counter, Gauge};
use crate::exposition::{Family, Labels, Page};
use crate::traces;

const BUILD: Family =
    Family("ackwell_sidecar_build_info", Gauge, "Always 1; the label is the sidecar's version.");
const CALLS: Family = Family(
    "ackwell_sidecar_calls_total",
    Counter,
    "Calls of the application by method and result: OK, a reason of errors.md, or OTHER; a stream that began is OK.",
);
const STREAMS: Family =
    Family("ackwell_sidecar_streams", Gauge, "Open streams of the application, at most 256.");
const SENDING: Family =
    Family("ackwell_sidecar_sending_bytes", Gauge, "Sends that wait for brokers; at most 128 MiB.");
const HELD: Family = Family(
    "ackwell_sidecar_held_deliveries",
    Gauge,
    "Deliveries that the application got by Receive and has not settled.",
);
const SHARDS: Family = Family("ackwell_sidecar_shards", Gauge, "Shards of the queue that the sidecar knows.");
const FAILING: Family = Family(
    "ackwell_sidecar_failing_shards",
    Gauge,
    "Shards whose last call failed: its broker did not answer.",
);

const SPANS: Family =
    Family("ackwell_sidecar_spans_exported_total", Counter, "Spans that the collector of traces took.");
const DROPPED_SPANS: Family = Family(
    "ackwell_sidecar_spans_dropped_total",
    Counter,
    "Spans that no collector took, by reason: queue_full, export_failed or rejected.",
);

/// All metrics, of the queues that were used.
pub(super) fn text(sidecar: &Sidecar) -> String {
    let mut page = Page::default();
    page.add(BUILD, [([("version", env!("CARGO_PKG_VERSION"))], 1)]);
    page.add(
        CALLS,
        calls::calls().map(|(method, result, count)| ([("method", method), ("result", result)], count)),
    );
    page.add_one(SPANS, traces::exported());
    page.add(DROPPED_SPANS, traces::dropped().map(|(reason, count)| ([("reason", reason)], count)));
    page.add_one(STREAMS, sidecar.open_streams());
    page.add_one(SENDING, sidecar.sending_bytes());
    let queues = sidecar.router.queues();
    page.add(HELD, queues.iter().map(|queue| (labels(queue.full_name()), queue.held.len())));
    page.add(SHARDS, queues.iter().map(|queue| (labels(queue.full_name()), queue.shards().0)));
    page.add(FAILING, queues.iter().map(|queue| (labels(queue.full_name()), queue.shards().1)));
    page.into_text()
}

fn labels(full_name: &str) -> Labels<'_, 2> {
    let (namespace, name) = full_name.split_once('/').unwrap_or(("", full_name));
    [("namespace", namespace), ("queue", name)]
}
