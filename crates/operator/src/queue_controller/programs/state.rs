//! What the pod of a copy says of it. Pure.

use std::time::Duration;

use ackwell_proto::exit::NEEDS_A_PERSON;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

/// Before another attempt, where the last one found a broker or a volume away.
const AGAIN: Duration = Duration::from_secs(10);
/// Before another attempt, where only a person can help: they may have.
const AGAIN_AFTER_A_PERSON: Duration = Duration::from_mins(5);
/// Characters of what somebody else said.
const MAX_MESSAGE: usize = 1024;

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::queue_controller) enum Run {
    /// Its pod does not run yet: why.
    Starting(String),
    /// It copies.
    Copying,
    /// It is done.
    Done(Done),
    /// It ended before that.
    Failed {
        /// Of the program; empty where it could not say one.
        reason: String,
        message: String,
        /// Trying again is of no use before a person has done something.
        is_final: bool,
    },
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::queue_controller) struct Done {
    pub(in crate::queue_controller) messages: u64,
    pub(in crate::queue_controller) bytes: u64,
    /// Messages of each shard of the backup, by ordinal.
    pub(in crate::queue_controller) shards: Vec<u64>,
}

/// The last words of a program that failed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Words {
    reason: String,
    message: String,
}

impl Run {
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else { return Self::Starting("its pod starts".to_owned()) };
        let ended = end(status);
        match status.phase.as_deref() {
            Some("Running") => Self::Copying,
            Some("Succeeded") => Self::Done(
                ended.and_then(|end| serde_json::from_str(end.message.as_deref()?).ok()).unwrap_or_default(),
            ),
            Some("Failed") => Self::failed(status, ended),
            _ => Self::Starting(waiting(status)),
        }
    }

    fn failed(status: &PodStatus, end: Option<&ContainerStateTerminated>) -> Self {
        let said = end.and_then(|end| end.message.as_deref()).unwrap_or_default();
        let words: Words = serde_json::from_str(said).unwrap_or_default();
        let by_pod = || status.message.clone().or_else(|| status.reason.clone());
        let why = [words.message, said.trim().lines().last().unwrap_or_default().to_owned()];
        let why = why.into_iter().find(|why| !why.is_empty()).or_else(by_pod);
        let why = why.unwrap_or_else(|| "its pod ended and did not say why".to_owned());
        Self::Failed {
            reason: words.reason,
            message: why.chars().take(MAX_MESSAGE).collect(),
            is_final: end.is_some_and(|end| end.exit_code == i32::from(NEEDS_A_PERSON)),
        }
    }

    pub(super) fn is_to_be_tried_again(&self, pod: &Pod, now: &Time) -> bool {
        let Self::Failed { is_final, .. } = self else { return false };
        let ended = pod.status.as_ref().and_then(end).and_then(|end| end.finished_at.as_ref());
        let since = ended
            .or(pod.metadata.creation_timestamp.as_ref())
            .map_or(i64::MAX, |time| now.0.as_second().saturating_sub(time.0.as_second()));
        let wait = if *is_final { AGAIN_AFTER_A_PERSON } else { AGAIN };
        u64::try_from(since).is_ok_and(|since| since >= wait.as_secs())
    }
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.container_statuses.iter().flatten()
}

fn end(status: &PodStatus) -> Option<&ContainerStateTerminated> {
    containers(status).find_map(|container| container.state.as_ref()?.terminated.as_ref())
}

/// What keeps it from running: the kubelet's words before the scheduler's.
fn waiting(status: &PodStatus) -> String {
    let by_kubelet = containers(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let words = [waiting.reason.as_deref(), waiting.message.as_deref()];
        Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
    });
    let by_scheduler = || {
        let conditions = status.conditions.iter().flatten();
        let mut refused = conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
        refused.find_map(|condition| condition.message.clone())
    };
    let why = by_kubelet.or_else(by_scheduler).unwrap_or_else(|| "it has no node yet".to_owned());
    format!("its pod starts: {}", why.chars().take(MAX_MESSAGE).collect::<String>())
}
