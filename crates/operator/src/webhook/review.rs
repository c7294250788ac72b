//! One `AdmissionReview`: read, decided, answered.

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell_api::Queue;
use ackwell_proto::QueueName;
use futures::future::join_all;
use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::core::response::Status;
use kube::{Api, Client};
use tokio::time::timeout;

use super::{Refusal, SidecarOptions, inject, requested_queues, requested_socket, warnings};

/// Looking queues up only serves a warning: a pod does not wait longer for it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers reviews of pods.
#[derive(Clone)]
pub(super) struct Reviewer {
    client: Client,
    sidecar: SidecarOptions,
}

/// Why a review cannot be answered at all; the API server then refuses the pod with this text.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("this is not an AdmissionReview of a Pod: {0}")]
    Read(#[source] serde_json::Error),
    #[error("the AdmissionReview has no request")]
    NoRequest,
    #[error("write the answer: {0}")]
    Write(#[source] serde_json::Error),
}

impl Reviewer {
    pub(super) fn new(client: Client, sidecar: SidecarOptions) -> Self {
        Self { client, sidecar }
    }

    /// From the body of a request to the body of its answer.
    pub(super) async fn answer(&self, review: &[u8]) -> Result<Vec<u8>, Error> {
        let review: AdmissionReview<Pod> = serde_json::from_slice(review).map_err(Error::Read)?;
        let request: AdmissionRequest<Pod> = review.try_into().map_err(|_| Error::NoRequest)?;
        let response = self.decide(&request).await?;
        serde_json::to_vec(&response.into_review()).map_err(Error::Write)
    }

    async fn decide(&self, request: &AdmissionRequest<Pod>) -> Result<AdmissionResponse, Error> {
        let accepted = AdmissionResponse::from(request);
        let Some(pod) = &request.object else { return Ok(accepted) };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let (queues, wants_socket) = match (requested_queues(pod, namespace), requested_socket(pod)) {
            (Ok(queues), Ok(wants_socket)) => (queues, wants_socket),
            (Err(refusal), _) | (_, Err(refusal)) => return Ok(refuse(accepted, &refusal)),
        };
        let patch = inject(pod, namespace, &queues, wants_socket, &self.sidecar);
        let mut warnings = warnings(pod);
        warnings.extend(
            self.unknown(&queues)
                .await
                .iter()
                .map(|queue| format!("there is no Queue {queue} yet; the sidecar waits for its brokers")),
        );
        tracing::debug!(namespace, name = request.name, operations = patch.len(), "reviewed a pod");
        let mut response = accepted.with_patch(Patch(patch)).expect("JSON values can be written as JSON");
        response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
        Ok(response)
    }

    /// The queues that certainly do not exist. Where it cannot be known in time, or may not be asked, nothing is said.
    async fn unknown<'a>(&self, queues: &'a BTreeSet<QueueName>) -> Vec<&'a QueueName> {
        let lookups = queues.iter().map(|queue| async move {
            let api: Api<Queue> = Api::namespaced(self.client.clone(), queue.namespace());
            let absent = matches!(api.get_metadata_opt(queue.name()).await, Ok(None));
            absent.then_some(queue)
        });
        timeout(LOOKUP_TIMEOUT, join_all(lookups)).await.unwrap_or_default().into_iter().flatten().collect()
    }
}

fn refuse(response: AdmissionResponse, refusal: &Refusal) -> AdmissionResponse {
    let mut response = response.deny(refusal);
    response.result = Status::failure(&refusal.to_string(), "BadRequest").with_code(400);
    response
}

#[cfg(test)]
mod tests;
