//! Trace context (W3C): out with every message that is sent, in around every handler.
//!
//! Tied to no tracing library: [`with`] makes a context current for a future, [`current`] tells which one is. What bridges
//! to OpenTelemetry is the application's: three lines on either side.

use ackwell_proto::v1::Message;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The headers of a trace context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-TRACE-SPAN-FLAGS`
    pub traceparent: String,
    /// May be empty.
    pub tracestate: String,
}

tokio::task_local! {
    static CURRENT: Option<TraceContext>;
}

/// The context that a message sent now carries.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// Runs a future with a trace context, or without one.
pub async fn with<F: Future>(context: Option<TraceContext>, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

/// The context that a message carries.
pub fn of_message(message: Option<&Message>) -> Option<TraceContext> {
    let headers = &message?.headers;
    let traceparent = headers.get(TRACEPARENT)?.clone();
    Some(TraceContext { traceparent, tracestate: headers.get(TRACESTATE).cloned().unwrap_or_default() })
}

/// Gives the message the current context, unless it has one of its own.
pub(crate) fn inject(message: &mut Message) {
    let Some(TraceContext { traceparent, tracestate }) = current() else { return };
    if message.headers.contains_key(TRACEPARENT) {
        return;
    }
    message.headers.insert(TRACEPARENT.to_owned(), traceparent);
    if !tracestate.is_empty() {
        message.headers.insert(TRACESTATE.to_owned(), tracestate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(traceparent: &str) -> TraceContext {
        TraceContext { traceparent: traceparent.to_owned(), tracestate: String::new() }
    }

    /// A message goes out with the current context, or with the one that it was given by hand.
    #[tokio::test]
    async fn message_gets_the_current_context_unless_it_has_one() {
        let mut plain = Message::default();
        inject(&mut plain);
        assert_eq!(of_message(Some(&plain)), None);
        let (traced, own) = with(Some(context("a")), async {
            let mut own = Message::default();
            own.headers.insert(TRACEPARENT.to_owned(), "b".to_owned());
            inject(&mut own);
            inject(&mut plain);
            (plain, own)
        })
        .await;
        assert_eq!(of_message(Some(&traced)), Some(context("a")));
        assert_eq!(of_message(Some(&own)), Some(context("b")));
    }
}
