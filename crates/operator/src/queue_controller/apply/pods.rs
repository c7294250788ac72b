//! Pods: they are made by the StatefulSet controller; only those are deleted here that it would wait for in vain.

use ackwell_api::Queue;
use ackwell_api::names::QUEUE_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
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
                self.replace(pod).await?;
            }
        }
        Ok(())
    }

    /// Deletes this pod, not one that took its place. Whether it was there to be deleted.
    pub(in super::super) async fn replace(&self, pod: &Pod) -> Result<bool, ApplyError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match request("replace", pod, api.delete(&pod.name_any(), &parameters)).await {
            Ok(_) => {
                self.metrics.applied("Pod", "deleted");
                Ok(true)
            }
            Err(ApplyError::Request { source, .. }) if is_other_or_gone(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_nobodys(pod: &Pod) -> bool {
    pod.owner_references().is_empty() && pod.metadata.deletion_timestamp.is_none()
}

/// The object that was meant is not there any more.
pub(super) fn is_other_or_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.is_conflict() || answer.is_not_found())
}
