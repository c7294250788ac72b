//! One span, from its beginning until it waits to be exported.

use super::Tracer;
use super::context::Context;
use super::messages::Batch;
use super::otlp::{self, KeyValue, Kind, StatusCode, Value};
use crate::clock;

const SAMPLED: u32 = 1;

/// What happens to messages: `messaging.operation.type` of OpenTelemetry's conventions, and a name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
}

impl Operation {
    pub(super) const SEND: Self = Self { name: "send", kind: "send" };
    pub(super) const RECEIVE: Self = Self { name: "receive", kind: "receive" };
    pub(super) const PROCESS: Self = Self { name: "process", kind: "process" };
    pub(super) const COMMIT: Self = Self { name: "commit", kind: "settle" };

    /// By how all of the settlements end their deliveries, if they do alike.
    pub(super) const fn settle(outcome: Option<&'static str>) -> Self {
        let name = match outcome {
            Some(outcome) => outcome,
            None => "settle",
        };
        Self { name, kind: "settle" }
    }
}

/// A span that is not over. It is recorded when it ends.
#[derive(Debug)]
pub(crate) struct Open {
    tracer: &'static Tracer,
    pub(super) context: Context,
    span: otlp::Span,
}

impl Open {
    /// `context` is its own.
    pub(super) fn new(
        tracer: &'static Tracer,
        context: Context,
        parent: Option<Context>,
        since: u64,
    ) -> Self {
        let span = otlp::Span {
            trace_id: context.trace.to_vec(),
            span_id: context.span.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.span.to_vec()),
            kind: Kind::Server.into(),
            start_time_unix_nano: since,
            flags: SAMPLED,
            ..otlp::Span::default()
        };
        Self { tracer, context, span }
    }

    /// How it was called. A call that has nothing to do with messages has no other name.
    pub(super) fn of_method(&mut self, method: &'static str) {
        if self.span.name.is_empty() {
            method.clone_into(&mut self.span.name);
        }
        if let Some((service, name)) = method.split_once('/') {
            self.add("rpc.system", "grpc");
            self.add("rpc.service", &*format!("ackwell.v1.{service}"));
            self.add("rpc.method", name);
        }
    }

    /// What it does, and to which messages.
    pub(super) fn of_messages(&mut self, operation: Operation, queue: &str, batch: &Batch) {
        self.span.name = format!("{} {queue}", operation.name);
        self.add("messaging.system", "ackwell");
        self.add("messaging.operation.name", operation.name);
        self.add("messaging.operation.type", operation.kind);
        self.add("messaging.destination.name", queue);
        if let Some(shard) = self.tracer.shard {
            self.add("messaging.destination.partition.id", &*shard.to_string());
        }
        match batch.count {
            1 => batch.id.iter().for_each(|id| self.add("messaging.message.id", id.as_str())),
            count => self.add("messaging.batch.message_count", count),
        }
        if let Some(bytes) = batch.body_bytes {
            self.add("messaging.message.body.size", bytes);
        }
        self.span.links.extend(batch.links.iter().copied().map(link));
        self.span.dropped_links_count += batch.dropped_links;
    }

    /// The only message of the batch, which got its id by being stored.
    pub(super) fn stored(&mut self, id: &str) {
        self.add("messaging.message.id", id);
    }

    pub(super) fn is_of_consumer(&mut self) {
        self.span.kind = Kind::Consumer.into();
    }

    pub(super) fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.span.attributes.push(KeyValue::new(key, value));
    }

    /// Some items were refused. A span whose items all were is one of an error.
    pub(super) fn refused<'a>(
        &mut self,
        items: usize,
        reasons: impl IntoIterator<Item = &'a str>,
    ) -> Option<String> {
        let reasons: Vec<_> = reasons.into_iter().collect();
        if !reasons.is_empty() {
            self.add("ackwell.batch.refused_count", reasons.len());
        }
        (reasons.len() >= items).then(|| reasons.first().map(|&reason| reason.to_owned())).flatten()
    }

    /// It is over, well or by an error.
    pub(super) fn end(mut self, error: Option<&str>) {
        if let Some(error) = error {
            self.add("error.type", error);
            self.span.status = Some(otlp::Status { code: StatusCode::Error.into() });
        }
        self.span.end_time_unix_nano = clock::nanos().max(self.span.start_time_unix_nano);
        self.tracer.exports.put(self.span);
    }
}

fn link(context: Context) -> otlp::Link {
    otlp::Link { trace_id: context.trace.to_vec(), span_id: context.span.to_vec(), flags: SAMPLED }
}
