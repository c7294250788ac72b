//! Step 5: tells people and programs how the Queue is. Conditions are written at once, counts at most every ten seconds.

mod conditions;
pub(super) mod events;
mod messages;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell_api::{Queue, QueueStatus, RestoreStatus, ShardState, StorageStatus, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::QueueRef;
use super::apply::REQUEST_TIMEOUT;
use super::dereference::Observed;
use super::error::{Class, Error, classify, what_it_says};
use super::shards::ShardView;
use super::validate::Plan;

/// Field manager of the status.
pub(super) const STATUS_MANAGER: &str = "ackwell-operator-status";
/// Counts change all the time; every write costs the API server and all who watch.
const COUNTS_INTERVAL: Duration = Duration::from_secs(10);

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    #[error("write the status: {}", what_it_says(.0))]
    Write(#[source] Box<kube::Error>),
    #[error("write the status: no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

impl StatusError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Write(error) => classify(error),
            Self::Timeout => Class::Transient,
        }
    }
}

/// What a status is made from.
pub(super) struct Facts<'a> {
    pub(super) queue: &'a Queue,
    /// How far the earlier steps got.
    pub(super) outcome: Result<&'a Plan, &'a Error>,
    pub(super) observed: &'a Observed,
    pub(super) shards: &'a [ShardView],
}

/// Writes statuses.
pub(crate) struct StatusWriter {
    client: Client,
    recorder: Recorder,
    /// When counts were last written.
    written: Mutex<HashMap<QueueRef, Instant>>,
}

/// When to write a status.
#[derive(Debug, PartialEq, Eq)]
enum Write {
    Never,
    Now,
    /// Only counts changed, and not long ago they did before.
    Later(Duration),
}

impl StatusWriter {
    pub(crate) fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder, written: Mutex::default() }
    }

    /// Writes the status if it changed; answers when to come back to write counts that must wait.
    pub(super) async fn update(
        &self,
        facts: &Facts<'_>,
        now: &Time,
        monotonic: Instant,
    ) -> Result<Option<Duration>, StatusError> {
        let before = facts.queue.status.as_ref();
        let status = compute(facts, now);
        let key = QueueRef::from_obj(facts.queue);
        let last = self.written.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        match decide(before, &status, last.map(|last| monotonic.saturating_duration_since(last))) {
            Write::Never => Ok(None),
            Write::Later(wait) => Ok(Some(wait)),
            Write::Now => {
                self.write(facts.queue, &status).await?;
                self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key, monotonic);
                events::publish(&self.recorder, facts.queue, before, &status).await;
                Ok(None)
            }
        }
    }

    /// Forgets a Queue that is gone.
    pub(super) fn forget(&self, queue: &QueueRef) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    async fn write(&self, queue: &Queue, status: &QueueStatus) -> Result<(), StatusError> {
        let namespace = queue.namespace().unwrap_or_default();
        let name = queue.name_any();
        let body = json!({
            "apiVersion": Queue::api_version(&()),
            "kind": Queue::kind(&()),
            // The uid keeps a status of a deleted Queue from reaching its successor.
            "metadata": {"name": name, "namespace": namespace, "uid": queue.uid()},
            "status": status,
        });
        let api: Api<Queue> = Api::namespaced(self.client.clone(), &namespace);
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        let patch = Patch::Apply(&body);
        match timeout(REQUEST_TIMEOUT, api.patch_status(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => Ok(()),
            Ok(Err(error)) => Err(StatusError::Write(Box::new(error))),
            Err(_) => Err(StatusError::Timeout),
        }
    }
}

/// The status that `facts` amount to.
fn compute(facts: &Facts<'_>, now: &Time) -> QueueStatus {
    let before = facts.queue.status.as_ref();
    let (namespace, name) = (facts.queue.namespace().unwrap_or_default(), facts.queue.name_any());
    let counts = messages::sum(facts, before);
    QueueStatus {
        observed_generation: facts.queue.metadata.generation,
        shards: i32::try_from(facts.observed.pods.len()).unwrap_or(i32::MAX),
        ready_shards: i32::try_from(conditions::serving(facts)).unwrap_or(i32::MAX),
        selector: Some(names::selector(&name)),
        endpoint: Some(names::endpoint(&namespace, &name)),
        shard_states: shard_states(facts, before),
        messages: counts.messages,
        oldest_ready_seconds: counts.oldest_ready_seconds,
        restore: restore(facts, before),
        storage: storage(facts, before),
        conditions: conditions::compute(facts, counts.messages, now),
    }
}

/// What each broker confirmed. One that cannot be asked now runs what it confirmed before, at least.
fn shard_states(facts: &Facts<'_>, before: Option<&QueueStatus>) -> Vec<ShardState> {
    let queue = facts.outcome.ok().map(|plan| &plan.queue);
    let now = |ordinal: u32| {
        let shard = facts.shards.iter().find(|shard| shard.ordinal == ordinal)?;
        queue?.spec_generation(shard.generation?)
    };
    let earlier =
        |ordinal: i32| before?.shard_states.iter().find(|state| state.ordinal == ordinal)?.generation;
    let state = |ordinal: u32| {
        let number = i32::try_from(ordinal).ok()?;
        Some(ShardState { ordinal: number, generation: now(ordinal).or_else(|| earlier(number)) })
    };
    let ordinals: BTreeSet<u32> = facts.observed.pods.iter().map(|(ordinal, _)| *ordinal).collect();
    ordinals.into_iter().filter_map(state).collect()
}

/// What is done stays done.
fn restore(facts: &Facts<'_>, before: Option<&QueueStatus>) -> Option<RestoreStatus> {
    let now = facts.outcome.ok().and_then(|plan| plan.restore.as_ref()).map(|restore| restore.status.clone());
    now.or_else(|| before?.restore.clone())
}

/// Where this visit did not get as far, the last one did.
fn storage(facts: &Facts<'_>, before: Option<&QueueStatus>) -> Option<StorageStatus> {
    let before = before.and_then(|before| before.storage.as_ref());
    match facts.outcome {
        Ok(plan) => Some(plan.storage.status(plan.shards, before)),
        Err(_) => before.cloned(),
    }
}

fn decide(before: Option<&QueueStatus>, after: &QueueStatus, since_last: Option<Duration>) -> Write {
    let Some(before) = before else { return Write::Now };
    if before == after {
        return Write::Never;
    }
    let same_but_counts = QueueStatus {
        messages: before.messages,
        oldest_ready_seconds: before.oldest_ready_seconds,
        ..after.clone()
    };
    if *before != same_but_counts || messages::zeroes(before.messages) != messages::zeroes(after.messages) {
        return Write::Now;
    }
    let wait = since_last.map_or(Duration::ZERO, |since| COUNTS_INTERVAL.saturating_sub(since));
    if wait.is_zero() { Write::Now } else { Write::Later(wait) }
}

#[cfg(test)]
mod tests {
    use ackwell_api::MessageCounts;

    use super::*;
    use crate::queue_controller::fixtures::{pod, queue};
    use crate::queue_controller::validate::validate;

    fn status(ready: i64) -> QueueStatus {
        let messages = Some(MessageCounts { ready, ..MessageCounts::default() });
        QueueStatus { messages, ..QueueStatus::default() }
    }

    const SOON: Option<Duration> = Some(Duration::from_secs(4));

    /// A busy queue costs one write in ten seconds, an idle one none.
    #[test]
    fn counts_alone_wait_for_the_interval() {
        assert_eq!(decide(Some(&status(5)), &status(5), SOON), Write::Never);
        assert_eq!(decide(Some(&status(5)), &status(6), SOON), Write::Later(Duration::from_secs(6)));
        assert_eq!(decide(Some(&status(5)), &status(6), Some(COUNTS_INTERVAL)), Write::Now);
        assert_eq!(decide(Some(&status(5)), &status(6), None), Write::Now, "a new leader knows no last time");
    }

    /// Autoscalers and people wait for "empty" and "not empty".
    #[test]
    fn becoming_empty_or_not_is_written_at_once() {
        assert_eq!(decide(Some(&status(0)), &status(1), SOON), Write::Now);
        assert_eq!(decide(Some(&status(1)), &status(0), SOON), Write::Now);
    }

    #[test]
    fn anything_but_counts_is_written_at_once() {
        assert_eq!(decide(None, &status(0), SOON), Write::Now);
        let started = QueueStatus { ready_shards: 1, ..status(5) };
        assert_eq!(decide(Some(&status(5)), &started, SOON), Write::Now);
    }

    /// Promise: people see which settings each broker runs, also of one that cannot be asked.
    #[test]
    fn settings_of_each_broker_are_told() {
        let mut queue = queue(|spec| spec.shards = 2);
        let pods = vec![(0, pod(0, true).into()), (1, pod(1, false).into())];
        let observed = Observed { pods, ..Observed::default() };
        let plan = validate(&queue, &observed).unwrap();
        let confirmed = plan.queue.generation();
        let current = queue.metadata.generation;
        let view = |ordinal, generation| ShardView { ordinal, generation, ..ShardView::default() };
        // The other one is a broker on the volume of another Queue of this name.
        let shards = [view(0, Some(confirmed)), view(1, Some(confirmed + (1 << 20)))];
        let told = |queue: &Queue| {
            let facts = Facts { queue, outcome: Ok(&plan), observed: &observed, shards: &shards };
            shard_states(&facts, queue.status.as_ref())
        };
        let state = |ordinal, generation| ShardState { ordinal, generation };
        assert!(current.is_some_and(|number| number > 0));
        assert_eq!(told(&queue), [state(0, current), state(1, None)]);
        let before = [0, 1, 2].map(|ordinal| state(ordinal, Some(1))).to_vec();
        queue.status = Some(QueueStatus { shard_states: before, ..QueueStatus::default() });
        assert_eq!(told(&queue), [state(0, current), state(1, Some(1))]);
    }
}
