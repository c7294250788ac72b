//! Traces, as a collector sees them: what happened to a message is one trace, and nothing that happens to traces happens to
//! messages.

use std::time::Duration;

use ackwell_proto::v1::consume_request::Frame as Asked;
use ackwell_proto::v1::consume_response::Frame as Told;
use ackwell_proto::v1::produce_request::Frame as Produced;
use ackwell_proto::v1::produce_response::Frame as Confirmed;
use ackwell_proto::v1::{
    ConsumeRequest, Delivery, Message, Open, ProduceBatch, ProduceOpen, ProduceRequest, PurgeRequest,
    QueueSettings, SendRequest, SettleFrame,
};
use ackwell_tests::caller::{Caller, ack, message, nack};
use ackwell_tests::certificates::{Authority, Shown, replace, text};
use ackwell_tests::collector::{Collector, Manner, Seen, names};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};
use ackwell_tests::{ports, wait};
use anyhow::ensure;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

const SOON: Duration = Duration::from_secs(30);
/// Between two exports.
const AT_ONCE: Duration = Duration::from_millis(50);
const TRACEPARENT: &str = "traceparent";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A broker and a sidecar that say what they do to a collector.
struct World {
    collector: Collector,
    broker: Broker,
    sidecar: Sidecar,
}

impl World {
    async fn start(more: &[&str]) -> Self {
        Self::with(Collector::start(Manner::Takes).await, AT_ONCE, more)
    }

    fn with(collector: Collector, delay: Duration, more: &[&str]) -> Self {
        Self::of(settings(), collector, delay, more)
    }

    fn of(settings: QueueSettings, collector: Collector, delay: Duration, more: &[&str]) -> Self {
        let arguments = collector.arguments(delay);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut broker = Broker::prepare(settings).with(&arguments);
        broker.restart();
        let sidecar = Sidecar::start_with(&broker, &arguments);
        Self { collector, broker, sidecar }
    }
}

/// What an application's own span is to others.
fn context(trace: &str, span: u64, is_sampled: bool) -> String {
    format!("00-{trace}-{span:016x}-{:02x}", u8::from(is_sampled))
}

fn traced(body: &str, context: &str) -> Message {
    Message { headers: [(TRACEPARENT.to_owned(), context.to_owned())].into(), ..message(body) }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes text");
        text
    })
}

#[track_caller]
fn find<'a>(spans: &'a [Seen], service: &str, name: &str) -> &'a Seen {
    let found = spans.iter().find(|seen| seen.service == service && seen.span.name == name);
    found.unwrap_or_else(|| panic!("no {name} of {service} in {:#?}", names(spans)))
}

/// The spans of one message on its way through both, whichever calls it took.
const LIFE: [&str; 7] = [
    "ackwell-broker: ack shop/orders",
    "ackwell-broker: receive shop/orders",
    "ackwell-broker: send shop/orders",
    "ackwell-sidecar: ack shop/orders",
    "ackwell-sidecar: process shop/orders",
    "ackwell-sidecar: receive shop/orders",
    "ackwell-sidecar: send shop/orders",
];

/// What holds of each: the sender's trace, and a link to its span but for a settlement's part in the call of another.
#[track_caller]
fn assert_is_of_sender(seen: &Seen, sender: u64, id: &str) {
    let Seen { span, .. } = seen;
    let sender = format!("{sender:016x}");
    assert_eq!(hex(&span.trace_id), TRACE, "{seen:?}");
    assert_eq!(seen.text("messaging.system").as_deref(), Some("ackwell"), "{seen:?}");
    assert_eq!(seen.text("messaging.destination.name").as_deref(), Some("shop/orders"), "{seen:?}");
    assert_eq!(seen.text("messaging.message.id").as_deref(), Some(id), "{seen:?}");
    let kind = span.name.split(' ').next().expect("a split has a first part");
    let kind = if kind == "ack" { "settle" } else { kind };
    assert_eq!(seen.text("messaging.operation.type").as_deref(), Some(kind), "{seen:?}");
    assert!(
        span.links.iter().any(|link| hex(&link.span_id) == sender && hex(&link.trace_id) == TRACE),
        "{seen:?}"
    );
    assert!(
        span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano,
        "{seen:?}"
    );
}

/// Promise: with nothing but the context in a message's header, its whole life is one trace: below the sender's span, what sidecar
/// and broker did with it, and how long it was processed.
#[tokio::test]
async fn life_of_a_message_is_one_trace() {
    let world = World::start(&[]).await;
    let caller = world.sidecar.caller().await;
    let id = caller.send_one(traced("x", &context(TRACE, 7, true))).await;
    let delivery = caller.receive_one().await;
    caller.settle_one(ack(&delivery)).await.unwrap();
    let spans = world.collector.wait_for(LIFE.len()).await;
    assert_eq!(names(&spans), LIFE);
    spans.iter().for_each(|seen| assert_is_of_sender(seen, 7, &id));
    // The sidecar's calls of the broker are parts of its own; the rest is the sender's.
    let sender = Span {
        trace_id: spans[0].span.trace_id.clone(),
        span_id: 7_u64.to_be_bytes().to_vec(),
        ..Span::default()
    };
    for name in ["send shop/orders", "receive shop/orders", "process shop/orders", "ack shop/orders"] {
        assert!(find(&spans, "ackwell-sidecar", name).is_child_of(&sender), "{name}");
    }
    for name in ["send shop/orders", "ack shop/orders"] {
        let call = &find(&spans, "ackwell-sidecar", name).span;
        assert!(find(&spans, "ackwell-broker", name).is_child_of(call), "{name}");
    }
    let processed = find(&spans, "ackwell-sidecar", "process shop/orders");
    assert_eq!(processed.span.kind, i32::from(SpanKind::Consumer));
    assert_eq!(processed.text("ackwell.outcome").as_deref(), Some("ack"));
    let settled = find(&spans, "ackwell-sidecar", "ack shop/orders");
    assert!(processed.span.end_time_unix_nano <= settled.span.end_time_unix_nano);
    assert_eq!(settled.span.kind, i32::from(SpanKind::Server));
    assert_eq!(settled.text("rpc.method").as_deref(), Some("Settle"));
}

/// Promise: the same over streams, whose frames have spans as calls do.
#[tokio::test]
async fn frames_of_streams_have_spans() {
    let world = World::start(&[]).await;
    let caller = world.sidecar.caller().await;
    produce(&caller, vec![traced("x", &context(TRACE, 9, true))]).await;
    let delivery = consume_and_ack(&caller).await;
    let id = delivery.message.unwrap().id;
    let spans = world.collector.wait_for(LIFE.len()).await;
    assert_eq!(names(&spans), LIFE);
    for seen in &spans {
        // A sidecar does not hear the ids of what its producers do not ask about.
        if seen.span.name.starts_with("send") && seen.service == "ackwell-sidecar" {
            assert_eq!(hex(&seen.span.trace_id), TRACE);
        } else {
            assert_is_of_sender(seen, 9, &id);
        }
    }
}

async fn produce(caller: &Caller, messages: Vec<Message>) {
    let (say, said) = mpsc::channel(4);
    let open = ProduceOpen { queue: QUEUE.to_owned(), ..ProduceOpen::default() };
    let batch = ProduceBatch { seq: 1, messages };
    for frame in [Produced::Open(open), Produced::Batch(batch)] {
        say.send(ProduceRequest { frame: Some(frame) }).await.unwrap();
    }
    let mut told = caller.queues.clone().produce(ReceiverStream::new(said)).await.unwrap().into_inner();
    loop {
        let frame = told.message().await.unwrap().expect("the stream goes on").frame;
        if matches!(frame, Some(Confirmed::Confirm(_))) {
            return;
        }
    }
}

async fn consume_and_ack(caller: &Caller) -> Delivery {
    let (say, said) = mpsc::channel(4);
    let open = Open { queue: QUEUE.to_owned(), ..Open::default() };
    say.send(ConsumeRequest { frame: Some(Asked::Open(open)) }).await.unwrap();
    let mut told = caller.queues.clone().consume(ReceiverStream::new(said)).await.unwrap().into_inner();
    let mut delivered = None;
    loop {
        match told.message().await.unwrap().expect("the stream goes on").frame {
            Some(Told::Deliveries(mut deliveries)) => {
                let delivery = deliveries.deliveries.pop().expect("a frame has deliveries");
                let settle = SettleFrame { seq: 1, settlements: vec![ack(&delivery)] };
                say.send(ConsumeRequest { frame: Some(Asked::Settle(settle)) }).await.unwrap();
                delivered = Some(delivery);
            }
            Some(Told::Settled(_)) => return delivered.expect("it was settled"),
            _ => {}
        }
    }
}

/// Promise: processing that takes too long is seen as such: it ends when the message is given to others.
#[tokio::test]
async fn processing_that_is_not_settled_is_lost() {
    let settings = QueueSettings { ack_timeout_seconds: 1, max_processing_seconds: 1, ..settings() };
    let world = World::of(settings, Collector::start(Manner::Takes).await, AT_ONCE, &[]);
    let caller = world.sidecar.caller().await;
    caller.send_one(traced("x", &context(TRACE, 8, true))).await;
    let (say, said) = mpsc::channel(4);
    let open = Open { queue: QUEUE.to_owned(), ..Open::default() };
    say.send(ConsumeRequest { frame: Some(Asked::Open(open)) }).await.unwrap();
    let mut told = caller.queues.clone().consume(ReceiverStream::new(said)).await.unwrap().into_inner();
    while !matches!(told.message().await.unwrap().expect("the stream goes on").frame, Some(Told::Revoked(_)))
    {
    }
    wait::until_async("the span", SOON, async || {
        let spans = world.collector.spans();
        let processed = spans.iter().find(|seen| seen.span.name == "process shop/orders");
        let outcome = processed.and_then(|seen| seen.text("ackwell.outcome"));
        ensure!(outcome.as_deref() == Some("lost"), "{outcome:?} in {:?}", names(&spans));
        Ok(())
    })
    .await;
}

/// Promise: a call joins the trace that its metadata names, on the sidecar and from there on the broker.
#[tokio::test]
async fn call_joins_the_trace_of_its_caller() {
    let world = World::start(&[]).await;
    let caller = world.sidecar.caller().await;
    let mut request = Request::new(SendRequest {
        queue: QUEUE.to_owned(),
        messages: vec![message("x"), message("y")],
        ..SendRequest::default()
    });
    request.metadata_mut().insert(TRACEPARENT, context(TRACE, 5, true).parse().unwrap());
    caller.queues.clone().send(request).await.unwrap();
    let spans = world.collector.wait_for(2).await;
    let (sidecar, broker) = (
        find(&spans, "ackwell-sidecar", "send shop/orders"),
        find(&spans, "ackwell-broker", "send shop/orders"),
    );
    assert_eq!(
        (hex(&sidecar.span.trace_id), hex(&sidecar.span.parent_span_id)),
        (TRACE.to_owned(), format!("{:016x}", 5))
    );
    assert!(broker.is_child_of(&sidecar.span));
    assert_eq!(
        (broker.number("messaging.batch.message_count"), broker.text("messaging.message.id")),
        (Some(2), None)
    );
}

/// Promise: a batch of many senders is one span that points to each sender that records; a failure is told as one.
#[tokio::test]
async fn batch_points_to_its_senders() {
    let world = World::start(&[]).await;
    let caller = world.sidecar.caller().await;
    let traces = ["a".repeat(32), "b".repeat(32), "c".repeat(32)];
    for (trace, is_sampled) in traces.iter().zip([true, true, false]) {
        caller.send_one(traced("x", &context(trace, 1, is_sampled))).await;
    }
    let mut deliveries = Vec::new();
    while deliveries.len() < 3 {
        deliveries.extend(caller.receive(3 - u32::try_from(deliveries.len()).unwrap(), SOON).await.unwrap());
    }
    caller.settle(deliveries.iter().map(|delivery| nack(delivery, None)).collect()).await.unwrap();
    // Two sends on either side, one span of the poll and of the settlement on either, two of processing.
    let spans = world.collector.wait_for(10).await;
    let settled = find(&spans, "ackwell-sidecar", "nack shop/orders");
    let mut links: Vec<_> = settled.span.links.iter().map(|link| hex(&link.trace_id)).collect();
    links.sort();
    assert_eq!((links, settled.number("messaging.batch.message_count")), (traces[..2].to_vec(), Some(3)));
    assert!(settled.span.parent_span_id.is_empty() && !traces.contains(&hex(&settled.span.trace_id)));
    let processed: Vec<_> = spans.iter().filter(|seen| seen.span.name == "process shop/orders").collect();
    assert_eq!(processed.len(), 2);
    for seen in processed {
        assert_eq!(seen.text("error.type").as_deref(), Some("nack"));
        assert_eq!(seen.span.status.as_ref().map(|status| status.code), Some(2));
    }
    assert!(spans.iter().all(|seen| hex(&seen.span.trace_id) != traces[2]), "nobody records the third");
}

/// Promise: what its sender does not record, and what nobody has decided about while the sampler says no, leaves no span.
#[tokio::test]
async fn unsampled_parents_give_no_spans() {
    let world = World::start(&[]).await;
    let caller = world.sidecar.caller().await;
    let silent = context(TRACE, 3, false);
    caller.send_one(traced("x", &silent)).await;
    let delivery = caller.receive_one().await;
    caller.settle_one(ack(&delivery)).await.unwrap();
    produce(&caller, vec![traced("x", &silent)]).await;
    consume_and_ack(&caller).await;
    assert!(caller.is_empty().await, "and a poll that finds nothing");
    // The next one is recorded, so all of them would have been by now.
    caller.send_one(traced("y", &context(&"d".repeat(32), 4, true))).await;
    let spans = world.collector.wait_for(2).await;
    assert_eq!(names(&spans), ["ackwell-broker: send shop/orders", "ackwell-sidecar: send shop/orders"]);
}

/// Promise: no body, header, key or reason gets into a span, and the collector's own key into no log.
#[tokio::test]
async fn spans_have_nothing_of_what_is_in_messages() {
    let world = World::start(&["--otel-exporter-otlp-headers", "api-key=k3y-of-collector"]).await;
    let caller = world.sidecar.caller().await;
    let mut secret = traced("s3cret-body", &context(TRACE, 2, true));
    secret.headers.insert("s3cret-header".to_owned(), "s3cret-value".to_owned());
    (secret.ordering_key, secret.dedup_id) = ("s3cret-key".to_owned(), "s3cret-dedup".to_owned());
    caller.send_one(secret).await;
    let delivery = caller.receive_one().await;
    let mut settlement = nack(&delivery, None);
    if let Some(ackwell_proto::v1::settlement::Outcome::Nack(nack)) = &mut settlement.outcome {
        nack.reason = "s3cret-reason".to_owned();
    }
    caller.settle_one(settlement).await.unwrap();
    world.collector.wait_for(LIFE.len()).await;
    let raw = String::from_utf8_lossy(&world.collector.raw()).into_owned();
    assert!(
        raw.contains("shop/orders") && raw.contains("k3y-of-collector") && !raw.contains("s3cret"),
        "{raw}"
    );
    assert!(!(world.broker.log() + &world.sidecar.log()).contains("k3y-of-collector"));
}

/// A count among the metrics.
fn count(metrics: &str, series: &str) -> anyhow::Result<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    let value = line.ok_or_else(|| anyhow::anyhow!("no {series} in {metrics}"))?;
    Ok(value.trim().parse()?)
}

/// Promise: a collector that hangs, refuses or is not there changes no answer and no end of a process; what it does not take is
/// counted.
#[tokio::test(flavor = "multi_thread")]
async fn dead_collector_is_no_ones_trouble() {
    let nobody = ports::free();
    for manner in [Some(Manner::Hangs), Some(Manner::Refuses), None] {
        let collector = Collector::start(manner.unwrap_or(Manner::Takes)).await;
        let endpoint = format!("http://{nobody}");
        let mut more = vec!["--otel-bsp-max-queue-size", "8", "--otel-bsp-max-export-batch-size", "4"];
        if manner.is_none() {
            more.extend(["--otel-exporter-otlp-traces-endpoint", &endpoint]);
        }
        let World { collector, mut broker, sidecar } = World::with(collector, AT_ONCE, &more);
        let caller = sidecar.caller().await;
        for number in 0..100_u32 {
            caller.send_one(traced(&number.to_string(), &context(TRACE, 1, true))).await;
        }
        let reason = if manner == Some(Manner::Refuses) { "export_failed" } else { "queue_full" };
        let series = format!("ackwell_sidecar_spans_dropped_total{{reason=\"{reason}\"}}");
        wait::until("dropped spans", SOON, || {
            let dropped = count(&sidecar.metrics(), &series)?;
            ensure!(dropped > 0, "{manner:?}: none of {reason}");
            Ok(())
        });
        assert_eq!(count(&sidecar.metrics(), "ackwell_sidecar_spans_exported_total").unwrap(), 0);
        assert_eq!(collector.asked() == 0, manner.is_none());
        assert_eq!(caller.stats().await.ready, 100);
        let (broker, sidecar) = (broker.take(), sidecar.into_process());
        let began = wait::now();
        [&broker, &sidecar].iter().for_each(|process| process.terminate());
        assert!(sidecar.wait().success() && broker.wait().success(), "{manner:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{manner:?}: {:?}", began.elapsed());
    }
}

/// Promise: with https the collector has to prove who it is, by the authorities that are named.
#[tokio::test]
async fn collector_behind_tls_proves_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("of collectors"), Authority::new("of others"));
    let shown = Shown::in_folder(folder.path());
    authority.issue("127.0.0.1", Duration::from_hours(1), &shown);
    let collector = Collector::start(Manner::Takes).await;
    let endpoint = format!("https://{}", collector.behind_tls(&shown).await);
    for (name, authority) in [("stranger", stranger), ("own", authority)] {
        let bundle = folder.path().join(name);
        replace(&bundle, authority.pem());
        let trust = [
            "--otel-exporter-otlp-traces-endpoint",
            &endpoint,
            "--otel-exporter-otlp-certificate",
            text(&bundle),
        ];
        let arguments = collector.arguments(AT_ONCE);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(trust).collect();
        let mut broker = Broker::prepare(settings()).with(&arguments);
        broker.restart();
        broker.caller().await.send_one(traced("x", &context(TRACE, 1, true))).await;
        if name == "own" {
            collector.wait_for(1).await;
        } else {
            wait::until_async("the failure", SOON, async || {
                ensure!(broker.log().contains("the collector does not take traces"), "{}", broker.log());
                Ok(())
            })
            .await;
            assert_eq!(collector.asked(), 0);
        }
    }
}

/// Promise: a process that is told to stop still says what it did last.
#[tokio::test(flavor = "multi_thread")]
async fn last_spans_are_flushed() {
    let world = World::with(Collector::start(Manner::Takes).await, Duration::from_mins(1), &[]);
    let caller = world.sidecar.caller().await;
    caller.send_one(traced("x", &context(TRACE, 1, true))).await;
    assert_eq!(world.collector.spans().len(), 0);
    drop(caller);
    let sidecar = world.sidecar.into_process();
    sidecar.terminate();
    assert!(sidecar.wait().success());
    assert_eq!(names(&world.collector.wait_for(1).await), ["ackwell-sidecar: send shop/orders"]);
}

/// What the collector cannot be told is told once, and messages go on.
#[tokio::test]
async fn wrong_settings_keep_nobody_from_serving() {
    let mut broker = Broker::prepare(settings()).with(&["--otel-exporter-otlp-endpoint", "collector"]);
    broker.restart();
    broker.caller().await.send_body("x").await;
    assert!(broker.log().contains("http://collector:4317"), "{}", broker.log());
}

/// Promise: a line about an act of a person says of which queue, shard and trace it is.
#[tokio::test]
async fn log_names_queue_and_trace() {
    let mut broker = Broker::prepare(settings()).with(&["--ordinal", "0"]);
    broker.restart();
    let caller = broker.caller().await;
    let mut request = Request::new(PurgeRequest { queue: QUEUE.to_owned(), ..PurgeRequest::default() });
    request.metadata_mut().insert(TRACEPARENT, context(TRACE, 5, false).parse().unwrap());
    caller.admin.clone().purge(request).await.unwrap();
    let log = broker.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["queue"] == "shop/orders" && line["shard"] == 0), "{log}");
    let audit = lines.iter().find(|line| line["act"] == "purge").expect("a purge is audited");
    assert_eq!((&audit["trace_id"], &audit["span_id"]), (&TRACE.into(), &format!("{:016x}", 5).into()));
    assert!(
        lines.iter().filter(|line| line["act"] != "purge").all(|line| line.get("trace_id").is_none()),
        "{log}"
    );
}
