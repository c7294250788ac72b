//! Explain: the engine's reasons in words, and what only the broker knows: who waits for messages.

use ackwell_engine::command::{Blocked, Explanation, MAX_COUNTED};
use ackwell_engine::message::{MessageId, QueueId};
use ackwell_engine::{State, StoreError, Timestamp};
use ackwell_proto::timestamp;
use ackwell_proto::v1::ExplainResponse;
use ackwell_proto::v1::explain_response::Reason;

use crate::broker::convert;
use crate::broker::shard::View;

/// `None`: no such message.
pub(super) fn explain(
    view: &View<'_>,
    queue: QueueId,
    id: MessageId,
) -> Result<Option<ExplainResponse>, StoreError> {
    let explained = view.engine.explain(queue, id)?;
    Ok(explained.map(|explained| in_words(view, queue, explained)))
}

fn in_words(view: &View<'_>, queue: QueueId, Explanation { state, reasons }: Explanation) -> ExplainResponse {
    let waits = matches!(state, State::Ready | State::Delayed);
    let demand = waits.then(|| no_demand(view.consumers(queue), view.has_room(queue))).flatten();
    let reasons = reasons.into_iter().map(reason).chain(demand).collect();
    ExplainResponse { state: convert::state(state).into(), reasons }
}

fn no_demand(consumers: usize, has_room: bool) -> Option<Reason> {
    match (consumers, has_room) {
        (0, _) => Some(plain(
            "NO_CONSUMER",
            "no Consume stream is open and no Receive call waits; start a consumer",
        )),
        (_, false) => {
            let detail = format!(
                "the {consumers} that consume have no room in their windows; settle, or add consumers"
            );
            Some(plain("CONSUMERS_FULL", detail))
        }
        (_, true) => None,
    }
}

fn reason(blocked: Blocked) -> Reason {
    match blocked {
        Blocked::Paused => plain("PAUSED", "the queue is paused; `ackwell resume` lets it go on"),
        Blocked::Moving => {
            plain("MOVING", "it goes to another shard, or waits for what comes from another one")
        }
        Blocked::Deleting => plain("DELETING", "the queue is being deleted"),
        Blocked::Held { consumer, since, until } => {
            let consumer = if consumer.is_empty() { "without a name" } else { &consumer };
            let detail = format!("a consumer {consumer} has held it since {}", shown(since));
            Reason { until: Some(timestamp(until.0)), ..plain("HELD", detail) }
        }
        Blocked::Delayed { until, attempts } => {
            let detail = match attempts {
                0 => "its sender delayed it".to_owned(),
                attempts => format!("it waits after {attempts} failed attempts"),
            };
            Reason { until: Some(timestamp(until.0)), ..plain("DELAYED", detail) }
        }
        Blocked::Dead { reason, until } => {
            let detail = format!("it was given up on ({}); `ackwell redrive` puts it back", reason.as_str());
            let until = (until != Timestamp::NEVER).then(|| timestamp(until.0));
            Reason { until, ..plain("DEAD", detail) }
        }
        Blocked::BehindKey { head, head_state } => {
            let detail = format!("a message of its ordering key comes first, which is {head_state:?}");
            Reason { blocked_by: head.to_string(), ..plain("BEHIND_KEY", detail) }
        }
        Blocked::InFlightLimit { in_flight, max } => {
            let detail = format!(
                "{in_flight} messages are in flight, as many as the queue allows ({max}, limits.maxInFlight)"
            );
            plain("IN_FLIGHT_LIMIT", detail)
        }
        Blocked::InLine { ahead, keys } => plain("IN_LINE", in_line(ahead, keys)),
    }
}

fn in_line(ahead: u64, keys: u64) -> String {
    let at_least = if ahead >= MAX_COUNTED { "at least " } else { "" };
    let turns = if keys > 1 { format!(", and {keys} fairness keys take turns") } else { String::new() };
    format!("{at_least}{ahead} messages come before it{turns}")
}

fn plain(code: &str, detail: impl Into<String>) -> Reason {
    Reason { code: code.to_owned(), detail: detail.into(), ..Reason::default() }
}

fn shown(at: Timestamp) -> String {
    timestamp(at.0).to_string()
}

#[cfg(test)]
mod tests {
    use ackwell_engine::message::DeadReason;

    use super::*;

    /// A message that waits for nobody in particular says so; one that could be taken at once says nothing.
    #[test]
    fn demand_is_missing_full_or_there() {
        assert_eq!(no_demand(0, false).unwrap().code, "NO_CONSUMER");
        assert_eq!(no_demand(3, false).unwrap().code, "CONSUMERS_FULL");
        assert_eq!(no_demand(3, true), None);
    }

    /// Programs wait for `until`: one that never comes is absent, not in the year 292 277 026.
    #[test]
    fn dead_message_kept_for_ever_has_no_end() {
        let dead = |until| reason(Blocked::Dead { reason: DeadReason::Rejected, until });
        assert_eq!(dead(Timestamp::NEVER).until, None);
        assert_eq!(dead(Timestamp(5)).until, Some(timestamp(5)));
        assert!(dead(Timestamp(5)).detail.contains("REJECTED"));
    }

    #[test]
    fn counts_in_line_are_exact_up_to_their_bound() {
        assert_eq!(in_line(3, 1), "3 messages come before it");
        assert_eq!(
            in_line(MAX_COUNTED, 2),
            "at least 10000 messages come before it, and 2 fairness keys take turns"
        );
    }
}
