//! Traces: what happens to messages, as spans for an OpenTelemetry collector. `docs/reference/traces.md` lists them.
//!
//! Off until an endpoint is named, and then one branch for each call and frame. No span has anything of a message in it but
//! its id and its size. [ADR 14](../../../docs/adr/0014-spans-of-our-own.md) says why this is not the SDK.
//!
//! - [`variables`], [`settings`]: the standard environment variables. [`sampler`], [`context`]: what is recorded, and as part of what.
//! - [`call`]: the call that is being answered. The functions here tell it, and frames of streams, what they are about.
//! - [`held`]: from the receipt of a settlement to the trace of its message.
//! - [`export`], [`otlp`]: to the collector.

mod call;
mod context;
mod export;
mod held;
mod messages;
mod otlp;
mod sampler;
mod settings;
mod span;
mod variables;

use std::sync::OnceLock;

use ackwell_proto::v1::settlement::Outcome;
use ackwell_proto::v1::{CommitRequest, Delivery, ItemError, Message, SendResult, SettleResult, Settlement};
use bytes::Bytes;
use tracing::{info, warn};

pub use export::Exporter;
pub use variables::Variables;

pub(crate) use call::{begin, carried};
pub(crate) use context::TRACEPARENT;
pub(crate) use export::{dropped, exported};
pub(crate) use span::Open;

use crate::clock;
use call::{Call, Decision, current};
use context::Context;
use export::Exports;
use held::{Delivered, Held};
use messages::{Batch, context_of};
use sampler::Sampler;
use span::Operation;

/// How the processing of a message ends that nobody settles.
const LOST: &str = "lost";

/// Of the process, which is one broker or one sidecar.
static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Who records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorder {
    /// One of the shards, if there are several.
    Broker(Option<u32>),
    /// It is nearest to the application, so it tells how long a message was processed.
    Sidecar,
}

impl Recorder {
    fn service(self) -> &'static str {
        match self {
            Self::Broker(_) => "ackwell-broker",
            Self::Sidecar => "ackwell-sidecar",
        }
    }
}

#[derive(Debug)]
struct Tracer {
    sampler: Sampler,
    shard: Option<u32>,
    /// Whether it records how long messages are processed.
    sees_applications: bool,
    held: Held,
    exports: Exports,
}

/// Begins to record, if there is where to. What is wrong with the variables is told, and keeps nobody from serving messages.
pub fn start(variables: &Variables, recorder: Recorder) -> Option<Exporter> {
    let settings = match variables.parse(recorder.service()) {
        Ok(settings) => settings?,
        Err(error) => {
            warn!(%error, "no traces");
            return None;
        }
    };
    let endpoint = settings.endpoint.address.clone();
    let (shard, sees_applications) = match recorder {
        Recorder::Broker(shard) => (shard, false),
        Recorder::Sidecar => (None, true),
    };
    let sampler = settings.sampler;
    let (exports, exporter) =
        export::start(settings).inspect_err(|error| warn!(error = format!("{error:#}"), "no traces")).ok()?;
    let tracer = Tracer { sampler, shard, sees_applications, held: Held::default(), exports };
    TRACER.set(tracer).ok()?;
    info!(endpoint, "traces go to a collector");
    Some(exporter)
}

fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// The trace and span of the call that is being answered, for the log.
pub(crate) fn ids() -> Option<(String, String)> {
    let Context { trace, span, .. } = current()?.context()?;
    Some((format!("{:032x}", u128::from_be_bytes(trace)), format!("{:016x}", u64::from_be_bytes(span))))
}

/// What is said to those who are called for the call that is being answered.
pub(crate) fn told_on() -> Option<String> {
    tracer()?;
    current()?.told_on().map(|context| context.to_string())
}

/// For a task that goes on with the call.
pub(crate) fn this_call() -> Option<std::sync::Arc<Call>> {
    tracer().and_then(|_| current())
}

/// The call stores these.
pub(crate) fn sends(queue: impl FnOnce() -> String, messages: &[Message]) {
    if let Some(call) = this_call() {
        call.about(Operation::SEND, &queue(), &Batch::of(messages.iter()));
    }
}

/// What came of it.
pub(crate) fn sent(results: &[SendResult]) {
    if let Some(call) = this_call() {
        call.with(|open| note_sent(open, results));
    }
}

/// The call hands these out.
pub(crate) fn receives(queue: impl FnOnce() -> String, deliveries: &[Delivery]) {
    let Some((tracer, call)) = tracer().zip(this_call()) else { return };
    call.about(Operation::RECEIVE, &queue(), &batch_of(deliveries));
    tracer.hold(call.recorded(), deliveries);
}

/// The call settles these.
pub(crate) fn settles(queue: impl FnOnce() -> String, settlements: &[Settlement]) {
    let Some((tracer, call)) = tracer().zip(this_call()) else { return };
    let queue = queue();
    let batch = tracer.settled(&queue, settlements.iter());
    call.about(Operation::settle(outcome_of(settlements)), &queue, &batch);
}

/// What came of it.
pub(crate) fn settled(results: &[SettleResult]) {
    if let Some(call) = this_call() {
        call.with(|open| {
            _ = open.refused(results.len(), reasons(results.iter().map(|result| &result.error)));
        });
    }
}

/// An application of a stream no longer has these, and has not settled them.
pub(crate) fn lost(queue: impl FnOnce() -> String, receipts: &[Bytes]) {
    let Some(tracer) = tracer().filter(|tracer| tracer.sees_applications) else { return };
    let taken = tracer.held.take(receipts.iter());
    if taken.iter().any(Option::is_some) {
        let queue = queue();
        taken.iter().flatten().for_each(|delivered| tracer.processed(&queue, delivered, LOST));
    }
}

/// The call settles and stores, in one step.
pub(crate) fn commits(name: impl FnOnce(&str) -> Option<String>, request: &CommitRequest) {
    let Some((tracer, call)) = tracer().zip(this_call()) else { return };
    let queues = request.settle.iter().map(|part| &part.queue);
    let first = queues.chain(request.send.iter().map(|part| &part.queue)).next();
    let Some(queue) = first.and_then(|queue| name(queue)) else { return };
    let queue = queue.as_str();
    let settled: Vec<_> = request.settle.iter().flat_map(|part| &part.settlements).collect();
    let mut batch = tracer.settled(queue, settled.into_iter());
    let messages: Vec<_> = request.send.iter().flat_map(|part| &part.messages).collect();
    let sent = Batch::of(messages.into_iter());
    batch.join(sent);
    call.about(Operation::COMMIT, queue, &batch);
}

/// A frame with messages to store; the span is to be ended by [`stored`].
pub(crate) fn send_frame(queue: impl FnOnce() -> String, messages: &[Message]) -> Option<Open> {
    tracer()?.frame(Operation::SEND, &queue(), &Batch::of(messages.iter()))
}

/// A frame that hands these out.
pub(crate) fn receive_frame(queue: impl FnOnce() -> String, deliveries: &[Delivery]) {
    let Some(tracer) = tracer() else { return };
    let open = tracer.frame(Operation::RECEIVE, &queue(), &batch_of(deliveries));
    tracer.hold(open.as_ref().map(|open| open.context), deliveries);
    open.into_iter().for_each(|open| open.end(None));
}

/// A frame that settles these; the span is to be ended by [`answered`].
pub(crate) fn settle_frame(queue: impl FnOnce() -> String, settlements: &[Settlement]) -> Option<Open> {
    let (tracer, queue) = (tracer()?, queue());
    let batch = tracer.settled(&queue, settlements.iter());
    tracer.frame(Operation::settle(outcome_of(settlements)), &queue, &batch)
}

/// The frame's messages are stored, the only one by this id, but for those refused.
pub(crate) fn stored<'a>(
    open: Option<Open>,
    messages: usize,
    id: impl FnOnce() -> Option<String>,
    refused: impl Iterator<Item = &'a str>,
) {
    let Some(mut open) = open else { return };
    if let (1, Some(id)) = (messages, id()) {
        open.stored(&id);
    }
    let error = open.refused(messages, refused);
    open.end(error.as_deref());
}

/// The frame's settlements are answered.
pub(crate) fn answered(open: Option<Open>, results: &[SettleResult]) {
    let Some(mut open) = open else { return };
    let error = open.refused(results.len(), reasons(results.iter().map(|result| &result.error)));
    open.end(error.as_deref());
}

fn note_sent(open: &mut Open, results: &[SendResult]) {
    if let [SendResult { id, error: None, .. }] = results {
        open.stored(id);
    }
}

fn batch_of(deliveries: &[Delivery]) -> Batch {
    let messages: Vec<_> = deliveries.iter().filter_map(|delivery| delivery.message.as_ref()).collect();
    Batch::of(messages.into_iter())
}

fn reasons<'a>(errors: impl Iterator<Item = &'a Option<ItemError>>) -> impl Iterator<Item = &'a str> {
    errors.flatten().map(|error| error.reason.as_str())
}

fn outcome_of(settlements: &[Settlement]) -> Option<&'static str> {
    let (first, others) = settlements.split_first()?;
    let outcome = outcome(first)?;
    others.iter().all(|other| self::outcome(other) == Some(outcome)).then_some(outcome)
}

fn outcome(settlement: &Settlement) -> Option<&'static str> {
    settlement.outcome.as_ref().map(|outcome| match outcome {
        Outcome::Ack(_) => "ack",
        Outcome::Nack(_) => "nack",
        Outcome::Release(_) => "release",
        Outcome::Reject(_) => "reject",
        Outcome::Lost(_) => LOST,
    })
}

impl Tracer {
    fn frame(&'static self, operation: Operation, queue: &str, batch: &Batch) -> Option<Open> {
        let Decision::Recorded(context, parent) = self.decide(operation, None, batch) else { return None };
        let mut open = Open::new(self, context, parent, clock::nanos());
        open.of_messages(operation, queue, batch);
        Some(open)
    }

    /// Remembers deliveries of recorded messages; those whose senders said nothing follow the span that handed them out.
    fn hold(&self, handed_by: Option<Context>, deliveries: &[Delivery]) {
        let since = clock::nanos();
        let held = deliveries.iter().filter_map(|delivery| {
            let message = delivery.message.as_ref()?;
            let context = context_of(message).or(handed_by).filter(|context| context.is_sampled)?;
            Some((delivery.receipt.clone(), Delivered { context, id: message.id.clone(), since }))
        });
        let held: Vec<_> = held.collect();
        if !held.is_empty() {
            self.held.add(held.into_iter());
        }
    }

    /// Those of the settlements whose messages are recorded, by their traces.
    fn settled<'a>(
        &'static self,
        queue: &str,
        settlements: impl ExactSizeIterator<Item = &'a Settlement> + Clone,
    ) -> Batch {
        let count = settlements.len();
        let receipts = settlements.clone().map(|settlement: &Settlement| &settlement.receipt);
        let taken = self.held.take(receipts);
        let known =
            taken.into_iter().zip(settlements).filter_map(|(taken, settlement)| Some((taken?, settlement)));
        let contexts = known.map(|(delivered, settlement)| {
            if self.sees_applications {
                self.processed(queue, &delivered, outcome(settlement).unwrap_or("settle"));
            }
            (delivered.context, delivered.id)
        });
        Batch::of_contexts(count, &contexts.collect::<Vec<_>>())
    }

    /// An application had it from its delivery until now.
    fn processed(&'static self, queue: &str, delivered: &Delivered, outcome: &'static str) {
        let Delivered { context, id, since } = delivered;
        let mut open = Open::new(self, context.child(), Some(*context), *since);
        let batch = Batch::of_contexts(1, &[(*context, id.clone())]);
        open.of_messages(Operation::PROCESS, queue, &batch);
        open.is_of_consumer();
        open.add("ackwell.outcome", outcome);
        open.end(matches!(outcome, "nack" | "reject" | LOST).then_some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that samples so and exports nowhere.
    pub(super) fn tracer(sampler: &str) -> Tracer {
        let sampler = Sampler::parse(sampler, "").unwrap();
        Tracer {
            sampler,
            shard: None,
            sees_applications: true,
            held: Held::default(),
            exports: Exports::nowhere(),
        }
    }
}
