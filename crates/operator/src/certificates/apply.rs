//! What is written to Kubernetes: the Secret, and the trust in it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::SecretData;

/// Owns `caBundle` and nothing else; the chart owns the rest.
const FIELD_MANAGER: &str = "ackwell-operator-webhook";
/// A type that tools know, with our own keys beside its two.
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// The two objects.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) secrets: Api<Secret>,
    pub(crate) configurations: Api<MutatingWebhookConfiguration>,
    secret: String,
}

impl Store {
    pub(crate) fn new(client: Client, namespace: &str, secret: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            configurations: Api::all(client),
            secret: secret.to_owned(),
        }
    }

    /// Conditional on what was read: of two leaders, one is refused and reads again.
    pub(super) async fn write_secret(
        &self,
        old: Option<&Secret>,
        data: SecretData,
    ) -> Result<(), kube::Error> {
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let Some(old) = old else {
            return self.secrets.create(&parameters, &self.new_secret(data)).await.map(drop);
        };
        let new = Secret { data: Some(data), ..old.clone() };
        self.secrets.replace(&self.secret, &parameters, &new).await.map(drop)
    }

    /// Makes API servers trust `bundle`, in every webhook of the configuration.
    pub(super) async fn trust(
        &self,
        configuration: &MutatingWebhookConfiguration,
        bundle: &str,
    ) -> Result<(), kube::Error> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let webhooks = configuration.webhooks.iter().flatten();
        let webhooks: Vec<_> = webhooks
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "webhooks": webhooks,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.configurations
            .patch(&configuration.name_any(), &parameters, &Patch::Apply(patch))
            .await
            .map(drop)
    }

    fn new_secret(&self, data: SecretData) -> Secret {
        let labels =
            [("app.kubernetes.io/name", "ackwell"), ("app.kubernetes.io/managed-by", "ackwell-operator")];
        let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}
