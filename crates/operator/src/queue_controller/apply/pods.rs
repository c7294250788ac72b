//! Pods: they are made by the StatefulSet controller; only those are deleted here that it would wait for in vain.

use ackwell_api::Queue;
use ackwell_api::names::QUEUE_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};

use super::{Applier, ApplyError, request};
use crate::queue_controller::QueueRef;
use crate::queue_controller::caches::Caches;

impl Applier<'_> {
    /// Deletes the pods of a Queue that is gone, if they belong to nobody: it went away in the moment in which its
    /// StatefulSet was made anew.
    pub(in super::super) async fn sweep(&self, caches: &Caches, queue: &QueueRef) -> Result<(), ApplyError> {
        let namespace = queue.namespace.as_deref().unwrap_or_default();
        let orphans = caches.pods.state_filter(|pod| {
            let of_queue = pod.labels().get(QUEUE_LABEL) == Some(&queue.name);
            of_queue && pod.metadata.namespace.as_deref() == Some(namespace) && is_nobodys(pod)
        });
        let Some(first) = orphans.first() else { return Ok(()) };
        let queues: Api<Queue> = Api::namespaced(self.client.clone(), namespace);
        let live = request("read the Queue of", first.as_ref(), queues.get_metadata_opt(&queue.name)).await?;
        if live.is_none() {
            for pod in &orphans {
                self.delete(&**pod).await?;
            }
        }
        Ok(())
    }
}

fn is_nobodys(pod: &Pod) -> bool {
    pod.owner_references().is_empty() && pod.metadata.deletion_timestamp.is_none()
}

/// The object that was meant is not there any more.
pub(super) fn is_other_or_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.is_conflict() || answer.is_not_found())
}
