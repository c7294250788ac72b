//! The call that is being answered, and the span of it.
//!
//! Whose child a span is can be known late: callers that say nothing themselves have messages that do, and those of a
//! Receive come with its answer. So a call begins with what its headers say, and becomes a span when that is decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::codegen::http::HeaderMap;

use super::context::{Context, TRACEPARENT};
use super::messages::Batch;
use super::span::{Open, Operation};
use super::{Tracer, tracer};
use crate::clock;

/// Their streams last; each of their frames has a span.
const STREAMS: [&str; 3] = ["Queues/Produce", "Queues/Consume", "QueueAdmin/WatchStats"];
/// What began it is gone before it was answered.
const CANCELLED: &str = "CANCELLED";

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// A call that is being answered.
#[derive(Debug)]
pub(crate) struct Call {
    tracer: Option<&'static Tracer>,
    method: &'static str,
    /// What its headers say.
    parent: Option<Context>,
    since: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Undecided,
    Recorded(Box<Open>),
    /// Not recorded, or not any more; the context is for those who are called meanwhile.
    Silent(Option<Context>),
}

/// The call of `method`, where there is something to know about it. Those of applications cost nothing while traces are off.
pub(crate) fn begin(method: &'static str, headers: &HeaderMap) -> Option<Arc<Call>> {
    let tracer = tracer();
    if (tracer.is_none() && is_hot(method)) || STREAMS.contains(&method) || is_ours(method) {
        return None;
    }
    let parent = headers.get(TRACEPARENT).and_then(|text| Context::parse(text.to_str().ok()?));
    let (since, state) = (clock::nanos(), Mutex::new(State::Undecided));
    let is_known = parent.is_some() || (tracer.is_some() && is_hot(method));
    is_known.then(|| Arc::new(Call { tracer, method, parent, since, state }))
}

/// Whether applications make it for every message.
fn is_hot(method: &str) -> bool {
    method.starts_with("Queues/") || method == "http"
}

/// What sidecars, operators and probes ask for on their own account.
fn is_ours(method: &str) -> bool {
    method.starts_with("Shard/") || method == "other"
}

/// The call whose answer is being made.
pub(super) fn current() -> Option<Arc<Call>> {
    CALL.try_with(Arc::clone).ok()
}

/// Goes on in a task of its own, as part of the call.
pub(crate) async fn carried<F: Future>(call: Option<Arc<Call>>, future: F) -> F::Output {
    match call {
        None => future.await,
        Some(call) => CALL.scope(call, future).await,
    }
}

impl Call {
    /// What is done with which messages.
    pub(super) fn about(&self, operation: Operation, queue: &str, batch: &Batch) {
        let mut state = self.lock();
        if matches!(*state, State::Undecided) {
            *state = self.decide(operation, batch);
        }
        if let State::Recorded(open) = &mut *state {
            open.of_messages(operation, queue, batch);
        }
    }

    /// Adds to its span, if it has one.
    pub(super) fn with(&self, change: impl FnOnce(&mut Open)) {
        if let State::Recorded(open) = &mut *self.lock() {
            change(open);
        }
    }

    /// Of its span, where it is recorded.
    pub(super) fn recorded(&self) -> Option<Context> {
        match &*self.lock() {
            State::Recorded(open) => Some(open.context),
            _ => None,
        }
    }

    /// What those are told who are called for it.
    pub(super) fn told_on(&self) -> Option<Context> {
        let mut state = self.lock();
        if matches!(*state, State::Undecided) && self.parent.is_some() {
            *state = self.decide(Operation::RECEIVE, &Batch::default());
        }
        match &*state {
            State::Recorded(open) => Some(open.context),
            State::Silent(context) => *context,
            State::Undecided => None,
        }
    }

    /// The trace that it belongs to.
    pub(super) fn context(&self) -> Option<Context> {
        self.recorded().or(self.parent)
    }

    fn decide(&self, operation: Operation, batch: &Batch) -> State {
        let Some(tracer) = self.tracer else { return State::Silent(self.parent) };
        match tracer.decide(operation, self.parent, batch) {
            Decision::Recorded(context, parent) => {
                State::Recorded(Box::new(Open::new(tracer, context, parent, self.since)))
            }
            Decision::Silent(context) => State::Silent(context),
        }
    }

    /// It was answered: `OK`, or why not.
    pub(crate) fn end(&self, result: &str) {
        let mut state = self.lock();
        if matches!(*state, State::Undecided) && self.parent.is_some() {
            *state = self.decide(Operation::SEND, &Batch::default());
        }
        if let State::Recorded(mut open) = std::mem::replace(&mut *state, State::Silent(None)) {
            open.of_method(self.method);
            open.end(Some(result).filter(|result| *result != "OK"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
}

/// What becomes of a span.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Its own context, and its parent.
    Recorded(Context, Option<Context>),
    /// What is told on instead.
    Silent(Option<Context>),
}

impl Tracer {
    /// A caller decides for its call. Where it does not, the messages do: they are the parent if they share one; if not, the
    /// span begins a trace and points to them. Where they do not either, the sampler does for what sends or hands out
    /// messages, and nothing else is recorded.
    pub(super) fn decide(&self, operation: Operation, parent: Option<Context>, batch: &Batch) -> Decision {
        let parent = parent.or(batch.common);
        let decided = parent.map(|parent| parent.is_sampled).or(batch.decided);
        let begins = batch.count > 0 && operation.kind != "settle";
        if decided.is_none() && !begins {
            return Decision::Silent(None);
        }
        let context = parent.map_or_else(Context::root, Context::child);
        let is_sampled = self.sampler.samples(decided, &context.trace);
        let context = Context { is_sampled, ..context };
        if is_sampled { Decision::Recorded(context, parent) } else { Decision::Silent(Some(context)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::tests::tracer;

    const SEND: Operation = Operation::SEND;

    fn context(is_sampled: bool) -> Context {
        Context { is_sampled, ..Context::root() }
    }

    fn batch(count: usize, contexts: &[Context]) -> Batch {
        Batch::of_contexts(
            count,
            &contexts.iter().map(|context| (*context, String::new())).collect::<Vec<_>>(),
        )
    }

    fn parent(decision: &Decision) -> Option<Context> {
        match decision {
            Decision::Recorded(_, parent) => *parent,
            Decision::Silent(_) => panic!("it is not recorded"),
        }
    }

    /// Promise: who is called as part of a trace records into it, whatever the messages say.
    #[test]
    fn caller_comes_before_messages() {
        let (tracer, caller, sender) = (tracer("parentbased_always_off"), context(true), context(true));
        let decision = tracer.decide(SEND, Some(caller), &batch(1, &[sender]));
        assert_eq!(parent(&decision), Some(caller));
        assert_eq!(parent(&tracer.decide(SEND, None, &batch(1, &[sender]))), Some(sender));
    }

    /// Promise: what nobody before us records, we do not; not even when we would.
    #[test]
    fn unsampled_parents_give_no_spans() {
        let tracer = tracer("parentbased_always_on");
        let told = context(false);
        for (caller, messages) in [
            (Some(told), batch(1, &[])),
            (None, batch(1, &[told])),
            (None, batch(2, &[told, context(false)])),
        ] {
            let Decision::Silent(Some(on)) = tracer.decide(SEND, caller, &messages) else {
                panic!("{messages:?}")
            };
            assert!(!on.is_sampled, "those we call would record");
        }
        let mixed = tracer.decide(SEND, None, &batch(2, &[told, context(true)]));
        assert_eq!(parent(&mixed), None);
    }

    /// Polls that find nothing, settlements of what nobody records, and acts of people fill no collector on their own.
    #[test]
    fn sampler_decides_only_for_messages_that_nobody_decided_about() {
        let tracer = tracer("parentbased_always_on");
        assert_eq!(parent(&tracer.decide(SEND, None, &batch(3, &[]))), None);
        assert_eq!(tracer.decide(Operation::RECEIVE, None, &batch(0, &[])), Decision::Silent(None));
        assert_eq!(tracer.decide(Operation::settle(None), None, &batch(1, &[])), Decision::Silent(None));
    }
}
