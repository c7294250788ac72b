//! Remembers what was applied and what came out, so that a visit to an unchanged Queue writes nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

/// What controllers and the API server change without anybody asking.
const VOLATILE: [&str; 3] = ["managedFields", "resourceVersion", "generation"];

/// By kind, namespace and name: fingerprints of what was asked for and of what the API server made of it.
#[derive(Default)]
pub(crate) struct Applied(Mutex<HashMap<[String; 3], (u64, u64)>>);

impl Applied {
    /// Whether applying `desired` again would change nothing: it was applied, and `live` is still what came out.
    pub(super) fn is_current<K: Resource<DynamicType = ()> + Serialize>(
        &self,
        desired: &K,
        live: &K,
    ) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key(desired)).copied();
        known.is_some_and(|known| known == (fingerprint(desired), fingerprint(live)))
    }

    /// `desired` was applied, and `written` came out.
    pub(super) fn remember<K: Resource<DynamicType = ()> + Serialize>(&self, desired: &K, written: &K) {
        let entry = (fingerprint(desired), fingerprint(written));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key(desired), entry);
    }

    /// Forgets the children named `names` in `namespace`: their Queue is gone.
    pub(in super::super) fn forget(&self, namespace: &str, names: &[String]) {
        let gone = |key: &[String; 3]| key[1] == namespace && names.contains(&key[2]);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !gone(key));
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> [String; 3] {
    [K::kind(&()).into_owned(), object.namespace().unwrap_or_default(), object.name_any()]
}

fn fingerprint<K: Serialize>(object: &K) -> u64 {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        VOLATILE.iter().for_each(|field| drop(metadata.remove(*field)));
    }
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_controller::fixtures::stateful_set;

    /// In the steady state nothing is written, though the StatefulSet's status changes all the time.
    #[test]
    fn change_of_status_alone_is_current() {
        let applied = Applied::default();
        let (desired, mut live) = (stateful_set(1), stateful_set(1));
        assert!(!applied.is_current(&desired, &live), "never applied");
        applied.remember(&desired, &live);
        live.metadata.resource_version = Some("7".to_owned());
        live.status = Some(k8s_openapi::api::apps::v1::StatefulSetStatus::default());
        assert!(applied.is_current(&desired, &live));
    }

    /// What somebody changed by hand is set back.
    #[test]
    fn change_of_spec_or_labels_is_not_current() {
        let applied = Applied::default();
        let desired = stateful_set(1);
        applied.remember(&desired, &desired);
        assert!(!applied.is_current(&stateful_set(2), &desired), "another wish");
        assert!(!applied.is_current(&desired, &stateful_set(2)), "drift");
        let mut relabelled = desired.clone();
        relabelled.metadata.labels = None;
        assert!(!applied.is_current(&desired, &relabelled));
    }
}
