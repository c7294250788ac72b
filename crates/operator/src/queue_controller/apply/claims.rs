//! Volume claims: they are made by the StatefulSet controller; only what they ask for is changed here.

use ackwell_api::conditions::reasons;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::{Applier, ApplyError, REQUEST_TIMEOUT, describe};
use crate::queue_controller::error::{Class, classify, what_it_says};
use crate::queue_controller::storage::{Next, Storage};
use crate::queue_controller::validate::Obstacle;

/// Field manager of the sizes.
const STORAGE_MANAGER: &str = "ackwell-operator-storage";

impl Applier<'_> {
    /// Has claims ask for the size they shall have; answers with what the API server refused.
    pub(in super::super) async fn ask_for_room(
        &self,
        storage: &Storage,
    ) -> Result<Option<Obstacle>, ApplyError> {
        let mut refusal = None;
        for volume in storage.volumes.iter().filter(|volume| volume.next == Next::Ask) {
            refusal = refusal.or(self.ask(&volume.claim, storage).await?);
        }
        Ok(refusal)
    }

    async fn ask(
        &self,
        claim: &PersistentVolumeClaim,
        storage: &Storage,
    ) -> Result<Option<Obstacle>, ApplyError> {
        let patch = json!({
            // Of the claim that was judged, not of one that took its place or was changed since.
            "metadata": {"uid": claim.uid(), "resourceVersion": claim.resource_version()},
            "spec": {"resources": {"requests": {"storage": storage.wanted}}},
        });
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default());
        let parameters =
            PatchParams { field_manager: Some(STORAGE_MANAGER.to_owned()), ..PatchParams::default() };
        let (name, patch) = (claim.name_any(), Patch::Merge(&patch));
        match timeout(REQUEST_TIMEOUT, api.patch(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                self.metrics.applied("PersistentVolumeClaim", "applied");
                Ok(None)
            }
            // It changed meanwhile, or is gone: the watch brings the next visit.
            Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => Ok(None),
            Ok(Err(error)) if classify(&error) == Class::User => Ok(Some(refused(claim, storage, &error))),
            Ok(Err(error)) => Err(ApplyError::Request {
                operation: "grow",
                child: describe(claim),
                source: Box::new(error),
            }),
            Err(_) => Err(ApplyError::Timeout { operation: "grow", child: describe(claim) }),
        }
    }
}

fn refused(claim: &PersistentVolumeClaim, storage: &Storage, error: &kube::Error) -> Obstacle {
    let message = format!(
        "the API server does not let {} {} ask for {}; it serves on as it is: {}",
        PersistentVolumeClaim::kind(&()),
        claim.name_any(),
        storage.wanted.0,
        what_it_says(error),
    );
    Obstacle::new(reasons::EXPANSION_REFUSED, message)
}
