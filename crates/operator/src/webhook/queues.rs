//! Which queues a pod asks for.

use std::collections::BTreeSet;

use ackwell_api::names::{INJECT_LABEL, QUEUES_ANNOTATION, SOCKET_ANNOTATION};
use ackwell_proto::{InvalidQueueName, QueueName};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Most queues of one pod: a sidecar holds a connection to every shard of each.
const MAX_QUEUES: usize = 64;

/// Why a pod is refused: its author has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to connect to.
    #[error(
        "the label {INJECT_LABEL} asks for a sidecar, but the annotation {QUEUES_ANNOTATION} names no queues: \
         set it to their names, like \"orders,logs\""
    )]
    NoQueues,
    /// One of the names is wrong.
    #[error("annotation {QUEUES_ANNOTATION}: {0}")]
    Name(#[from] InvalidQueueName),
    /// More than a sidecar serves.
    #[error("annotation {QUEUES_ANNOTATION} names {0} queues; one sidecar serves at most {MAX_QUEUES}")]
    TooMany(usize),
    /// Nobody knows what is meant.
    #[error("annotation {SOCKET_ANNOTATION} is {0:?}; it may be \"true\" or \"false\"")]
    Socket(String),
}

/// The queues that the annotation names, each once; `namespace` is the pod's.
pub fn requested_queues(pod: &Pod, namespace: &str) -> Result<BTreeSet<QueueName>, Refusal> {
    let text = pod.annotations().get(QUEUES_ANNOTATION).map_or("", String::as_str);
    if text.trim().is_empty() {
        return Err(Refusal::NoQueues);
    }
    named_queues(text, namespace)
}

/// The queues that the text of the annotation names.
pub(crate) fn named_queues(text: &str, namespace: &str) -> Result<BTreeSet<QueueName>, Refusal> {
    let names = text.split(',').count();
    if names > MAX_QUEUES {
        return Err(Refusal::TooMany(names));
    }
    Ok(text.split(',').map(|name| QueueName::parse(name.trim(), namespace)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(annotation: Option<&str>) -> Result<Vec<String>, Refusal> {
        let mut pod = Pod::default();
        if let Some(text) = annotation {
            pod.annotations_mut().insert(QUEUES_ANNOTATION.to_owned(), text.to_owned());
        }
        requested_queues(&pod, "shop").map(|names| names.iter().map(QueueName::to_string).collect())
    }

    /// People write lists with spaces, and charts join lists that overlap.
    #[test]
    fn list_with_spaces_and_repeats_names_each_queue_once() {
        let names = requested(Some(" orders, logs,orders ,other/orders")).unwrap();
        assert_eq!(names, ["other/orders", "shop/logs", "shop/orders"]);
    }

    /// A pod that cannot work is refused where its author sees it.
    #[test]
    fn annotation_that_names_no_valid_queue_is_refused_with_what_to_do() {
        for absent in [None, Some(""), Some("  ")] {
            assert_eq!(requested(absent), Err(Refusal::NoQueues), "{absent:?}");
        }
        for malformed in ["Orders", "orders,", "orders;logs", "a/b/c"] {
            let refusal = requested(Some(malformed)).unwrap_err().to_string();
            assert!(refusal.starts_with("annotation ackwell.dev/queues: queue name "), "{refusal}");
        }
        let many = vec!["orders"; MAX_QUEUES + 1].join(",");
        assert_eq!(requested(Some(&many)), Err(Refusal::TooMany(MAX_QUEUES + 1)));
    }
}
