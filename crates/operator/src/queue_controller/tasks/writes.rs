//! What is written of tasks: only if nothing else was written since it was read.

use ackwell_api::names::MANAGER;
use ackwell_api::{QueueTask, QueueTaskStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::Tasks;
use crate::queue_controller::apply::{ApplyError, request};
use crate::queue_controller::update_status::STATUS_MANAGER;

impl Tasks {
    /// The status, if it changed.
    pub(super) async fn write(&self, task: &QueueTask, status: &QueueTaskStatus) -> Result<(), ApplyError> {
        if task.status.as_ref() == Some(status) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": QueueTask::api_version(&()),
            "kind": QueueTask::kind(&()),
            "metadata": {"uid": task.uid(), "resourceVersion": task.resource_version()},
            "status": status,
        });
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        let patch = Patch::Apply(&body);
        let api = self.api(task);
        let name = task.name_any();
        let written =
            request("write the status of", task, api.patch_status(&name, &parameters, &patch)).await;
        if unless_stale(written)?.is_some() {
            self.tell(task, status).await;
        }
        Ok(())
    }

    /// It goes when its Queue goes.
    pub(super) async fn adopt(&self, task: &QueueTask, owner: &OwnerReference) -> Result<(), ApplyError> {
        let body = json!({
            "apiVersion": QueueTask::api_version(&()),
            "kind": QueueTask::kind(&()),
            "metadata": {
                "uid": task.uid(),
                "resourceVersion": task.resource_version(),
                "ownerReferences": [owner],
            },
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&body);
        let api = self.api(task);
        unless_stale(request("adopt", task, api.patch(&task.name_any(), &parameters, &patch)).await)?;
        Ok(())
    }

    pub(super) async fn delete(&self, task: &QueueTask) -> Result<(), ApplyError> {
        let preconditions = Preconditions { uid: task.uid(), resource_version: task.resource_version() };
        let parameters = DeleteParams::background().preconditions(preconditions);
        unless_stale(request("delete", task, self.api(task).delete(&task.name_any(), &parameters)).await)?;
        Ok(())
    }

    pub(super) fn api(&self, task: &QueueTask) -> Api<QueueTask> {
        Api::namespaced(self.context.options.client.clone(), &task.namespace().unwrap_or_default())
    }
}

/// `None`: it is another one by now, or gone; the next visit sees that.
fn unless_stale<T>(written: Result<T, ApplyError>) -> Result<Option<T>, ApplyError> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(ApplyError::Request { source, .. }) if is_stale(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_stale(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_not_found())
}
