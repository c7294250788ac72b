//! Events for people, only when something changed: never once per visit.

use ackwell_api::conditions::{reasons, types};
use ackwell_api::{Queue, QueueStatus, RestoreState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};

/// What Kubernetes accepts is 1024 bytes; messages of ours are ASCII but for what they quote.
const MAX_NOTE_CHARS: usize = 512;

/// Publishes what became different; failures are only logged, since events are a courtesy.
pub(super) async fn publish(
    recorder: &Recorder,
    queue: &Queue,
    before: Option<&QueueStatus>,
    after: &QueueStatus,
) {
    for event in edges(before, after) {
        if let Err(error) = recorder.publish(&event, &queue.object_ref(&())).await {
            tracing::debug!(%error, reason = event.reason, "event not published");
        }
    }
}

fn edges(before: Option<&QueueStatus>, after: &QueueStatus) -> Vec<Event> {
    let created =
        before.is_none().then(|| event(EventType::Normal, "Created", "The operator took the Queue up."));
    let ready = became(before, after, types::READY, "True")
        .map(|condition| event(EventType::Normal, "ShardsReady", &condition.message));
    let stalled = became(before, after, types::STALLED, "True")
        .map(|condition| event(EventType::Warning, &condition.reason, &condition.message));
    let suspended = became(before, after, types::SUSPENDED, "True")
        .map(|_| event(EventType::Normal, "Suspended", "The brokers stop; all messages are kept."));
    let draining = became(before, after, types::DRAINING, "True")
        .map(|condition| event(EventType::Normal, "Draining", &condition.message));
    let resumed = ended(before, after, types::SUSPENDED)
        .then(|| event(EventType::Normal, "Resumed", "The brokers start again."));
    let drained = ended(before, after, types::DRAINING)
        .then(|| event(EventType::Normal, "Drained", "The shard that shall go has handed over what it had."));
    let restore = restore(before, after);
    let all =
        [created, ready, stalled, suspended, draining, resumed, drained, restore, trouble(before, after)];
    all.into_iter().flatten().chain(volumes(before, after)).collect()
}

/// A restore that begins, or is done; one that cannot be done is Stalled.
fn restore(before: Option<&QueueStatus>, after: &QueueStatus) -> Option<Event> {
    let was = before.and_then(|before| before.restore.as_ref());
    let is = after.restore.as_ref().filter(|is| was.is_none_or(|was| was.state != is.state))?;
    match is.state {
        RestoreState::Restoring => {
            let note = "A backup is being restored; the shards are closed until it is.";
            was.is_none().then(|| event(EventType::Normal, "RestoreStarted", note))
        }
        RestoreState::Failed => None,
        RestoreState::Done => {
            let note = format!("{} messages are restored.", is.messages.unwrap_or(0));
            Some(event(EventType::Normal, "RestoreCompleted", &note))
        }
    }
}

/// What was true is no longer.
fn ended(before: Option<&QueueStatus>, after: &QueueStatus, type_: &str) -> bool {
    let was =
        before.and_then(|before| find(before, type_)).is_some_and(|condition| condition.status == "True");
    was && became(before, after, type_, "False").is_some()
}

/// Growth: asked for, and done.
fn volumes(before: Option<&QueueStatus>, after: &QueueStatus) -> Vec<Event> {
    let storage = before.and_then(|before| before.storage.as_ref()).zip(after.storage.as_ref());
    let Some((was, is)) = storage else { return Vec::new() };
    let asked = (was.requested != is.requested).then(|| {
        let note = format!("Volumes of {} shall have {}.", was.requested.0, is.requested.0);
        event(EventType::Normal, "VolumeExpansionRequested", &note)
    });
    let done = was.floor.as_ref().zip(is.floor.as_ref()).filter(|(was, is)| was != is).map(|(_, is)| {
        event(EventType::Normal, "VolumeExpansionCompleted", &format!("All volumes have {}.", is.0))
    });
    asked.into_iter().chain(done).collect()
}

/// A cause of not being ready that people should look at.
fn trouble(before: Option<&QueueStatus>, after: &QueueStatus) -> Option<Event> {
    const TROUBLES: [&str; 3] = [reasons::POD_FAILING, reasons::PODS_REFUSED, reasons::BROKER_UNREACHABLE];
    let now = find(after, types::READY).filter(|condition| TROUBLES.contains(&condition.reason.as_str()))?;
    let known = before.and_then(|before| find(before, types::READY));
    known
        .is_none_or(|known| known.reason != now.reason)
        .then(|| event(EventType::Warning, &now.reason, &now.message))
}

fn became<'a>(
    before: Option<&QueueStatus>,
    after: &'a QueueStatus,
    type_: &str,
    status: &str,
) -> Option<&'a Condition> {
    let was =
        before.and_then(|before| find(before, type_)).is_some_and(|condition| condition.status == status);
    find(after, type_).filter(|condition| condition.status == status && !was)
}

fn find<'a>(status: &'a QueueStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// An event about a visit.
pub(in crate::queue_controller) fn event(type_: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(MAX_NOTE_CHARS).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use ackwell_api::StorageStatus;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn status(type_: &str, status: &str, reason: &str) -> QueueStatus {
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: crate::clock::now(),
        };
        QueueStatus { conditions: vec![condition], ..QueueStatus::default() }
    }

    fn reasons_of(before: Option<&QueueStatus>, after: &QueueStatus) -> Vec<String> {
        edges(before, after).into_iter().map(|event| event.reason).collect()
    }

    /// `kubectl describe` tells the story once, however often the Queue is visited.
    #[test]
    fn events_are_published_on_edges_only() {
        let (starting, ready) =
            (status("Ready", "False", "ShardsStarting"), status("Ready", "True", "AllShardsReady"));
        assert_eq!(reasons_of(None, &starting), ["Created"]);
        assert_eq!(reasons_of(Some(&starting), &ready), ["ShardsReady"]);
        assert_eq!(reasons_of(Some(&ready), &ready), Vec::<String>::new());
        let failing = status("Ready", "False", "PodFailing");
        assert_eq!(reasons_of(Some(&ready), &failing), ["PodFailing"]);
        assert_eq!(reasons_of(Some(&failing), &failing), Vec::<String>::new());
        let stalled = status("Stalled", "True", "DrainBlocked");
        assert_eq!(reasons_of(Some(&ready), &stalled), ["DrainBlocked"]);
    }

    #[test]
    fn drains_are_told_when_they_begin_and_end() {
        let (no, yes) = (status("Draining", "False", "NotDraining"), status("Draining", "True", "Draining"));
        assert_eq!(reasons_of(Some(&no), &yes), ["Draining"]);
        assert_eq!(reasons_of(Some(&yes), &yes), Vec::<String>::new());
        assert_eq!(reasons_of(Some(&yes), &no), ["Drained"]);
    }

    #[test]
    fn stopping_and_starting_again_are_told() {
        let (off, on) = (status("Suspended", "False", "NotSuspended"), status("Suspended", "True", "BySpec"));
        assert_eq!(reasons_of(Some(&off), &on), ["Suspended"]);
        assert_eq!(reasons_of(Some(&on), &off), ["Resumed"]);
        assert_eq!(reasons_of(None, &off), ["Created"], "a new Queue was not resumed");
    }

    #[test]
    fn growth_is_told_when_it_begins_and_when_all_volumes_have_it() {
        let sizes = |requested: &str, floor: &str| {
            let size = |text: &str| Quantity(text.to_owned());
            let storage =
                StorageStatus { requested: size(requested), floor: Some(size(floor)), volumes: Vec::new() };
            QueueStatus { storage: Some(storage), ..QueueStatus::default() }
        };
        let (small, growing, large) = (sizes("1Gi", "1Gi"), sizes("2Gi", "1Gi"), sizes("2Gi", "2Gi"));
        assert_eq!(reasons_of(Some(&small), &growing), ["VolumeExpansionRequested"]);
        assert_eq!(reasons_of(Some(&growing), &large), ["VolumeExpansionCompleted"]);
        assert_eq!(reasons_of(Some(&large), &large), Vec::<String>::new());
    }
}
