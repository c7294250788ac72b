//! What the trigger of a `ScaledObject` says.

use std::collections::HashMap;

use ackwell_proto::Failure;

const QUEUE: &str = "queue";
const PER_REPLICA: &str = "messagesPerReplica";
const ACTIVATION: &str = "activationMessages";
/// From one shard to another: its own count, no other shard's.
const OWN_ONLY: &str = "ownShardOnly";
const DEFAULT_PER_REPLICA: f64 = 10.0;
/// More messages than any queue has.
const MAX_MESSAGES: f64 = 1e12;

/// What KEDA scales by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trigger {
    pub(super) queue: String,
    /// Messages that one replica is meant for.
    pub(super) per_replica: f64,
    /// With more, there should be one replica at least.
    pub(super) activation: f64,
    pub(super) is_own_only: bool,
}

impl Trigger {
    pub(super) fn parse(metadata: &HashMap<String, String>) -> Result<Self, Failure> {
        let queue = metadata.get(QUEUE).cloned();
        Ok(Self {
            queue: queue.ok_or_else(|| Failure::invalid(format!("the trigger's metadata has no {QUEUE}")))?,
            // A replica that is meant for fewer than one message would be meant for none.
            per_replica: number(metadata, PER_REPLICA, (1.0, DEFAULT_PER_REPLICA))?,
            activation: number(metadata, ACTIVATION, (0.0, 0.0))?,
            is_own_only: metadata.contains_key(OWN_ONLY),
        })
    }

    /// What one shard asks another.
    pub(super) fn of_own_shard(queue: &str) -> HashMap<String, String> {
        let metadata = [(QUEUE, queue), (OWN_ONLY, "true")];
        metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}

fn number(
    metadata: &HashMap<String, String>,
    name: &str,
    (least, default): (f64, f64),
) -> Result<f64, Failure> {
    let Some(text) = metadata.get(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (least..=MAX_MESSAGES).contains(number));
    number.ok_or_else(|| {
        Failure::invalid(format!(
            "{name} in the trigger's metadata is {:?}; use a number from {least} to {MAX_MESSAGES:e}",
            text.chars().take(40).collect::<String>()
        ))
    })
}

#[cfg(test)]
mod tests {
    use ackwell_proto::Reason;

    use super::*;

    fn trigger(metadata: &[(&str, &str)]) -> Result<Trigger, Failure> {
        Trigger::parse(
            &metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn trigger_has_defaults() {
        let expected =
            Trigger { queue: "orders".to_owned(), per_replica: 10.0, activation: 0.0, is_own_only: false };
        assert_eq!(trigger(&[("queue", "orders"), ("scalerAddress", "x:1")]), Ok(expected));
    }

    /// Promise: whoever wrote the `ScaledObject` is told what is wrong with it.
    #[test]
    fn wrong_triggers_are_refused_with_the_field() {
        for (metadata, name) in [
            (&[][..], "queue"),
            (&[("queue", "orders"), ("messagesPerReplica", "many")], "messagesPerReplica"),
            (&[("queue", "orders"), ("messagesPerReplica", "0.5")], "messagesPerReplica"),
            (&[("queue", "orders"), ("messagesPerReplica", "inf")], "messagesPerReplica"),
            (&[("queue", "orders"), ("messagesPerReplica", "NaN")], "messagesPerReplica"),
            (&[("queue", "orders"), ("activationMessages", "-1")], "activationMessages"),
        ] {
            let failure = trigger(metadata).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidArgument);
            assert!(failure.message.contains(name), "{failure}");
        }
    }
}
